package sim

import (
	"fmt"
	"hash/fnv"
	"io"
	"time"
)

// traceKept is how many of the last events a failure shows.
const traceKept = 400

// entry is one line of a trace. The text is made when it is shown.
type entry struct {
	at   int64
	what string
	args [6]uint64
}

// trace remembers what happened last and sums up all that happened.
type trace struct {
	sum  uint64
	last [traceKept]entry
	n    int
	out  io.Writer // nil: only the last are kept
}

const fnvPrime = 1099511628211

func (t *trace) mix(x uint64) { t.sum = (t.sum ^ x) * fnvPrime }

// note takes in that something happened. The format names the arguments.
func (t *trace) note(at int64, what string, args ...uint64) {
	e := entry{at: at, what: what}
	copy(e.args[:], args)
	h := fnv.New64a()
	io.WriteString(h, what)
	t.mix(h.Sum64())
	t.mix(uint64(at))
	for _, a := range e.args {
		t.mix(a)
	}
	t.last[t.n%traceKept] = e
	t.n++
	if t.out != nil {
		fmt.Fprintln(t.out, e)
	}
}

// String is the line as it is shown.
func (e entry) String() string {
	args := make([]any, 0, len(e.args))
	verbs := 0
	for i := range e.what {
		if e.what[i] == '%' {
			verbs++
		}
	}
	for _, a := range e.args[:min(verbs, len(e.args))] {
		args = append(args, a)
	}
	return fmt.Sprintf("%12.6f  %s", time.Duration(e.at).Seconds(), fmt.Sprintf(e.what, args...))
}

// recent returns the last events, oldest first.
func (t *trace) recent(n int) []string {
	n = min(n, t.n, traceKept)
	var lines []string
	for i := t.n - n; i < t.n; i++ {
		lines = append(lines, t.last[i%traceKept].String())
	}
	return lines
}
