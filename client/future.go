package client

import (
	"bytes"
	"context"
)

// Future is the answer to an asynchronous call, now or later. It is safe for
// use by several goroutines.
type Future[T any] struct {
	done   chan struct{}
	value  T
	err    error
	decode func(*call) (T, error)
}

// Done returns a channel that is closed when the answer is there.
func (f *Future[T]) Done() <-chan struct{} { return f.done }

// Wait waits for the answer and returns it, as often as it is called. If ctx
// ends first it returns the context's error; the call itself goes on, until
// its own timeout (Config.RequestTimeout, WithTimeout).
func (f *Future[T]) Wait(ctx context.Context) (T, error) {
	select {
	case <-f.done:
		return f.value, f.err
	default:
	}
	select {
	case <-f.done:
		return f.value, f.err
	case <-ctx.Done():
		var zero T
		return zero, ctx.Err()
	}
}

func (f *Future[T]) finish(ca *call) {
	f.value, f.err = f.decode(ca)
	close(f.done)
}

// startFuture sends o and returns the future of its answer.
func startFuture[T any](c *Client, o Operation, decode func(*call) (T, error)) *Future[T] {
	f := &Future[T]{done: make(chan struct{}), decode: decode}
	if err := c.caller.start(&o, f, nil); err != nil {
		f.err = err
		close(f.done)
	}
	return f
}

// GetAsync begins a Get. Its arguments may be reused when it returns.
func (c *Client) GetAsync(key []byte, opts ...ReadOption) *Future[Item] {
	return startFuture(c, OpGet(key, opts...), func(ca *call) (Item, error) {
		var r Result
		if err := ca.result(&r); err != nil {
			return Item{}, err
		}
		return Item{Key: bytes.Clone(ca.key()), Value: cloneValue(r.Value), Version: r.Version, TTL: r.TTL, Age: r.Age, Stale: r.Stale}, nil
	})
}

// PutAsync begins a Put. Its arguments may be reused when it returns. Calls
// under way at the same time may take effect in any order.
func (c *Client) PutAsync(key, value []byte, opts ...PutOption) *Future[WriteResult] {
	return startFuture(c, OpPut(key, value, opts...), writeResult)
}

// DeleteAsync begins a Delete. Its arguments may be reused when it returns.
func (c *Client) DeleteAsync(key []byte, opts ...DeleteOption) *Future[WriteResult] {
	return startFuture(c, OpDelete(key, opts...), writeResult)
}

// IncrAsync begins an Incr. Its arguments may be reused when it returns.
func (c *Client) IncrAsync(key []byte, delta int64, opts ...CallOption) *Future[int64] {
	return startFuture(c, OpIncr(key, delta, opts...), func(ca *call) (int64, error) {
		var r Result
		err := ca.result(&r)
		return r.Integer, err
	})
}

func writeResult(ca *call) (WriteResult, error) {
	var r Result
	err := ca.result(&r)
	r.own()
	return WriteResult{Version: r.Version, Previous: r.Previous}, err
}

// Handler receives the answer to an Operation given to [Client.Do].
type Handler interface {
	// Complete is called exactly once, on a goroutine that reads replies for
	// many calls: it must return soon, must not block and must not call Close.
	// It may call Do. The Result and everything it points to are valid only
	// until Complete returns.
	Complete(*Result)
}

// HandlerFunc is a function as a Handler.
type HandlerFunc func(*Result)

// Complete calls f.
func (f HandlerFunc) Complete(r *Result) { f(r) }

// Do sends one operation and returns at once; h receives the answer. It has the
// least overhead: in the steady state it allocates nothing. The operation's key
// and value may be reused when Do returns. If Do returns an error (invalid
// arguments, ErrBusy, ErrClosed) nothing was sent and h is not called.
// Operations in flight at the same time may take effect in any order.
func (c *Client) Do(o Operation, h Handler) error {
	return c.caller.start(&o, nil, h)
}

func cloneValue(v []byte) []byte { return append(make([]byte, 0, len(v)), v...) }
