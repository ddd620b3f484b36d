package test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/proa-kv/proa/client"
	"github.com/proa-kv/proa/command"
	"github.com/proa-kv/proa/internal/certtest"
	"github.com/proa-kv/proa/internal/spawn"
	"github.com/proa-kv/proa/internal/testcluster"
)

// Every command line of the pages that a user follows is run as it stands there,
// but for addresses and directories. Servers listen on an address of loopback that
// belongs to the page alone, since the pages name ports.

var (
	pageBlock   = regexp.MustCompile("(?s)```[a-z]*\n(.*?)```|((?:\n    [^\n]+)+)")
	pageInline  = regexp.MustCompile("`([^`]+)`")
	pageSpace   = regexp.MustCompile(`\s+`)
	pageComment = regexp.MustCompile(`(^|\s+)#.*$`)
	pageCommand = regexp.MustCompile(`^(proa|redis-cli|redis-benchmark|make|go (run|get|test|mod)|export) `)
	// pageMention is a command that the text only names, with or without flags:
	// "`proa status` shows …". TestDocumentedCommands checks that there is one.
	pageMention = regexp.MustCompile(`^(proa( [a-z][a-z-]*){0,2}( --[a-z-]+)*|redis-cli|redis-benchmark|make [a-z-]+)$`)
)

// page is a page of the documentation, with what of it has been run.
type page struct {
	t       *testing.T
	name    string
	text    string
	known   map[string]bool // all lines
	left    map[string]bool // lines that have to be run yet
	dir     string          // where ./proa is, and all data
	network string          // the first three numbers of the page's addresses
	env     []string
}

func openPage(t *testing.T, name string) *page {
	t.Helper()
	if testcluster.Instrumented() {
		t.Skip("pages are for servers as users have them")
	}
	text, err := os.ReadFile(filepath.Join("..", name))
	if err != nil {
		t.Fatal(err)
	}
	p := &page{t: t, name: name, text: string(text), known: map[string]bool{}, left: map[string]bool{}, dir: t.TempDir()}
	p.network = fmt.Sprintf("127.%d.%d", 1+rand.IntN(254), rand.IntN(255))
	for line := range p.lines() {
		p.known[line], p.left[line] = true, true
	}
	if err := os.Symlink(testcluster.Binary(t), filepath.Join(p.dir, "proa")); err != nil {
		t.Fatal(err)
	}
	home := filepath.Join(p.dir, "home")
	p.env = append(spawn.Environment("PATH"), "PATH="+p.dir+":"+os.Getenv("PATH"), "PROA_MEMORY_MAX_MEMORY_USAGE=384MiB", "PROA_RAFT_LOG_SEGMENT_SIZE=1MiB",
		"HOME="+home, "XDG_CONFIG_HOME="+home, "XDG_STATE_HOME="+home)
	return p
}

// lines returns the command lines of the page, in blocks and in the text. Those of
// blocks come whole; of the text, only those that say more than a name.
func (p *page) lines() func(yield func(string) bool) {
	return func(yield func(string) bool) {
		for _, block := range pageBlock.FindAllStringSubmatch(p.text, -1) {
			for line := range strings.Lines(block[1] + block[2]) {
				line = strings.TrimPrefix(strings.TrimSpace(line), "$ ")
				line = strings.TrimPrefix(strings.TrimSpace(pageComment.ReplaceAllString(line, "")), "./")
				if pageCommand.MatchString(line) && !yield(line) {
					return
				}
			}
		}
		for _, code := range pageInline.FindAllStringSubmatch(pageBlock.ReplaceAllString(p.text, "\n"), -1) {
			line := strings.TrimPrefix(pageSpace.ReplaceAllString(code[1], " "), "./")
			if p.known[line] = true; pageCommand.MatchString(line) && !pageMention.MatchString(line) && !yield(line) {
				return
			}
		}
	}
}

// command prepares a line of the page. substitutes are pairs: what stands in the
// page, and what is run in its place.
func (p *page) command(ctx context.Context, line string, substitutes ...string) *exec.Cmd {
	p.t.Helper()
	if !p.known[line] {
		p.t.Fatalf("%s has no line %q; left are:\n%s", p.name, line, p.rest())
	}
	delete(p.left, line)
	run := strings.NewReplacer(substitutes...).Replace(line)
	cmd := exec.CommandContext(ctx, "bash", "-c", "exec "+run)
	if strings.ContainsAny(run, "&;") {
		cmd.Args[2] = run
	}
	cmd.Dir, cmd.Env = p.dir, p.env
	return cmd
}

