package test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"hash/crc32"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/proa-kv/proa/client"
	"github.com/proa-kv/proa/internal/testcluster"
)

// refusal is a start that must fail: with status 2 or 3, and with a message
// that says what is wrong and what to do.
type refusal struct {
	args []string
	says []string // each must occur in the message
}

func (r refusal) check(t *testing.T, run testcluster.Command) {
	t.Helper()
	run.Args = append([]string{"serve", "--log-format=text", "--log-level=error", "--peer-listen=off"}, r.args...)
	if !strings.Contains(strings.Join(r.args, " "), "--listen") {
		run.Args = append(run.Args, "--listen", "127.0.0.1:0")
	}
	got := testcluster.Run(t, run)
	if got.Status != 2 && got.Status != 3 {
		t.Errorf("serve %q exited with status %d, want 2 or 3", r.args, got.Status)
	}
	for _, part := range r.says {
		if !strings.Contains(got.Stderr, part) {
			t.Errorf("serve %q does not say %q but:\n%s", r.args, part, got.Stderr)
		}
	}
	if strings.Contains(got.Stderr, "panic") || strings.Contains(got.Stderr, "goroutine") {
		t.Errorf("serve %q crashed:\n%s", r.args, got.Stderr)
	}
}

// used returns a stopped server whose directory holds some rows, and a
// function that starts it and expects them.
func used(t *testing.T) (*testcluster.Node, func()) {
	t.Helper()
	node := testcluster.Start(t, testcluster.Config{Args: []string{"--shards=2", "--node-id=5"}})
	put(t, node, 10)
	node.Stop()
	return node, func() {
		t.Helper()
		node.Start()
		expectRows(t, node, 10)
		node.Stop()
		node.Verify()
	}
}

func rowKey(i int) []byte { return fmt.Appendf(nil, "row/%06d", i) }

// rowValue is recognisable in a file.
func rowValue(i int) []byte { return bytes.Repeat(fmt.Appendf(nil, "<value %06d>", i), 50) }

// put writes n rows, one after the other, so that each stands in an entry of
// its own.
func put(t *testing.T, node *testcluster.Node, n int) {
	t.Helper()
	c := connect(t, node, nil)
	defer c.Close()
	for i := range n {
		if _, err := c.Put(context.Background(), rowKey(i), rowValue(i)); err != nil {
			t.Fatal(err)
		}
	}
}

func expectRows(t *testing.T, node *testcluster.Node, n int) {
	t.Helper()
	c := connect(t, node, nil)
	defer c.Close()
	for i := range n {
		item, err := c.Get(context.Background(), rowKey(i))
		if err != nil || !bytes.Equal(item.Value, rowValue(i)) {
			t.Errorf("row %d: %d bytes, %v", i, len(item.Value), err)
		}
	}
}

// withSum returns an edited identity with the checksum that whoever wrote it so would
// have given it.
func withSum(identity string) string {
	digits := regexp.MustCompile(`"crc32c": "[0-9a-f]{8}"`)
	zeroed := digits.ReplaceAllString(identity, `"crc32c": "00000000"`)
	sum := crc32.Checksum([]byte(zeroed), crc32.MakeTable(crc32.Castagnoli))
	return digits.ReplaceAllString(identity, fmt.Sprintf(`"crc32c": "%08x"`, sum))
}

