package redis

import (
	"bytes"
	"context"
	"io/fs"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"
)

// suiteCheckout names the environment variable that says where Redis's source is,
// of version 7.0. Nothing of it is kept here.
const suiteCheckout = "PROA_REDIS_SOURCE"

// suiteUnits are the files of Redis's own tests that are about what Proa has.
var suiteUnits = []string{"unit/type/string", "unit/type/incr", "unit/expire", "unit/keyspace", "unit/scan", "unit/protocol", "unit/multi"}

// suiteSkips are the tests in them that Proa is not held to, by name or, behind a
// slash, by expression. The reasons stand in docs/redis.md in the same words.
var suiteSkips = []struct {
	reason string
	tests  []string
}{
	{"lists, hashes, sets, sorted sets and streams", []string{
		"/holding a list$", "/with wrong type$", "/COPY basic usage for (list|intset|hashtable|listpack|skiplist|stream)",
		"/^[SHZ]SCAN", "/SORT", "/XREADGROUP", "/^Blocking commands", "MGET against non-string key",
		"Extended SET GET with incorrect type should result in wrong type error", "SCAN regression test for issue #4906",
		"EXPIRE - write on expire should work", "/raw protocol response", "test argument rewriting - issue 9598",
		"Regression for a crash with blocking ops and pipelining",
		"MULTI / EXEC basics", "DISCARD", "MULTI where commands alter argc/argv",
	}},
	{"bit operations and LCS", []string{"/[SG]ETBIT", "/LCS"}},
	{"replication and persistence of Redis", []string{
		"/propagate", "/REPLICAOF", "/state change", "/^MULTI with (SAVE|SHUTDOWN|BGREWRITEAOF)",
	}},
	{"scripts, publish and subscribe", []string{"/script timeout", "/SCRIPT", "/EVAL", "/PUBLISH"}},
	{"settings changed at run time", []string{
		"/OOM", "/use-memory", "/with config error", "EXEC fails if there are errors while queueing commands #2",
	}},
	{"commands of more than 20001 words", []string{"test large number of args"}},
	{"DEBUG, and the encodings of values in memory", nil}, // by tags and options
}

// TestSuite runs Redis's own tests against Proa.
func TestSuite(t *testing.T) {
	source := os.Getenv(suiteCheckout)
	if source == "" {
		t.Skipf("%s names no source of Redis", suiteCheckout)
	}
	tclsh, err := exec.LookPath("tclsh")
	if err != nil {
		t.Fatalf("%v; on Debian and Ubuntu: apt-get install tcl", err)
	}
	dir := t.TempDir()
	copySuite(t, source, dir)
	var skips strings.Builder
	for _, s := range suiteSkips {
		for _, test := range s.tests {
			skips.WriteString(test + "\n")
		}
	}
	skipFile := filepath.Join(dir, "skip")
	if err := os.WriteFile(skipFile, []byte(skips.String()), 0o600); err != nil {
		t.Fatal(err)
	}
	p := startProa(t)
	host, port, _ := net.SplitHostPort(p.address) // made by FreeAddress
	for _, unit := range suiteUnits {
		t.Run(unit, func(t *testing.T) {
			out := runSuite(t, tclsh, dir, "tests/test_helper.tcl", "--host", host, "--port", port, "--single", unit, "--skipfile", skipFile,
				"--singledb", "--ignore-encoding", "--ignore-digest", "--durable", "--tags", "-needs:debug", "--clients", "1")
			t.Logf("%d tests", bytes.Count(out, []byte("[ok]: ")))
		})
	}
}

// copySuite copies Redis's tests to where they may write, and lets them get along
// with a server that has no functions and is not configured while it runs.
func copySuite(t *testing.T, source, dir string) {
	t.Helper()
	version, err := os.ReadFile(filepath.Join(source, "src", "version.h"))
	if err != nil || !bytes.Contains(version, []byte(`"7.0.`)) {
		t.Fatalf("%s is no source of Redis 7.0: %v %s", source, err, version)
	}
	tests := os.DirFS(filepath.Join(source, "tests"))
	for _, part := range []string{"test_helper.tcl", "instances.tcl", "support", "unit", "assets", "helpers"} {
		err := fs.WalkDir(tests, part, func(name string, d fs.DirEntry, err error) error {
			to := filepath.Join(dir, "tests", name)
			if err != nil || d.IsDir() {
				return err
			}
			b, err := fs.ReadFile(tests, name)
			if err != nil {
				return err
			}
			if name == "support/server.tcl" {
				b = regexp.MustCompile(`(?m)^(\s+)(r function flush|r config set \$param \$val)$`).ReplaceAll(b, []byte("${1}catch {$2}"))
			}
			if err := os.MkdirAll(filepath.Dir(to), 0o700); err != nil {
				return err
			}
			return os.WriteFile(to, b, 0o600)
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	if err := os.MkdirAll(filepath.Join(dir, "tests", "tmp"), 0o700); err != nil {
		t.Fatal(err)
	}
}

// runSuite runs a file of tests, and fails with what it says of those that fail.
func runSuite(t *testing.T, tclsh, dir string, args ...string) []byte {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 3*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, tclsh, args...)
	cmd.Dir = dir
	out, err := cmd.CombinedOutput()
	out = regexp.MustCompile(`\x1b\[[0-9;]*m`).ReplaceAll(out, nil)
	if err != nil || !bytes.Contains(out, []byte("[ok]: ")) {
		failures := regexp.MustCompile(`(?m)^\[(err|exception|timeout)\].*\n(.*\n){0,3}`).FindAll(out, -1)
		t.Errorf("%v (%v)\n%s", err, ctx.Err(), bytes.Join(failures, nil))
	}
	return out
}

// TestSkipsAreDocumented checks that users can read what of Redis's tests Proa is
// not held to.
func TestSkipsAreDocumented(t *testing.T) {
	b, err := os.ReadFile(differencesPage)
	if err != nil {
		t.Fatal(err)
	}
	page := plainWords(string(b))
	for _, s := range suiteSkips {
		if !strings.Contains(page, plainWords(s.reason)) {
			t.Errorf("%s does not say: %s", differencesPage, s.reason)
		}
	}
}
