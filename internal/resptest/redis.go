package resptest

import (
	"bufio"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/proa-kv/proa/internal/spawn"
)

// StartRedis starts a real redis-server that keeps nothing, with further
// options of its command line, and returns the path of the unix socket it
// listens on. It ends with the test. Where none is installed the test is
// skipped.
func StartRedis(t testing.TB, options ...string) (socket string) {
	t.Helper()
	program, err := exec.LookPath("redis-server")
	if err != nil {
		t.Skip("needs redis-server in PATH (Debian: apt install redis-server)")
	}
	// Not t.TempDir: the path of a unix socket has to be short.
	dir, err := os.MkdirTemp("", "redis")
	if err != nil {
		t.Fatal(err)
	}
	socket = filepath.Join(dir, "s")
	cmd := exec.Command(program, append([]string{
		"--port", "0", "--unixsocket", socket, "--dir", dir, "--save", "", "--appendonly", "no",
	}, options...)...)
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := spawn.Start(cmd); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		// Killed: there is nothing to save.
		err := errors.Join(cmd.Process.Kill(), os.RemoveAll(dir))
		cmd.Wait()
		if err != nil {
			t.Error(err)
		}
	})
	log, err := untilReady(out)
	if err != nil {
		t.Fatalf("redis-server: %v\n%s", err, log)
	}
	return socket
}

// untilReady reads a log until the server listens, and what comes behind it in
// the background, so that the server never waits for its log to be read.
func untilReady(r io.Reader) (log string, err error) {
	lines := bufio.NewScanner(r)
	for lines.Scan() {
		log += lines.Text() + "\n"
		if strings.Contains(lines.Text(), "ready to accept connections") {
			go io.Copy(io.Discard, r)
			return log, nil
		}
	}
	return log, errors.Join(lines.Err(), io.ErrUnexpectedEOF)
}