// run runs a line, which must end with success, and returns what it printed.
func (p *page) run(line string, substitutes ...string) string {
	p.t.Helper()
	out, err := p.command(p.t.Context(), line, substitutes...).CombinedOutput()
	if err != nil {
		p.t.Fatalf("%s: %s: %v\n%s", p.name, line, err, out)
	}
	return string(out)
}

// runAwaited runs a line, again while it fails: what it reports takes its time.
func (p *page) runAwaited(line string, substitutes ...string) {
	p.t.Helper()
	var out []byte
	for begin := time.Now(); time.Since(begin) < patience; {
		var err error
		if out, err = p.command(p.t.Context(), line, substitutes...).CombinedOutput(); err == nil {
			return
		}
	}
	p.t.Fatalf("%s: %s does not succeed:\n%s", p.name, line, out)
}

// server starts a line that serves, and returns what ends it: with SIGTERM, which
// must succeed. It waits until client, a host:port, answers.
func (p *page) server(line, client string, substitutes ...string) (stop func()) {
	p.t.Helper()
	ctx, kill := context.WithCancel(context.Background())
	cmd := p.command(ctx, line, substitutes...)
	var log bytes.Buffer
	cmd.Stderr = &log
	if err := cmd.Start(); err != nil {
		p.t.Fatal(err)
	}
	var ended error
	gone := make(chan struct{})
	go func() { ended = cmd.Wait(); close(gone) }()
	stop = func() {
		p.t.Helper()
		err := cmd.Process.Signal(os.Interrupt)
		if err == nil {
			<-gone
			err = ended
		}
		if err != nil {
			p.t.Errorf("%s: %s: %v", p.name, line, err) // its log is shown at the end
		}
	}
	p.t.Cleanup(func() {
		kill()
		<-gone // it writes to the page's directory and to its log no more
		if p.t.Failed() {
			p.t.Logf("%s:\n%s", line, log.String())
		}
	})
	if client != "" {
		p.await("ping", "-e", client)
	}
	return stop
}

// await runs a command of proa until it succeeds.
func (p *page) await(args ...string) {
	p.t.Helper()
	var out []byte
	for begin := time.Now(); time.Since(begin) < patience; {
		cmd := exec.CommandContext(p.t.Context(), filepath.Join(p.dir, "proa"), args...)
		cmd.Env = p.env
		var err error
		if out, err = cmd.CombinedOutput(); err == nil {
			return
		}
	}
	p.t.Fatalf("%s: proa %s does not succeed:\n%s", p.name, strings.Join(args, " "), out)
}

func (p *page) rest() string { return strings.Join(slices.Sorted(maps.Keys(p.left)), "\n") }

// end fails the test for lines that have not been run.
func (p *page) end() {
	p.t.Helper()
	if len(p.left) > 0 {
		p.t.Errorf("%s: no test runs:\n%s", p.name, p.rest())
	}
}

// transcript runs a block of the page that shows commands with what they print,
// and compares both in shape.
func (p *page) transcript(first string, shape func(string) string, substitutes ...string) {
	p.t.Helper()
	at := strings.Index(p.text, "```console\n$ "+first)
	if at < 0 {
		p.t.Fatalf("%s has no block that begins with %q", p.name, first)
	}
	block := p.text[at+len("```console\n"):]
	block = block[:strings.Index(block, "```")]
	var got strings.Builder
	for line := range strings.Lines(block) {
		command, ok := strings.CutPrefix(line, "$ ")
		if !ok {
			continue
		}
		got.WriteString(line)
		out := p.run(strings.TrimPrefix(strings.TrimSpace(pageComment.ReplaceAllString(command, "")), "./"), substitutes...)
		got.WriteString(strings.TrimSuffix(out, "\n") + "\n")
	}
	if diff := cmp.Diff(shape(block), shape(got.String())); diff != "" {
		p.t.Errorf("%s (-page +run):\n%s", p.name, diff)
	}
}

var (
	pageDuration = regexp.MustCompile(`\b(30m0s|29m\d+s)\b`)
	pageVersion  = regexp.MustCompile(`(?m)(version|^\S+|ok) \d+`)
)

