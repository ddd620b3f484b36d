package client

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/proa-kv/proa/protocol"
)

const testSecret = "correct horse battery staple"

// nobody and ann are who may log in at a fake server.
func nobody(string, string) bool                 { return false }
func ann(user, secret string) bool               { return user == "ann" && secret == testSecret }
func withCredentials(cfg *Config)                { cfg.User, cfg.Secret = "ann", testSecret }
func (f *fake) counted() (hellos int)            { f.set(func() { hellos = f.hellos }); return hellos }
func (f *fake) let(in func(string, string) bool) { f.set(func() { f.login = in }) }

// unaccepted checks that a call has failed because no server accepts the credentials.
func unaccepted(t *testing.T, err error) {
	t.Helper()
	var e *Error
	if !errors.Is(err, ErrUnauthenticated) || !errors.Is(err, ErrUnavailable) || !errors.As(err, &e) || e.Outcome != NotDone {
		t.Fatal(err)
	}
	if text := err.Error(); !strings.Contains(text, "no server accepts the connection") || !strings.Contains(text, "wrong user name or password") || strings.Contains(text, testSecret) {
		t.Error(err)
	}
}

// Wrong credentials end New at once, and are presented once by each connection.
func TestCredentialsRefused(t *testing.T) {
	f := newFake(t)
	f.let(nobody)
	_, err := New(t.Context(), Config{Endpoints: []string{f.address()}, Connections: 3, User: "ann", Secret: testSecret})
	unaccepted(t, err)
	if n := f.counted(); n > 3 {
		t.Errorf("the credentials were presented %d times", n)
	}
}

// refusing returns a client whose user has been removed: its connections were closed,
// and its credentials are not accepted.
func refusing(t *testing.T, change func(*Config)) (*fake, *Client) {
	f := newFake(t)
	f.let(ann)
	c := dial(t, func(cfg *Config) {
		withCredentials(cfg)
		cfg.Connections, cfg.RequestTimeout = 2, -1
		change(cfg)
	}, f)
	eventually(t, func() bool { return len(*c.pool.ready.Load()) == 2 })
	f.let(nobody)
	f.dismiss()
	eventually(t, func() bool {
		_, err := c.Get(t.Context(), []byte("k"))
		return errors.Is(err, ErrUnauthenticated)
	})
	return f, c
}

// A client whose credentials are no longer accepted fails its calls at once, and does not
// have the server check the same password again for each of them.
func TestUserRemoved(t *testing.T) {
	f, c := refusing(t, idle)
	before := f.counted()
	for i := range 1000 {
		var err error
		switch i % 3 {
		case 0:
			_, err = c.Get(t.Context(), []byte("k"))
		case 1:
			_, err = c.Put(t.Context(), []byte("k"), nil)
		default:
			_, err = c.PutAsync([]byte("k"), nil).Wait(t.Context())
		}
		unaccepted(t, err)
	}
	// Both connections may still have been about to present it.
	if n := f.counted(); n > before+1 {
		t.Errorf("%d calls presented the credentials %d times", 1000, n-before)
	}
}

// What was under way when the connections were closed fails, too: reads with that error,
// and writes with an unknown outcome.
func TestUserRemovedMeanwhile(t *testing.T) {
	f := newFake(t)
	f.let(ann)
	arrived := make(chan struct{}, 2)
	f.intercept = func(*fakeConn, *protocol.Frame, *protocol.Extensions) verdict {
		arrived <- struct{}{}
		return verdict{skip: true}
	}
	c := dial(t, func(cfg *Config) { withCredentials(cfg); idle(cfg); cfg.RequestTimeout = -1 }, f)
	read, write := c.GetAsync([]byte("k")), c.PutAsync([]byte("k"), nil)
	<-arrived
	<-arrived
	f.let(nobody)
	f.dismiss()
	_, err := read.Wait(t.Context())
	unaccepted(t, err)
	if _, err := write.Wait(t.Context()); !errors.Is(err, ErrOutcomeUnknown) || !errors.Is(err, ErrUnauthenticated) || !errors.Is(err, ErrConnectionLost) {
		t.Error(err)
	}
}

// A call that pauses before another attempt ends with the pause.
func TestRefusedDuringPause(t *testing.T) {
	f := newFake(t)
	f.let(ann)
	f.intercept = once(protocol.OpGet, verdict{reply: errorFrame(protocol.StatusBusy, 300, "")})
	c := dial(t, func(cfg *Config) { withCredentials(cfg); idle(cfg); cfg.RequestTimeout = -1 }, f)
	pausing := c.GetAsync([]byte("k"))
	eventually(t, func() bool {
		c.dispatcher.mu.Lock()
		defer c.dispatcher.mu.Unlock()
		return len(c.dispatcher.delayed) == 1
	})
	f.let(nobody)
	f.dismiss()
	down(t, c.pool.endpoints[0])
	_, err := c.Put(t.Context(), []byte("k"), nil)
	unaccepted(t, err)
	_, err = pausing.Wait(t.Context())
	unaccepted(t, err)
}

