// Package leaktest looks for goroutines that tests leave behind, and lets single
// tests, in processes of their own, leave some.
package leaktest

import (
	"os"
	"os/exec"
	"testing"

	"go.uber.org/goleak"
)

// allowed is the environment variable of a process whose tests may leave
// goroutines behind.
const allowed = "PROA_TEST_LEAKS"

// Main runs the tests of a package, and fails if goroutines are left behind.
func Main(m *testing.M) {
	if os.Getenv(allowed) != "" {
		os.Exit(m.Run())
	}
	goleak.VerifyTestMain(m)
}

// InOwnProcess has the calling test run in a process of its own, which may leave
// goroutines behind: those of a Pebble that has stopped halfway, for which there
// is no end but the process's. It returns true in that process, and false in the
// one that waited for it, where the calling test must return.
func InOwnProcess(t *testing.T) bool {
	t.Helper()
	if os.Getenv(allowed) != "" {
		return true
	}
	args := []string{"-test.run=^" + t.Name() + "$", "-test.v"}
	if testing.Short() {
		args = append(args, "-test.short")
	}
	cmd := exec.CommandContext(t.Context(), os.Args[0], args...)
	cmd.Env = append(os.Environ(), allowed+"=1")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Errorf("%v:\n%s", err, out)
	}
	return false
}
