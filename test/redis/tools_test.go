package redis

import (
	"bytes"
	"fmt"
	"net"
	"regexp"
	"strings"
	"testing"
	"time"
)

// toolTimeout bounds one run of a tool.
const toolTimeout = 30 * time.Second

// complaint is what no tool may write.
var complaint = regexp.MustCompile(`(?i)\berr(or|ors)?\b`)

// harmless are lines of tools that a complaint is no complaint in.
var harmless = regexp.MustCompile(`(?m)^(errors: 0, replies: \d+)$`)

// tools runs Redis's tools against one server.
type tools struct {
	*testing.T
	host, port string
}

// cli runs redis-cli.
func (o tools) cli(stdin string, args ...string) string {
	o.Helper()
	return o.clean(run(o.T, toolTimeout, stdin, program(o.T, "redis-cli"), append([]string{"-h", o.host, "-p", o.port}, args...)...))
}

// benchmark runs redis-benchmark.
func (o tools) benchmark(args ...string) string {
	o.Helper()
	return o.clean(run(o.T, toolTimeout, "", program(o.T, "redis-benchmark"), append([]string{"-h", o.host, "-p", o.port}, args...)...))
}

// clean fails the test where a tool complains.
func (o tools) clean(output string) string {
	o.Helper()
	if complaint.MatchString(harmless.ReplaceAllString(output, "")) {
		o.Errorf("the tool complains:\n%s", output)
	}
	return output
}

// contains fails the test where the output lacks something.
func (o tools) contains(output string, all ...string) {
	o.Helper()
	for _, want := range all {
		if !strings.Contains(output, want) {
			o.Errorf("%q is not in:\n%s", want, output)
		}
	}
}

// TestTools runs Redis's own tools against Proa.
func TestTools(t *testing.T) {
	program(t, "redis-cli")
	useTools(t, startProa(t))
}

// toolsFor returns tools for the server at an address.
func toolsFor(t *testing.T, address string) tools {
	t.Helper()
	program(t, "redis-cli")
	host, port, err := net.SplitHostPort(address)
	if err != nil {
		t.Fatal(err)
	}
	return tools{t, host, port}
}

func useTools(t *testing.T, at *target) {
	each := map[string]func(tools){
		"commands": cliCommands, "bigkeys": cliBigKeys, "scan": cliScan, "latency": cliLatency,
		"pipe": cliPipe, "info": cliInfo, "benchmark": benchmarks,
	}
	for name, use := range each {
		t.Run(name, func(t *testing.T) { at.wipe(t); use(toolsFor(t, at.address)) })
	}
}

func cliCommands(o tools) {
	o.contains(o.cli("", "SET", "k", "two words"), "OK")
	if got := o.cli("", "GET", "k"); got != "two words\n" {
		o.Errorf("GET: %q", got)
	}
	if got := o.cli("", "-3", "GET", "absent"); got != "\n" {
		o.Errorf("GET of an absent key: %q", got)
	}
	o.contains(o.cli("SET a 1\nINCR a\nMULTI\nINCR a\nEXEC\nGET a\n"), "OK", "2", "QUEUED", "3")
	o.contains(o.cli("a value from a file", "-x", "SET", "f"), "OK")
	if got := o.cli("", "GET", "f"); got != "a value from a file\n" {
		o.Errorf("GET: %q", got)
	}
	o.contains(o.cli("", "-r", "3", "INCR", "r"), "1\n2\n3\n")
	o.contains(o.cli("", "--no-raw", "MGET", "k", "absent"), `1) "two words"`, "2) (nil)")
}

// fill writes keys of three lengths of values.
func fill(o tools, count int) {
	o.Helper()
	c := connectTo(o.T, net.JoinHostPort(o.host, o.port))
	defer c.close()
	var b []byte
	for i := range count {
		b = appendCommand(b, "SET", fmt.Sprintf("key:%04d", i), strings.Repeat("x", 1+i%3*100))
	}
	if err := c.send(b); err != nil {
		o.Fatal(err)
	}
	for range count {
		if r, err := c.read(); err != nil || string(r.raw) != "+OK\r\n" {
			o.Fatalf("SET: %q, %v", r.raw, err)
		}
	}
}