// comparable leaves out of an output the space between columns, what is left of a
// time to live, and what redis-cli adds on a terminal.
func comparable(s string) string {
	var out strings.Builder
	for line := range strings.Lines(strings.ReplaceAll(pageDuration.ReplaceAllString(s, "29m58s"), "(integer) ", "")) {
		out.WriteString(strings.Join(strings.Fields(line), " ") + "\n")
	}
	return out.String()
}

// source runs go in the checkout: it is where a page's "go run" is run.
func (p *page) source(line string, substitutes ...string) string {
	p.t.Helper()
	cmd := p.command(p.t.Context(), line, substitutes...)
	cmd.Dir = ".."
	out, err := cmd.CombinedOutput()
	if err != nil {
		p.t.Fatalf("%s: %s: %v\n%s", p.name, line, err, out)
	}
	return string(out)
}

// checkout runs the lines that have a module of a user's own use the client of the
// checkout, and builds a program there.
func (p *page) checkout(replace, get, program string) {
	p.t.Helper()
	repository, err := filepath.Abs("..")
	if err != nil {
		p.t.Fatal(err)
	}
	source, err := os.ReadFile(filepath.Join(repository, program))
	if err != nil {
		p.t.Fatal(err)
	}
	dir := p.t.TempDir()
	for name, text := range map[string]string{"main.go": string(source), "go.mod": "module example.com/own\n"} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			p.t.Fatal(err)
		}
	}
	for _, line := range []string{replace, get, "go vet ."} {
		p.known[line] = true
		cmd := p.command(p.t.Context(), line, "PATH", repository)
		cmd.Dir, cmd.Env = dir, append(os.Environ(), "GOPROXY=off")
		if out, err := cmd.CombinedOutput(); err != nil {
			p.t.Fatalf("%s: %s: %v\n%s", p.name, line, err, out)
		}
	}
}

// targets takes the lines that call make or go's own tools for run when what they
// name exists.
func (p *page) targets() {
	p.t.Helper()
	for _, line := range slices.Sorted(maps.Keys(p.left)) {
		words := strings.Fields(line)
		switch {
		case words[0] == "make":
			p.t.Logf("make -n %s", words[1])
			cmd := exec.CommandContext(p.t.Context(), "make", "-n", "-C", "..", words[1])
			if out, err := cmd.CombinedOutput(); err != nil {
				p.t.Errorf("%s: %s: %v\n%s", p.name, line, err, out)
			}
		case words[0] == "go" && words[1] == "test":
			p.tests(line, words[2:])
		default:
			continue
		}
		delete(p.left, line)
	}
}

// tests checks that a line that calls go test names tests that exist.
func (p *page) tests(line string, words []string) {
	p.t.Helper()
	args, run := []string{"test"}, "."
	for i := 0; i < len(words); i++ {
		switch {
		case words[i] == "-run":
			run = strings.Trim(words[i+1], "'")
			i++
		case words[i] == "-C":
			args = append(args, "-C", words[i+1])
			i++
		case strings.HasPrefix(words[i], "./"):
			args = append(args, words[i])
		}
	}
	cmd := exec.CommandContext(p.t.Context(), "go", append(args, "-list", run)...)
	cmd.Dir = ".."
	out, err := cmd.CombinedOutput()
	if err != nil || !strings.Contains(string(out), "Test") {
		p.t.Errorf("%s: %s: no such test (%v)\n%s", p.name, line, err, out)
	}
}

