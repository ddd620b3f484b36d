//go:build !proadebug

package bufpool

import "sync"

// Debug tells whether the checks of the build tag proadebug are compiled in.
const Debug = false

// debugState is what a buffer carries for the checks: nothing.
type debugState struct{}

func (*debugState) opened(*Buffer) {}
func (*debugState) closed(*Buffer) {}

func (*debugState) misused(call string) {
	panic("bufpool: " + call + " of a buffer already freed")
}

var headers = sync.Pool{New: func() any { return new(Buffer) }}

func takeHeader() *Buffer { return headers.Get().(*Buffer) }
func putHeader(b *Buffer) { headers.Put(b) }

func recycled(int8) []byte          { return nil }
func quarantined([]byte, int8) bool { return false }
func corruptions() []string         { return nil }

// Leaks returns the place of allocation of each live buffer, one line each,
// innermost frame first. Without the build tag proadebug it returns nil.
func Leaks() []string { return nil }