func cliScan(o tools) {
	fill(o, 500)
	lines := strings.Fields(o.cli("", "--scan"))
	expect(o.T, "keys", len(lines), 500)
	lines = strings.Fields(o.cli("", "--scan", "--pattern", "key:00*"))
	expect(o.T, "keys of a pattern", len(lines), 100)
}

func cliBigKeys(o tools) {
	fill(o, 300)
	o.contains(o.cli("", "--bigkeys"), "Sampled 300 keys in the keyspace!", "300 strings with 30300 bytes", "Biggest string found")
}

// cliLatency measures for a second: redis-cli ends by itself where its output is
// no terminal and -i says when.
func cliLatency(o tools) {
	out := strings.Fields(o.cli("", "--latency", "-i", "1"))
	if len(out) != 4 {
		o.Errorf("--latency printed %q", out)
	}
}

func cliPipe(o tools) {
	var in bytes.Buffer
	const count = 5000
	for i := range count {
		in.Write(appendCommand(nil, "SET", fmt.Sprintf("piped %d", i), "v"))
	}
	o.contains(o.cli(in.String(), "--pipe"), fmt.Sprintf("errors: 0, replies: %d", count))
	o.contains(o.cli("", "DBSIZE"), "5000")
	var inline strings.Builder
	for i := range 100 {
		fmt.Fprintf(&inline, "SET inline%d v\r\n", i)
	}
	o.contains(o.cli(inline.String(), "--pipe"), "errors: 0, replies: 100")
	o.contains(o.cli("", "DBSIZE"), "5100")
}

// cliInfo looks at INFO again and again, as monitoring does.
func cliInfo(o tools) {
	o.contains(o.cli("", "-r", "3", "-i", "0.05", "INFO", "clients"), "connected_clients:")
	o.contains(o.cli("", "INFO"), "redis_version:7.", "process_id:", "tcp_port:"+o.port, "uptime_in_seconds:", "connected_clients:", "used_memory:",
		"used_memory_human:", "total_connections_received:", "total_commands_processed:", "role:master", "connected_slaves:", "cluster_enabled:")
}

// clusterTools runs the tools in cluster mode, from one of the nodes.
func clusterTools(t *testing.T, address string) {
	o := toolsFor(t, address)
	for i := range 20 {
		key := fmt.Sprintf("tools %d", i)
		o.contains(o.cli("", "-c", "SET", key, key), "OK")
		o.contains(o.cli("", "-c", "GET", key), key)
	}
	check := o.clean(run(t, toolTimeout, "", program(t, "redis-cli"), "--cluster", "check", address))
	o.contains(check, "All nodes agree about slots configuration.", "All 16384 slots covered.", "in 3 masters")
	out := o.benchmark("--cluster", "-t", "ping_mbulk,set,get", "-n", "2000", "-r", "1000", "-q")
	o.contains(out, "Cluster has 3 master nodes", "SET: ", "GET: ")
}

func benchmarks(o tools) {
	const few = "2000"
	out := o.benchmark("-t", "ping_inline,ping_mbulk,set,get,incr,mset", "-n", few, "-q")
	for _, test := range []string{"PING_INLINE", "PING_MBULK", "SET", "GET", "INCR", "MSET (10 keys)"} {
		o.contains(out, test+": ")
	}
	out = o.benchmark("-t", "set,get,incr", "-n", "20000", "-c", "64", "-d", "128", "-r", "100000", "-P", "16", "--csv")
	o.contains(out, `"SET","`, `"GET","`, `"INCR","`)
	o.benchmark("-n", few, "-r", "1000", "-P", "4", "-q", "SET", "script:__rand_int__", "__rand_int__", "EX", "100")
	o.benchmark("-t", "set,get", "-n", few, "-3", "-q")
}