func TestReadme(t *testing.T) {
	t.Parallel()
	p := openPage(t, "README.md")
	host := p.network + ".1"
	p.known["proa serve --listen 127.0.0.1:7400"] = true // what make run does
	stop := p.server("proa serve --listen 127.0.0.1:7400", host+":7400", "127.0.0.1:7400", host+":7400 --peer-listen "+host+":7401")
	p.env = append(p.env, "PROA_ENDPOINTS="+host+":7400")
	p.transcript("./proa put greeting hello", comparable)
	p.transcript("./proa put greeting hello", func(s string) string {
		return pageVersion.ReplaceAllString(comparable(s), "$1 N")
	})
	if _, err := exec.LookPath("redis-cli"); err == nil {
		p.transcript("redis-cli", comparable, "redis-cli", "redis-cli -h "+host)
	} else {
		delete(p.left, "redis-cli -p 7403 INCR visits")
	}
	p.checkout("go mod edit -replace github.com/proa-kv/proa=PATH", "go get github.com/proa-kv/proa/client", "docs/examples/goclient/main.go")
	program := p.source("go run ./docs/examples/goclient 127.0.0.1:7400", "127.0.0.1", host)
	if !regexp.MustCompile(`^hello\n\d+\nnot found\n$`).MatchString(program) {
		t.Errorf("the program printed %q", program)
	}
	source, err := os.ReadFile("../docs/examples/goclient/main.go")
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(p.text, "```go\n"+string(source)+"```") {
		t.Error("README.md does not show docs/examples/goclient/main.go as it is")
	}
	stop()

	var stops []func()
	for _, id := range []string{"1", "2", "3"} {
		for line := range p.lines() {
			if strings.HasPrefix(line, "proa serve --node-id "+id) {
				stops = append(stops, p.server(line, "", "127.0.0.1", host))
			}
		}
	}
	endpoints := "export PROA_ENDPOINTS=127.0.0.1:7400,127.0.0.1:7410,127.0.0.1:7420"
	p.env = append(p.env, strings.ReplaceAll(strings.TrimPrefix(endpoints, "export "), "127.0.0.1", host))
	delete(p.left, endpoints)
	p.await("status")
	stops[0]()
	p.run("proa put greeting hello")
	p.run("proa status --watch", "--watch", "--help")
	stops[1]()
	stops[2]()
	demo := "proa demo --duration 6s"
	if testing.Short() {
		demo = "proa demo --help"
	}
	p.run("make build && ./proa demo", "make build && ./proa demo", demo)
	p.targets()
	p.end()
}

// move runs a line that moves a replica, of a shard that one node has none of. The
// cluster moves replicas by itself meanwhile, so a move may be refused.
func (p *page) move(line string) {
	p.t.Helper()
	for begin := time.Now(); time.Since(begin) < patience; {
		status := exec.CommandContext(p.t.Context(), filepath.Join(p.dir, "proa"), "status", "-o", "json")
		status.Env = p.env
		out, _ := status.Output() // its exit status tells of the cluster's health
		var s struct {
			Nodes  []command.NodeInfo
			Shards []struct {
				Shard    json.RawMessage // a number, or "meta"
				Replicas []command.ReplicaInfo
			}
		}
		err := json.Unmarshal(out, &s)
		if err != nil {
			p.t.Fatalf("%v in %s", err, out)
		}
		for _, shard := range s.Shards {
			for _, n := range s.Nodes {
				has := func(r command.ReplicaInfo) bool { return r.Node == n.ID }
				if shard.Shard[0] == '"' || slices.ContainsFunc(shard.Replicas, has) {
					continue
				}
				from := shard.Replicas[0].Node
				move := p.command(p.t.Context(), line, "SHARD", string(shard.Shard), "--from N", fmt.Sprint("--from ", from), "--to N", fmt.Sprint("--to ", n.ID))
				if out, err = move.CombinedOutput(); err == nil {
					return
				}
			}
		}
		p.t.Logf("again: %s", out)
	}
	p.t.Fatalf("%s: %s: refused for %v", p.name, line, patience)
}

// sure is the flag that stands for typing the id of a directory's cluster.
func (p *page) sure(dir string) string {
	p.t.Helper()
	b, err := os.ReadFile(filepath.Join(p.dir, dir, "proa.json"))
	if err != nil {
		p.t.Fatal(err)
	}
	var identity struct {
		Cluster uint64 `json:"cluster_id,string"`
	}
	if err := json.Unmarshal(b, &identity); err != nil {
		p.t.Fatal(err)
	}
	return fmt.Sprintf("--yes-i-lose-acknowledged-writes %016x", identity.Cluster)
}

