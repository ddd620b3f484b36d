package server

import (
	"context"
	"sync/atomic"
)

// background is what the reader of a connection waits for without a thread.
type background struct {
	c       *conn
	busy    atomic.Bool         // not read until f has ended
	outcome atomic.Pointer[any] // of f; nil: there is none, or it has been noticed
}

// Background has f carried out by a goroutine of its own, while nothing of c is read. The
// first call returns that it is pending; the request must stay in the input, so that it
// comes again, and calls Background again, which returns f's result. Where the server
// closes the result is nil. The reader calls it.
func (b *background) Background(f func(context.Context) any) (result any, pending bool) {
	if r := b.outcome.Swap(nil); r != nil {
		return *r, false
	}
	b.busy.Store(true)
	b.c.Pause()
	if !b.c.srv.Go(func(ctx context.Context) {
		r := f(ctx)
		b.outcome.Store(&r)
		b.busy.Store(false)
		b.c.unpause()
	}) {
		b.busy.Store(false)
		b.c.unpause()
		return nil, false
	}
	return nil, true
}