func TestRefusedDirectories(t *testing.T) {
	node, intact := used(t)
	dir := node.Dir()
	identity := filepath.Join(dir, "proa.json")
	original, err := os.ReadFile(identity)
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o644); err != nil {
		t.Fatal(err)
	}
	own, other := "etcd", "dragonboat"
	if os.Getenv("PROA_RAFT_ENGINE") == other {
		own, other = other, own
	}
	for _, tt := range []struct {
		name     string
		identity string // replaces proa.json; "-" removes it
		refusal
	}{
		{"another node", "", refusal{[]string{"--data", dir, "--node-id=6"}, []string{"another node", "node 5", "--node-id 5", "--data"}}},
		{"another number of shards", "", refusal{[]string{"--data", dir, "--shards=3"}, []string{"shards", "has 2", "--shards"}}},
		{"another engine", "", refusal{[]string{"--data", dir, "--set=raft.engine=" + other}, []string{"has " + own + ", but " + other, "raft.engine", "proa import"}}},
		{"an engine of later", withSum(strings.Replace(string(original), `"founder": true`, `"engine": "raft", "founder": true`, 1)), refusal{[]string{"--data", dir}, []string{`engine is "raft"`, "version"}}},
		{"another format", withSum(regexp.MustCompile(`"format": \d`).ReplaceAllString(string(original), `"format": 99`)), refusal{[]string{"--data", dir}, []string{"format 99", "version"}}},
		{"changed identity", strings.Replace(string(original), `"shards": 2`, `"shards": 3`, 1), refusal{[]string{"--data", dir}, []string{"proa.json", "checksum", "backup"}}},
		{"damaged identity", "{", refusal{[]string{"--data", dir}, []string{"proa.json", "backup"}}},
		{"empty identity", "\n", refusal{[]string{"--data", dir}, []string{"proa.json", "backup"}}},
		{"lost identity", "-", refusal{[]string{"--data", dir}, []string{"no proa.json", "backup"}}},
		{"below a file", "", refusal{[]string{"--data", filepath.Join(file, "data")}, []string{file, "not a directory", "--data"}}},
		{"a file", "", refusal{[]string{"--data", file}, []string{file, "--data"}}},
	} {
		t.Run(strings.ReplaceAll(tt.name, " ", "-"), func(t *testing.T) {
			switch tt.identity {
			case "":
			case "-":
				err = os.Remove(identity)
			default:
				err = os.WriteFile(identity, []byte(tt.identity), 0o644)
			}
			if err != nil {
				t.Fatal(err)
			}
			tt.check(t, testcluster.Command{})
			if err := os.WriteFile(identity, original, 0o644); err != nil {
				t.Fatal(err)
			}
		})
	}
	intact()
}

func TestRefusedStarts(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "data")
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	taken := ln.Addr().String()
	for name, r := range map[string]refusal{
		"port taken":       {[]string{"--data", dir, "--listen", taken}, []string{taken, "in use", "--listen"}},
		"admin port taken": {[]string{"--data", dir, "--admin-listen", taken}, []string{taken, "in use", "--admin-listen"}},
		"no such address":  {[]string{"--data", dir, "--listen", "192.0.2.1:7400", "--insecure"}, []string{"192.0.2.1:7400", "--listen"}},
		"open to others":   {[]string{"--data", dir, "--listen", "0.0.0.0:0", "--admin-listen", "0.0.0.0:0"}, []string{"listen.client", "listen.admin", "--auth required --admin-password-file", "127.0.0.1", "--insecure"}},
		"no address":       {[]string{"--data", dir, "--listen", "nonsense"}, []string{"nonsense"}},
		"no listener":      {[]string{"--data", dir, "--listen", "off"}, []string{"listen"}},
		"no such flag":     {[]string{"--no-such-flag"}, []string{"no-such-flag", "--help"}},
		"no such key":      {[]string{"--set", "raft.no_such_key=1"}, []string{"raft.no_such_key"}},
		"out of range":     {[]string{"--shards=0"}, []string{"shards"}},
		"no such config":   {[]string{"--config", filepath.Join(dir, "none.yaml")}, []string{"none.yaml"}},
		"join":             {[]string{"--data", dir, "--join", "127.0.0.1:7401"}, []string{"listen.peer", "off", "node.join"}},
	} {
		t.Run(strings.ReplaceAll(name, " ", "-"), func(t *testing.T) { r.check(t, testcluster.Command{}) })
	}
}