func TestOperations(t *testing.T) {
	t.Parallel()
	if testing.Short() {
		t.Skip("founds, grows and shrinks a cluster")
	}
	p := openPage(t, "docs/operations.md")
	host := func(n int) string { return fmt.Sprintf("%s.%d", p.network, n) }
	// at puts a line's server on a machine of its own.
	at := func(n int, more ...string) []string {
		return append(more, "n1:", host(1)+":", "n2:", host(2)+":", "n3:", host(3)+":",
			":7400 ", fmt.Sprintf("%s:7400 --peer-listen %[1]s:7401 ", host(n)), "/var/lib/proa", fmt.Sprintf("data%d", n))
	}
	alone := "proa serve --data /var/lib/proa --listen 127.0.0.1:7400"
	p.server(alone, host(9)+":7400", "/var/lib/proa", "data9", "127.0.0.1:7400", host(9)+":7400 --peer-listen off")()
	p.run("proa shard recover --unsafe --cut-log --data DIR", "DIR", "data9 "+p.sure("data9"))

	p.run("proa cluster secret")
	end := p.server("proa serve --data /var/lib/proa --listen :7400 --auth required --admin-password-file FILE", "",
		"/var/lib/proa", "data8", ":7400", host(8)+":7400 --peer-listen off --unix users", "FILE", secretFile(t, "admin", adminPassword))
	eventually(t, "the first administrator", func() error {
		c, err := client.New(t.Context(), client.Config{Endpoints: []string{host(8) + ":7400"}, User: "admin", Secret: adminPassword})
		if err == nil {
			err = c.Close()
		}
		return err
	})
	operator := "unix://" + filepath.Join(p.dir, "users")
	p.env = append(p.env, "PROA_ENDPOINTS="+operator)
	p.run("proa role add orders --read-write order: --read customer:")
	p.run("proa user add shop --role orders --generate")
	p.run("proa user add ann --role readonly --right monitor", "monitor", "monitor --generate")
	if out := p.run("proa user list"); !regexp.MustCompile(`(?m)^shop +password +orders +customer: read, order: read-write$`).MatchString(out) {
		t.Errorf("the users: %s", out)
	}
	p.run("proa user passwd NAME --drop-old", "NAME", "shop")
	p.run("proa -e unix:///run/proa.sock user passwd admin", "unix:///run/proa.sock", operator, "passwd admin", "passwd admin --generate")
	end()

	stop := map[int]func(){}
	for n := 1; n <= 3; n++ {
		line := fmt.Sprintf("proa serve --node-id %d --join n1:7401,n2:7401,n3:7401 --listen :7400 --insecure --data /var/lib/proa", n)
		stop[n] = p.server(line, "", at(n)...)
	}
	p.env = append(p.env, fmt.Sprintf("PROA_ENDPOINTS=%s:7400,%s:7400", host(1), host(2)))
	p.runAwaited("proa status")
	p.run("proa status --node")

	p.await("put", "session:1", "data")
	p.run("proa export FILE", "FILE", "rows")
	if out := p.run("proa del --prefix session: --dry-run"); !strings.Contains(out, "1 ") {
		t.Errorf("a dry run counts one key: %s", out)
	}
	p.run("proa del --prefix session: --yes")
	p.run("proa import FILE", "FILE", "rows")
	p.await("get", "session:1")

	token := lastLine(p.run("proa -e n1:7400 member token", "n1", host(1)))
	stop[4] = p.server("proa serve --join n1:7401 --join-token TOKEN --listen :7400 --insecure --data /var/lib/proa", host(4)+":7400", at(4, "TOKEN", token)...)
	p.await("status")
	p.move("proa shard move SHARD --from N --to N")
	p.runAwaited("proa member drain 2")
	p.run("proa member drain 2 --undo")
	p.runAwaited("proa shard checksum --all")         // replicas are being moved
	p.await("shard", "transfer", "meta", "--to", "2") // of which every node has a replica
	delete(p.left, "proa shard transfer SHARD --to NODE")
	token = lastLine(p.run("proa member token --new"))
	stop[5] = p.server("proa serve --join n1:7401 --join-token TOKEN ...", host(5)+":7400",
		at(5, "TOKEN ...", token+" --listen "+host(5)+":7400 --peer-listen "+host(5)+":7401 --data data5")...)
	p.run("proa member add 4", "4", "7")
	p.run("proa member remove 3")
	stop[5]()
	p.run("proa member remove 3 --force", "3", "5")
	stop[4]()
	p.run("proa member remove ID --force", "ID", "4")
	stop[1]()
	stop[2]()

	for _, line := range []string{"proa verify /var/lib/proa", "proa verify DIR"} {
		p.run(line, "/var/lib/proa", "data1", "DIR", "data2")
	}
	p.run("proa shard recover --unsafe --data /var/lib/proa", "/var/lib/proa", "data1 "+p.sure("data1"))
	p.server(alone, host(1)+":7400", "/var/lib/proa", "data1", "127.0.0.1:7400", host(1)+":7400 --peer-listen "+host(1)+":7401")
	p.env = append(p.env, "PROA_ENDPOINTS="+host(1)+":7400")
	p.await("get", "session:1")
	p.targets()
	p.end()
}

