// Package alloctest counts the allocations of a function in a process that does
// other things at the same time.
package alloctest

import "testing"

// rounds is how often Least counts before it believes a count.
const rounds = 20

// Least returns how many allocations a call of f makes, as testing.AllocsPerRun
// over the given number of calls does, but what the rest of the process
// allocates meanwhile (timers, background work, all the more on a busy machine)
// does not count: it counts again, up to 20 times, until a count is at most
// enough, and returns the least count otherwise. Like AllocsPerRun it must not
// be called in parallel tests.
func Least(runs int, enough float64, f func()) float64 {
	least := testing.AllocsPerRun(runs, f)
	for i := 1; i < rounds && least > enough; i++ {
		least = min(least, testing.AllocsPerRun(runs, f))
	}
	return least
}
