package bufpool

import (
	"fmt"
	"os"
)

// Reporter is the part of testing.TB that CheckLeaks needs.
type Reporter interface {
	Helper()
	Errorf(format string, args ...any)
}

// CheckLeaks reports every live buffer with the place of its allocation, and
// freed memory that was written to. Call it at the end of a test whose buffers
// are all released by then. Without the build tag proadebug it does nothing.
func CheckLeaks(r Reporter) {
	r.Helper()
	for _, p := range problems() {
		r.Errorf("bufpool: %s", p)
	}
}

// Runner is the part of testing.M that CheckedMain needs.
type Runner interface{ Run() int }

// CheckedMain returns a Runner that runs m and then fails, with a report on
// standard error, where CheckLeaks would:
//
//	func TestMain(m *testing.M) { os.Exit(bufpool.CheckedMain(m).Run()) }
//
// Without the build tag proadebug it only runs m.
func CheckedMain(m Runner) Runner { return checkedMain{m} }

type checkedMain struct{ m Runner }

func (c checkedMain) Run() int {
	code := c.m.Run()
	for _, p := range problems() {
		fmt.Fprintf(os.Stderr, "bufpool: %s\n", p)
		code = max(code, 1)
	}
	return code
}

func problems() []string {
	var all []string
	for _, place := range Leaks() {
		all = append(all, "buffer never released, allocated at "+place)
	}
	return append(all, corruptions()...)
}