// serving starts one server, outside of the page, and returns its host.
func (p *page) serving(n int) (host string) {
	p.t.Helper()
	host = fmt.Sprintf("%s.%d", p.network, n)
	line := "proa serve --data DIR --listen HOST:7400 --peer-listen off"
	p.known[line] = true
	p.server(line, host+":7400", "DIR", fmt.Sprintf("data%d", n), "HOST", host)
	return host
}

func TestBenchPage(t *testing.T) {
	t.Parallel()
	if testing.Short() {
		t.Skip("runs each workload of the page")
	}
	p := openPage(t, "docs/bench.md")
	p.env = append(p.env, "PROA_ENDPOINTS="+p.serving(1)+":7400")
	for line := range p.lines() {
		if !strings.HasPrefix(line, "proa bench") {
			continue
		}
		short := []string{"100000", "1000", "1m", "1s", " &", "", "30s", "200ms"}
		if !regexp.MustCompile(` -n |merge|cleanup|help`).MatchString(line) {
			short = append(short, "proa bench", "proa bench --duration 200ms --warmup 0 -k 1000")
		}
		p.run(line, short...)
	}
	p.run("proa del --prefix _bench/", "_bench/", "_bench/ --yes")
	p.targets()
	p.end()
}

func TestCommandLinePage(t *testing.T) {
	t.Parallel()
	p := openPage(t, "docs/cli.md")
	prod, other := p.serving(1), p.serving(2)
	p.await("put", "-e", other+":7400", "greeting", "hello")
	secure := p.secured(3)
	for line := range p.lines() {
		switch {
		case strings.HasSuffix(line, "--replace"):
			p.run(line, "NAME", "prod", "ENDPOINT…", prod+":7400")
		case strings.Contains(line, "ca.crt"):
			p.run(line, "proa --tls-ca", "proa -e "+secure+":7400 --tls-ca", "n1:", secure+":", "n2:", secure+":", "n3:", secure+":")
		default:
			p.run(line, "proa get", "proa get -e "+other+":7400", "n1:", prod+":", "n2:", prod+":", "n3:", prod+":", "127.0.0.1", other)
		}
	}
	p.end()
}

// secured is serving with TLS and users: the authority is in ca.crt, and the password of
// the user admin in admin.password. The key greeting is there.
func (p *page) secured(n int) (host string) {
	p.t.Helper()
	host = fmt.Sprintf("%s.%d", p.network, n)
	ca := certtest.NewAuthority("page")
	for _, err := range []error{
		ca.Write(p.dir, "ca"), certtest.Write(p.dir, "server", ca.Server(host)),
		os.WriteFile(filepath.Join(p.dir, "admin.password"), []byte("correct horse battery staple\n"), 0o600),
	} {
		if err != nil {
			p.t.Fatal(err)
		}
	}
	line := "proa serve --data secured --listen HOST:7400 --peer-listen off --tls-cert server.crt --tls-key server.key --auth required --admin-password-file admin.password"
	p.known[line] = true
	p.server(line, "", "HOST", host)
	p.await("put", "-e", host+":7400", "--tls-ca", filepath.Join(p.dir, "ca.crt"), "--user", "admin", "--password-file", filepath.Join(p.dir, "admin.password"), "greeting", "hello")
	return host
}

func TestRedisPage(t *testing.T) {
	t.Parallel()
	if _, err := exec.LookPath("redis-benchmark"); err != nil {
		t.Skip("Redis is not installed")
	}
	p := openPage(t, "docs/redis.md")
	host := p.serving(1)
	for line := range p.lines() {
		if strings.HasPrefix(line, "redis-") {
			p.run(line, "-p 7403", "-p 7403 -h "+host, "-q", "-q -n 1000")
		}
	}
	p.targets()
	p.end()
}

// TestToolsOfPages looks at the other pages for calls of make and go.
func TestToolsOfPages(t *testing.T) {
	t.Parallel()
	for _, name := range []string{"CONTRIBUTING.md", "docs/architecture.md", "docs/growth.md", "docs/performance.md", "docs/reliability.md", "docs/simulator.md"} {
		openPage(t, name).targets()
	}
}

// lastLine is what a command prints behind its notes.
func lastLine(output string) string {
	lines := strings.Split(strings.TrimSpace(output), "\n")
	return lines[len(lines)-1]
}
