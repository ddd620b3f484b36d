package testcluster

import (
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
)

// EnvBinary names a proa binary to test instead of one built from the source
// tree, for example a release candidate.
const EnvBinary = "TESTCLUSTER_BINARY"

// build is the binary of this test process.
var build struct {
	once sync.Once
	dir  string
	path string
	err  error
}

// Main runs the tests of a package that uses this one; its TestMain calls it
// and does nothing else. It removes the binary when the tests have run, and
// does not return.
func Main(m *testing.M) {
	flag.Parse()
	status := m.Run()
	if build.dir != "" {
		_ = os.RemoveAll(build.dir)
	}
	os.Exit(status)
}

// Binary returns the path of the proa binary. The first call builds it, the
// way the test itself was built: with the race detector if the test has it, and
// with the checks of the tag proadebug if the test has that. The file goes away
// with [Main].
func Binary(t testing.TB) string {
	t.Helper()
	build.once.Do(func() { build.path, build.err = buildBinary() })
	if build.err != nil {
		t.Fatalf("building proa: %v", build.err)
	}
	return build.path
}

// Instrumented reports whether servers run with the race detector or with
// buffer checks. They take several times the memory and processor time then.
func Instrumented() bool { return raceEnabled || debugEnabled }

func buildBinary() (string, error) {
	if path := os.Getenv(EnvBinary); path != "" {
		return filepath.Abs(path)
	}
	dir, err := os.MkdirTemp("", "proa-testcluster-")
	if err != nil {
		return "", err
	}
	build.dir = dir
	// A server under another user must be able to run it.
	if err := os.Chmod(dir, 0o755); err != nil {
		return "", err
	}
	source, err := sourceDirectory()
	if err != nil {
		return "", err
	}
	path := filepath.Join(dir, "proa")
	args := []string{"build", "-C", source, "-buildvcs=false", "-o", path}
	if raceEnabled {
		args = append(args, "-race")
	}
	if debugEnabled {
		args = append(args, "-tags", "proadebug")
	}
	cmd := exec.Command("go", append(args, "./cmd/proa")...)
	if !raceEnabled { // as a release is built: with cgo, memory.max_memory_usage does not hold
		cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	}
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("%w\n%s", err, out)
	}
	return path, nil
}

// sourceDirectory returns where Proa's module stands. The test may be part of
// another module, which does not know all that the binary depends on.
func sourceDirectory() (string, error) {
	out, err := exec.Command("go", "list", "-m", "-f", "{{.Dir}}", "github.com/proa-kv/proa").Output()
	if err != nil {
		return "", fmt.Errorf("looking for the module: %w", err)
	}
	return strings.TrimSpace(string(out)), nil
}

// exitStatus returns the status a process ended with, or -1 where a signal
// ended it or it was never started.
func exitStatus(err error) int {
	var exit *exec.ExitError
	switch {
	case err == nil:
		return 0
	case errors.As(err, &exit):
		return exit.ExitCode()
	}
	return -1
}
