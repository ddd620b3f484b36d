package redis

import (
	"bytes"
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/proa-kv/proa/internal/spawn"
	"github.com/proa-kv/proa/internal/testcluster"
)

func TestMain(m *testing.M) { testcluster.Main(m) }

// target is a server that transcripts are played to.
type target struct {
	name    string // fromRedis or fromProa
	address string // host:port of the Redis protocol
	// wipe removes all keys.
	wipe func(t *testing.T)
}

// startTimeout bounds how long a server may take until it answers.
const startTimeout = 30 * time.Second

// awaitAnswer returns when the server at address answers PING.
func awaitAnswer(t testing.TB, address string) {
	t.Helper()
	deadline := time.Now().Add(startTimeout)
	poll := time.NewTicker(5 * time.Millisecond)
	defer poll.Stop()
	for ; ; <-poll.C {
		err := ping(address)
		if err == nil {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("no answer from %s within %v: %v", address, startTimeout, err)
		}
	}
}

func ping(address string) error {
	c, err := dial(address)
	if err != nil {
		return err
	}
	defer c.close()
	if err := c.send([]byte("PING\r\n")); err != nil {
		return err
	}
	p, err := c.read()
	if err == nil && string(p.raw) != "+PONG\r\n" {
		err = fmt.Errorf("PING was answered with %q", p.raw)
	}
	return err
}

// required reports whether a test that lacks something of Redis's fails instead
// of being skipped.
func required() bool { return os.Getenv("TESTREDIS") == "required" }

// lacks skips the test, or fails it where what it lacks is required.
func lacks(t *testing.T, format string, args ...any) {
	t.Helper()
	if required() {
		t.Fatalf(format, args...)
	}
	t.Skipf(format, args...)
}

// program returns the path of one of Redis's programs.
func program(t *testing.T, name string) string {
	t.Helper()
	path, err := exec.LookPath(name)
	if err != nil {
		lacks(t, "%v; on Debian and Ubuntu: apt-get install redis-server redis-tools", err)
	}
	return path
}

// redisVersion is the version that the transcripts are of.
var redisVersion = regexp.MustCompile(`v=7\.0\.`)

// startRedis starts a redis-server in a temporary directory, which keeps
// nothing on disk.
func startRedis(t *testing.T) *target {
	t.Helper()
	path := program(t, "redis-server")
	version, err := exec.Command(path, "--version").Output()
	if err != nil {
		t.Fatal(err)
	}
	if !redisVersion.Match(version) {
		lacks(t, "the transcripts are of Redis 7.0; here is %s", bytes.TrimSpace(version))
	}
	r := &target{name: fromRedis, address: testcluster.FreeAddress(t)}
	host, port, _ := net.SplitHostPort(r.address) // made by FreeAddress
	dir := t.TempDir()
	cmd := exec.Command(path, "--bind", host, "--port", port, "--dir", dir, "--save", "", "--appendonly", "no", "--daemonize", "no", "--logfile", filepath.Join(dir, "log"))
	if err := spawn.Start(cmd); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait() // says that it was killed
	})
	awaitAnswer(t, r.address)
	r.wipe = func(t *testing.T) { t.Helper(); wipe(t, r.address) }
	return r
}

// startProa starts a Proa of one node with several shards, which are as one.
func startProa(t *testing.T) *target {
	t.Helper()
	p := &target{name: fromProa, address: testcluster.FreeAddress(t)}
	testcluster.Start(t, testcluster.Config{Args: []string{shardsAlone(), "--resp-listen", p.address}})
	awaitAnswer(t, p.address)
	p.wipe = func(t *testing.T) { t.Helper(); wipe(t, p.address) }
	return p
}

// wipe deletes all keys.
func wipe(t *testing.T, address string) {
	t.Helper()
	c := connectTo(t, address)
	defer c.close()
	if got := c.ask(t, "FLUSHALL"); got != "+OK\r\n" {
		t.Fatalf("FLUSHALL was answered with %q", got)
	}
}

// run runs a program of Redis's and returns what it wrote. It fails the test
// where the program does not end in time, or not with status 0.
func run(t *testing.T, limit time.Duration, stdin, path string, args ...string) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), limit)
	defer cancel()
	cmd := exec.CommandContext(ctx, path, args...)
	cmd.Stdin = strings.NewReader(stdin)
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%s %s: %v (%v)\n%s", filepath.Base(path), strings.Join(args, " "), err, ctx.Err(), out)
	}
	return string(out)
}
