package redis

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"regexp"
	"strings"
	"testing"

	"github.com/proa-kv/proa/internal/testcluster"
)

// otherClient is a client library of another language, with a program in
// testdata/clients.
type otherClient struct {
	name    string
	program []string
	needs   []string // run with it, these succeed where the library is there
	noSize  bool     // it does not tell the number of keys
}

var otherClients = []otherClient{
	{name: "ioredis", program: []string{"node", "client.js"}, needs: []string{"-e", "require('ioredis')"}},
	{name: "redis4", program: []string{"node", "client.js"}, needs: []string{"-e", "require('redis4')"}},
	{name: "redis5", program: []string{"node", "client.js"}, needs: []string{"-e", "require('redis5')"}},
	{name: "keyv", program: []string{"node", "client.js"}, needs: []string{"-e", "require('keyv'), require('@keyv/redis')"}, noSize: true},
	// Debian's Python has Debian's library.
	{name: "redis-py", program: []string{"/usr/bin/python3", "client.py"}, needs: []string{"-c", "import redis.cluster"}},
	{name: "phpredis", program: []string{"php", "client.php"}, needs: []string{"-r", "new Redis();"}},
	{name: "redis-rb", program: []string{"ruby", "client.rb"}, needs: []string{"-e", "require 'redis'"}},
}

const clientsDir = "testdata/clients"

// command returns a command that runs c with further arguments.
func (c *otherClient) command(ctx context.Context, program []string, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, program[0], append(program[1:len(program):len(program)], args...)...)
	cmd.Dir = clientsDir
	return cmd
}

// installed returns the libraries that are there. Where all must be, one that is
// not is a failure.
func installed(t *testing.T) (there []otherClient) {
	t.Helper()
	for _, c := range otherClients {
		out, err := c.command(limited(t), c.program[:1], c.needs...).CombinedOutput()
		switch {
		case err == nil:
			there = append(there, c)
		case required():
			t.Errorf("%s is not there, .ci/run installs it: %v\n%s", c.name, err, out)
		default:
			t.Logf("%s is not there and left out", c.name)
		}
	}
	if len(there) == 0 {
		lacks(t, "no client library of another language is there")
	}
	return there
}

// TestOtherClients has the client libraries of other languages write keys and
// then walk over the whole keyspace: each finds each key exactly once, on one
// node and on three, with and without resp.redirect, as a single Redis where
// there is one to be seen, and as a cluster. On a node that is alone it writes
// them with commands and transactions over several shards.
func TestOtherClients(t *testing.T) {
	clients := installed(t)
	for _, redirect := range []bool{false, true} {
		t.Run(fmt.Sprintf("one node, redirect=%t", redirect), func(t *testing.T) {
			useOtherClients(t, clients, []string{startAlone(t, redirect)}, []string{"single", "cluster"})
		})
		t.Run(fmt.Sprintf("three nodes, redirect=%t", redirect), func(t *testing.T) {
			modes := []string{"single", "cluster"}
			if redirect {
				modes = modes[1:]
			}
			_, addresses := startCluster(t, redirect)
			useOtherClients(t, clients, addresses, modes)
		})
	}
}

// TestExamples runs the programs of docs/clients.md that use Redis libraries.
func TestExamples(t *testing.T) {
	var address string
	for _, c := range installed(t) {
		example := map[string]string{"redis-py": "redis_client.py", "ioredis": "redis_client.js"}[c.name]
		if example == "" {
			continue
		}
		if address == "" {
			address = startAlone(t, false)
		}
		t.Run(example, func(t *testing.T) {
			cmd := c.command(limited(t), c.program[:1], "../../../../docs/examples/"+example, address)
			cmd.Env = append(os.Environ(), "NODE_PATH=node_modules", "PYTHONDONTWRITEBYTECODE=1")
			out, err := cmd.CombinedOutput()
			if want := regexp.MustCompile("^hello\n[12]\nnot found\n$"); err != nil || !want.Match(out) {
				t.Errorf("%v\n%s", err, out)
			}
		})
	}
}

// shardsAlone is the flag for the shards of a node that is alone: one where the Raft engine
// that the environment sets does not carry out commands across shards (the table of
// engines, raftgroup.Engines; its packages are no dependency of this module).
func shardsAlone() string {
	if os.Getenv("PROA_RAFT_ENGINE") == "dragonboat" {
		return "--shards=1"
	}
	return "--shards=8"
}

// startAlone starts a node that is its own cluster, with eight shards if its engine allows
// it, and returns where it speaks Redis's protocol.
func startAlone(t *testing.T, redirect bool) (address string) {
	t.Helper()
	address = testcluster.FreeAddress(t)
	testcluster.Start(t, testcluster.Config{
		Args: []string{shardsAlone(), "--resp-listen", address}, Settings: []string{fmt.Sprintf("resp.redirect=%t", redirect)},
	})
	awaitAnswer(t, address)
	return address
}

func useOtherClients(t *testing.T, clients []otherClient, addresses, modes []string) {
	const count = 60
	total := 0
	for _, c := range clients {
		for _, mode := range modes {
			total += count
			t.Run(c.name+" "+mode, func(t *testing.T) {
				prefix := strings.ReplaceAll(t.Name(), "/", " ") + " "
				alone := "0"
				if len(addresses) == 1 {
					alone = "1"
				}
				cmd := c.command(limited(t), c.program, c.name, mode, strings.Join(addresses, ","), prefix, fmt.Sprint(count), alone)
				var problems bytes.Buffer
				cmd.Stderr = &problems
				out, err := cmd.Output()
				if err != nil {
					t.Fatalf("%v\n%s", err, problems.Bytes())
				}
				met, size := keysMet(out)
				for i := range count {
					key := fmt.Sprint(prefix, i)
					if met[key] != 1 {
						t.Errorf("%q was met %d times", key, met[key])
					}
					delete(met, key)
				}
				if len(met) > 0 {
					t.Errorf("met besides: %v", met)
				}
				if want := fmt.Sprint(total); size != want && !c.noSize {
					t.Errorf("the size is %s, want %s", size, want)
				}
			})
		}
	}
}

// keysMet reads what a program prints.
func keysMet(out []byte) (met map[string]int, size string) {
	met = make(map[string]int)
	for lines := bufio.NewScanner(bytes.NewReader(out)); lines.Scan(); {
		if key, ok := strings.CutPrefix(lines.Text(), "key "); ok {
			met[key]++
		} else if n, ok := strings.CutPrefix(lines.Text(), "size "); ok {
			size = n
		}
	}
	return met, size
}

// TestClientsAreLocked: what npm installs is fixed, and from no registry in
// particular.
func TestClientsAreLocked(t *testing.T) {
	lock, err := os.ReadFile(clientsDir + "/package-lock.json")
	if err != nil {
		t.Fatal(err)
	}
	if bytes.Contains(lock, []byte(`"resolved"`)) {
		t.Error("package-lock.json names a registry; write it with omit-lockfile-registry-resolved=true")
	}
	for _, name := range []string{"ioredis", "redis4", "redis5", "keyv", "@keyv/redis"} {
		if !bytes.Contains(lock, []byte(`"node_modules/`+name+`"`)) {
			t.Errorf("package-lock.json lacks %s", name)
		}
	}
}