func TestSecondServerOnDirectory(t *testing.T) {
	node := testcluster.Start(t, testcluster.Config{})
	put(t, node, 10)
	refusal{[]string{"--data", node.Dir()}, []string{"in use", node.Dir(), "--data"}}.check(t, testcluster.Command{})
	if r := testcluster.Run(t, testcluster.Command{Args: []string{"verify", node.Dir()}}); r.Status != 3 || !strings.Contains(r.Stderr, "in use") {
		t.Errorf("verify beside a running server: status %d, %s", r.Status, r.Stderr)
	}
	expectRows(t, node, 10)
	node.Restart()
	expectRows(t, node, 10)
}

// TestUnixSocketLeftBehind starts over the socket file of a killed server, and
// refuses to take over the one of a living server.
func TestUnixSocketLeftBehind(t *testing.T) {
	socket := filepath.Join(t.TempDir(), "proa.sock")
	node := testcluster.Start(t, testcluster.Config{Address: "unix://" + socket})
	put(t, node, 3)
	refusal{[]string{"--data", t.TempDir(), "--listen=off", "--unix", socket}, []string{socket, "another server"}}.check(t, testcluster.Command{})
	node.Kill()
	if _, err := os.Stat(socket); err != nil {
		t.Fatalf("SIGKILL leaves the socket file: %v", err)
	}
	node.Start()
	expectRows(t, node, 3)
}

// logFile returns the log segment that holds a byte string, and where.
func logFile(t *testing.T, node *testcluster.Node, needle []byte) (path string, content []byte, at int) {
	t.Helper()
	segments, err := filepath.Glob(filepath.Join(node.Dir(), "raft", "*.seg"))
	if err != nil {
		t.Fatal(err)
	}
	for _, path := range segments {
		content, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		if at := bytes.Index(content, needle); at >= 0 {
			return path, content, at
		}
	}
	t.Fatalf("none of %d log segments holds %q", len(segments), needle)
	return "", nil, 0
}