// A call that waits for a server that is down ends when that is back and refuses.
func TestRefusedAfterRestart(t *testing.T) {
	f := newFake(t)
	address := f.address()
	c := dial(t, func(cfg *Config) { withCredentials(cfg); idle(cfg); cfg.RequestTimeout = -1 }, f)
	f.close()
	down(t, c.pool.endpoints[0])
	waiting := c.GetAsync([]byte("k"))
	again, err := listenFake("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(again.close)
	again.login = nobody
	again.start()
	_, err = waiting.Wait(t.Context())
	unaccepted(t, err)
}

// When the credentials are accepted again, so are calls, after a pause.
func TestRefusedUntilAccepted(t *testing.T) {
	f, c := refusing(t, func(*Config) {})
	f.let(ann)
	eventually(t, func() bool {
		_, err := c.Put(t.Context(), []byte("k"), nil)
		return err == nil
	})
	ep := c.pool.endpoints[0]
	ep.mu.Lock()
	defer ep.mu.Unlock()
	if ep.refusals != 0 || ep.barred != 0 {
		t.Errorf("%d refusals are remembered", ep.refusals)
	}
}

// A server that refuses does no harm while another one accepts, and the loss of that
// one is no refusal; nor is it one while a server has not been tried.
func TestRefusedByOne(t *testing.T) {
	f, g := newFake(t), newFake(t)
	f.let(nobody)
	c := dial(t, func(cfg *Config) { withCredentials(cfg); idle(cfg); cfg.RequestTimeout = -1 }, f, g)
	eventually(t, func() bool { refused, _ := c.pool.endpoints[0].bar(c.now()); return refused > 0 })
	if _, err := c.Put(t.Context(), []byte("k"), nil); err != nil {
		t.Fatal(err)
	}
	g.dropAll()
	if _, err := c.Get(t.Context(), []byte("k")); err != nil {
		t.Fatal(err)
	}
	// With the other one down, nobody is left who might accept.
	g.close()
	_, err := c.Get(t.Context(), []byte("k"))
	unaccepted(t, err)
	if !strings.Contains(err.Error(), g.address()) {
		t.Errorf("%v lacks the server that is down", err)
	}
}

// Pauses grow, whatever waits, and are at least what the server asks for. One attempt
// counts for all connections that were refused at the same time.
func TestRefusalPauses(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, err := newClient(Config{Endpoints: []string{"h"}})
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		ep := c.pool.endpoints[0]
		refusal := func(after time.Duration) error {
			e := replyError(protocol.OpHello, protocol.StatusUnauthenticated)
			e.RetryAfter = after
			return e
		}
		for i, want := range []time.Duration{1, 2, 4, 8, 16, 32, 60, 60} {
			want *= time.Second
			ep.tried(c.now(), refusal(0))
			ep.tried(c.now(), refusal(0)) // of another connection
			wait, err := ep.bar(c.now())
			if wait < want/2 || wait > want || !errors.Is(err, ErrUnauthenticated) {
				t.Errorf("%d: %v, %v; want %v", i, wait, err, want)
			}
			signal(ep.nudged) // a call waits
			start := time.Now()
			if asked := ep.pause(time.Minute, err); asked || time.Since(start) != wait {
				t.Errorf("%d: cut short after %v of %v", i, time.Since(start), wait)
			}
		}
		ep.tried(c.now(), refusal(5*time.Minute))
		if wait, _ := ep.bar(c.now()); wait != 5*time.Minute {
			t.Errorf("the server asks for 5m: %v", wait)
		}
		ep.tried(c.now(), nil)
		if wait, err := ep.bar(c.now()); wait != 0 || err != nil {
			t.Errorf("accepted: %v, %v", wait, err)
		}
	})
}

// Credentials that change while the client runs: each connection is made with those of
// its moment, and the client goes on when the server ends the old ones.
func TestCredentialsChange(t *testing.T) {
	f := newFake(t)
	var mu sync.Mutex
	generation := 0
	current := func() (user, secret string) {
		mu.Lock()
		defer mu.Unlock()
		return "ann", fmt.Sprint("secret ", generation)
	}
	f.let(func(user, secret string) bool {
		u, s := current()
		return user == u && secret == s
	})
	c := dial(t, func(cfg *Config) {
		cfg.Connections = 2
		cfg.Credentials = func(ctx context.Context) (user, secret string, err error) {
			if _, limited := ctx.Deadline(); !limited {
				t.Error("no deadline")
			}
			user, secret = current()
			return user, secret, nil
		}
	}, f)
	for i := range 5 {
		mu.Lock()
		generation++
		mu.Unlock()
		f.dismiss()
		if _, err := c.Get(t.Context(), key(i)); !errors.Is(err, ErrNotFound) {
			t.Fatal(err)
		}
	}
}

// What Config.Credentials does not find is the reason why there is no connection, and is
// not asked for all the time.
func TestCredentialsMissing(t *testing.T) {
	f := newFake(t)
	for name, tt := range map[string]struct {
		user, secret string
		err          error
		want         string
	}{
		"error": {"ann", testSecret, errors.New("the vault is closed"), "Config.Credentials: the vault is closed"},
		"large": {"ann", strings.Repeat(testSecret, 10), nil, "user or secret is over 256 bytes"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := New(t.Context(), Config{Endpoints: []string{f.address()}, Credentials: func(context.Context) (string, string, error) {
				return tt.user, tt.secret, tt.err
			}})
			if !errors.Is(err, ErrUnavailable) || tt.err != nil && !errors.Is(err, tt.err) || !strings.Contains(err.Error(), tt.want) || strings.Contains(err.Error(), testSecret) {
				t.Error(err)
			}
		})
	}
	if n := f.counted(); n != 0 {
		t.Errorf("%d HELLOs", n)
	}
}

// No log and no error has the secret.
func TestSecretIsNotLogged(t *testing.T) {
	var log bytes.Buffer
	f, c := refusing(t, func(cfg *Config) {
		idle(cfg)
		cfg.Connections, cfg.Logger = 2, slog.New(slog.NewTextHandler(&log, &slog.HandlerOptions{Level: slog.LevelDebug}))
	})
	_, err := c.Get(t.Context(), []byte("k"))
	unaccepted(t, err)
	c.Close()
	f.close()
	if text := log.String(); strings.Contains(text, testSecret) || !strings.Contains(text, "credentials missing or wrong") {
		t.Error(text)
	}
}
