package client

import (
	"context"
	"sync"
	"time"
)

// Client is a connection to a Proa server or cluster. It is safe for use by
// any number of goroutines, which share its connections; one Client per
// process is the rule.
//
// Its methods are the operations. What carries them out are the parts below,
// each of which owns its state and reaches the others through the Client: an
// operation becomes a call (caller), gets a connection to the node that should
// answer it (dispatcher, router, pool), and ends with an answer, or because its
// time is up (janitor).
type Client struct {
	cfg     Config
	session *session // nil without ExactlyOnce
	seen    *seen    // nil without SessionReads
	epoch   time.Time
	ctx     context.Context // ends with Close
	stop    context.CancelFunc
	wg      sync.WaitGroup // every goroutine of the client

	caller     caller
	dispatcher dispatcher
	router     router
	pool       pool
	janitor    janitor
}

// New connects to the configured endpoints and returns when the first
// connection is established; the others follow in the background. It fails with
// ErrUnavailable if no endpoint can be reached, with the context's error if ctx
// ends first, and with a plain error if the configuration is wrong. ctx limits
// New only, not the life of the client.
func New(ctx context.Context, config Config) (*Client, error) {
	c, err := newClient(config)
	if err != nil {
		return nil, err
	}
	first := make(chan error, len(c.pool.endpoints)*c.cfg.Connections)
	c.wg.Add(1)
	go c.janitor.run()
	for _, ep := range c.pool.endpoints {
		for range c.cfg.Connections {
			c.wg.Add(1)
			go ep.supervise(first)
		}
	}
	for range cap(first) {
		select {
		case err = <-first:
			if err == nil {
				if !c.cfg.ForwardOnly {
					c.wg.Add(1)
					go c.router.run()
				}
				return c, nil
			}
		case <-ctx.Done():
			err := &Error{Op: "HELLO", Outcome: NotDone, Err: c.dispatcher.explainWait(nil, ctx.Err())}
			c.Close()
			return nil, err
		}
	}
	err = &Error{Op: "HELLO", Outcome: NotDone, Err: c.pool.unavailable()}
	c.Close()
	return nil, err
}

// newClient returns a client that does not connect yet and has no goroutines.
func newClient(config Config) (*Client, error) {
	cfg, err := config.withDefaults()
	if err != nil {
		return nil, err
	}
	c := &Client{cfg: cfg, epoch: time.Now()}
	c.caller.init(c)
	c.dispatcher.init(c)
	c.router.init(c)
	c.pool.init(c)
	c.janitor.init(c)
	for _, s := range cfg.Endpoints {
		ep, err := parseEndpoint(s)
		if err != nil {
			return nil, err
		}
		c.pool.endpoints = append(c.pool.endpoints, c.pool.newEndpoint(ep))
	}
	if cfg.ExactlyOnce {
		c.session = newSession()
	}
	if cfg.SessionReads {
		c.seen = new(seen)
	}
	c.ctx, c.stop = context.WithCancel(context.Background())
	return c, nil
}

// Close ends the client. Calls in flight fail: with ErrClosed if they
// definitely had no effect, otherwise with ErrOutcomeUnknown, whose cause is
// ErrClosed. Close waits for the client's goroutines, so it must not be called
// by a Handler. Closing again does nothing. It always returns nil.
func (c *Client) Close() error {
	calls := c.dispatcher.close()
	c.stop()
	for _, cn := range c.pool.close() {
		cn.nc.Close()
	}
	for _, ca := range calls {
		c.dispatcher.fail(ca, ErrClosed)
	}
	c.wg.Wait()
	return nil
}

// ServerInfo is what a server reports about itself and its limits.
type ServerInfo struct {
	Endpoint      string // as configured, with the port
	Version       string // of the server program
	Node          uint64
	Cluster       uint64
	Connection    uint64 // the server's number for this connection
	Shards        int
	FrameBytesMax int
	KeyBytesMax   int
	ValueBytesMax int
	InFlightMax   int // requests one connection may have unanswered; 0: not said
}

// Server describes the server of one open connection. It returns false while
// there is none.
func (c *Client) Server() (ServerInfo, bool) {
	ready := *c.pool.ready.Load()
	if len(ready) == 0 {
		return ServerInfo{}, false
	}
	return ready[0].info, true
}

// now is the client's clock: nanoseconds since New, monotonic.
func (c *Client) now() int64 { return int64(time.Since(c.epoch)) + 1 }