func overwrite(t *testing.T, path string, at int64, b []byte) {
	t.Helper()
	f, err := os.OpenFile(path, os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.WriteAt(b, at); err != nil {
		t.Fatal(err)
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
}

// TestDamagedLog flips one bit in the middle of the log. Everything behind it
// would be lost if that passed for a torn tail, so the server must refuse; and
// must not make it worse, so that a repaired file serves everything.
func TestDamagedLog(t *testing.T) {
	node := testcluster.Start(t, testcluster.Config{Args: []string{"--shards=2"}, Settings: []string{"raft.log_segment_size=4MiB", "raft.log_size_max=16MiB"}})
	put(t, node, 100)
	node.Kill()
	path, content, at := logFile(t, node, rowValue(50))
	overwrite(t, path, int64(at+9), []byte{content[at+9] ^ 0x10})

	for range 2 {
		refusal{[]string{"--data", node.Dir()}, []string{"corrupt", filepath.Base(path), "verify", "backup"}}.check(t, testcluster.Command{})
	}
	r := testcluster.Run(t, testcluster.Command{Args: []string{"verify", node.Dir()}})
	if r.Status != 3 || !strings.Contains(r.Stderr, "corrupt") {
		t.Errorf("verify of a damaged log: status %d, says:\n%s%s", r.Status, r.Stdout, r.Stderr)
	}

	overwrite(t, path, int64(at+9), content[at+9:at+10])
	node.Start()
	expectRows(t, node, 100)
	node.Stop()
	node.Verify()
}

// A log file has its full size before anything is written to it, so one that
// is shorter has lost something that was there: that is damage, not a torn
// write.
func TestShortenedLog(t *testing.T) {
	node := testcluster.Start(t, testcluster.Config{Settings: []string{"raft.log_segment_size=4MiB", "raft.log_size_max=16MiB"}})
	put(t, node, 10)
	node.Kill()
	path, content, at := logFile(t, node, rowValue(9))
	if err := os.Truncate(path, int64(at+100)); err != nil {
		t.Fatal(err)
	}
	refusal{[]string{"--data", node.Dir()}, []string{"corrupt", filepath.Base(path), "verify", "backup"}}.check(t, testcluster.Command{})
	if err := os.WriteFile(path, content, 0o644); err != nil {
		t.Fatal(err)
	}
	node.Start()
	expectRows(t, node, 10)
}

// TestTornLog cuts the last write of the log short, as a loss of power does.
// That one write was never acknowledged then; all before it is there.
func TestTornLog(t *testing.T) {
	const rows = 100
	for name, cut := range map[string]func(t *testing.T, path string, content []byte, at int){
		"zeros": func(t *testing.T, path string, content []byte, at int) {
			overwrite(t, path, int64(at+100), make([]byte, len(content)-at-100))
		},
		"garbage": func(t *testing.T, path string, content []byte, at int) {
			overwrite(t, path, int64(at+100), bytes.Repeat([]byte{0xa5}, 4096))
		},
	} {
		t.Run(strings.ReplaceAll(name, " ", "-"), func(t *testing.T) {
			node := testcluster.Start(t, testcluster.Config{Args: []string{"--shards=2"}, Settings: []string{"raft.log_segment_size=4MiB", "raft.log_size_max=16MiB"}})
			put(t, node, rows-1)
			// What the node records of its log later must not count: the loss
			// comes before that.
			synced := filepath.Join(node.Dir(), "raft", "SYNCED")
			before, err := os.ReadFile(synced)
			if err != nil {
				t.Fatal(err)
			}
			put(t, node, rows)
			node.Kill()
			overwrite(t, synced, 0, before)
			path, content, at := logFile(t, node, rowValue(rows-1))
			cut(t, path, content, at)
			node.Start()
			expectRows(t, node, rows-1)
			c := connect(t, node, nil)
			if item, err := c.Get(context.Background(), rowKey(rows-1)); err == nil {
				t.Errorf("the torn write has come back, with %d bytes", len(item.Value))
			} else if !isNotFound(err) {
				t.Error(err)
			}
			put(t, node, rows)
			node.Restart()
			expectRows(t, node, rows)
			node.Stop()
			node.Verify()
		})
	}
}

// TestLostLogTail loses the end of the log of a node alone, which had been
// acknowledged and recorded as synced: the server refuses to start without it,
// and says what to do. Nothing else is made worse by that.
func TestLostLogTail(t *testing.T) {
	node := testcluster.Start(t, testcluster.Config{Args: []string{"--shards=2"}, Settings: []string{"raft.log_segment_size=4MiB", "raft.log_size_max=16MiB", "storage.memtable_size=64MiB"}})
	put(t, node, 100)
	node.Kill()
	node.Start() // records what it finds
	node.Kill()
	path, content, at := logFile(t, node, rowValue(50))
	overwrite(t, path, int64(at), make([]byte, len(content)-at))
	for range 2 {
		refusal{[]string{"--data", node.Dir()}, []string{"corrupt", filepath.Base(path), "of shard", "verify", "backup", "--cut-log"}}.check(t, testcluster.Command{})
	}
	r := testcluster.Run(t, testcluster.Command{Args: []string{"verify", node.Dir()}})
	if r.Status != 3 || !strings.Contains(r.Stderr, "of shard") {
		t.Errorf("verify of a log without its end: status %d, says:\n%s%s", r.Status, r.Stdout, r.Stderr)
	}
	overwrite(t, path, int64(at), content[at:])
	node.Start()
	expectRows(t, node, 100)
	node.Kill()

	// The operator has no backup and goes on with what is left.
	overwrite(t, path, int64(at), make([]byte, len(content)-at))
	cluster := fmt.Sprintf("%016x", identityOf(t, node.Dir()).Cluster)
	r = testcluster.Run(t, testcluster.Command{Args: []string{"shard", "recover", "--unsafe", "--cut-log", "--data", node.Dir(), "--yes-i-lose-acknowledged-writes", cluster}})
	if r.Status != 0 {
		t.Fatalf("recover: status %d, says:\n%s%s", r.Status, r.Stdout, r.Stderr)
	}
	node.Start()
	expectRows(t, node, 50)
	node.Stop()
	node.Verify()
}

func isNotFound(err error) bool { return errors.Is(err, client.ErrNotFound) }
