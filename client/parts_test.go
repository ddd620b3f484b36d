package client

import (
	"errors"
	"math"
	"testing"
	"time"

	"github.com/proa-kv/proa/protocol"
)

// Operations on a part of a row, as calls and as parts of a batch.
func TestParts(t *testing.T) {
	c := dial(t, nil, newFake(t))
	ctx := t.Context()
	k := []byte("k")
	if n, err := c.Append(ctx, k, []byte("hello")); n != 5 || err != nil {
		t.Errorf("Append to nothing: %d, %v", n, err)
	}
	if n, err := c.SetRange(ctx, k, 6, []byte("you")); n != 9 || err != nil {
		t.Errorf("SetRange: %d, %v", n, err)
	}
	if part, n, err := c.GetRange(ctx, k, 3, 6); string(part.Value) != "lo\x00y" || n != 9 || err != nil {
		t.Errorf("GetRange: %q of %d, %v", part.Value, n, err)
	}
	if sum, err := c.IncrFloat(ctx, []byte("f"), 1.25); sum != 1.25 || err != nil {
		t.Errorf("IncrFloat: %v, %v", sum, err)
	}
	if _, err := c.IncrFloat(ctx, k, 1); !errors.Is(err, ErrNotFloat) || !SafeToRetry(err) {
		t.Errorf("IncrFloat of text: %v", err)
	}
	results, err := c.Batch(ctx, NewBatch().Add(
		OpAppend(k, []byte("!")), OpSetRange(k, 0, []byte("J")), OpIncrFloat([]byte("f"), -0.5), OpGet(k), OpGetRange(k, 0, 1), OpExpiry(k)))
	if err != nil {
		t.Fatal(err)
	}
	if r := results; r[0].Integer != 10 || r[1].Integer != 10 || string(r[2].Value) != "0.75" || string(r[3].Value) != "Jello\x00you!" ||
		string(r[4].Value) != "Je" || r[4].Integer != 10 || r[5].Err != nil || !r[5].ExpiresAt.IsZero() {
		t.Errorf("batch: %+v", results)
	}
}

// The server stored a sum and does not keep it, or one beyond every float64.
func TestFloatOutOfReach(t *testing.T) {
	f := newFake(t)
	c := dial(t, nil, f)
	for text, want := range map[string]float64{"": math.NaN(), "1" + string(make0(400)): math.Inf(1)} {
		f.set(func() {
			f.intercept = func(_ *fakeConn, fr *protocol.Frame, _ *protocol.Extensions) verdict {
				if protocol.Opcode(fr.Code) != protocol.OpIncrFloat {
					return verdict{}
				}
				m := protocol.FloatReply{Version: 1, Text: []byte(text)}
				return verdict{reply: protocol.End(m.AppendTo(protocol.Begin(nil, 0, protocol.FlagReply, 0)), 0)}
			}
		})
		if sum, err := c.IncrFloat(t.Context(), []byte("f"), 1); err != nil || sum != want && !(math.IsNaN(sum) && math.IsNaN(want)) {
			t.Errorf("%q: %v, %v", text, sum, err)
		}
	}
}

func make0(n int) []byte {
	b := make([]byte, n)
	for i := range b {
		b[i] = '0'
	}
	return b
}

func TestSetExpiry(t *testing.T) {
	c := dial(t, nil, newFake(t))
	ctx := t.Context()
	k := []byte("k")
	at := time.UnixMilli(4_000_000_000_000)
	if _, err := c.SetExpiry(ctx, k, WithExpiryAt(at)); !errors.Is(err, ErrNotFound) {
		t.Errorf("of an absent key: %v", err)
	}
	if _, err := c.Expiry(ctx, k); !errors.Is(err, ErrNotFound) {
		t.Errorf("Expiry of an absent key: %v", err)
	}
	if _, err := c.Put(ctx, k, []byte("v"), WithExpiryAt(at)); err != nil {
		t.Fatal(err)
	}
	for i, step := range []struct {
		opts []ExpiryOption
		err  error
		want time.Time // zero: the key does not expire, or only a time to live is known
	}{
		{[]ExpiryOption{WithExpiryAt(at.Add(1)), IfLater()}, ErrConditionFailed, at},
		{[]ExpiryOption{WithExpiryAt(at.Add(time.Second)), IfLater()}, nil, at.Add(time.Second)},
		{[]ExpiryOption{WithExpiryAt(at), IfEarlier(), IfExpiry()}, nil, at},
		{[]ExpiryOption{WithTTL(time.Hour), IfNoExpiry()}, ErrConditionFailed, at},
		{nil, nil, time.Time{}},
		{[]ExpiryOption{WithTTL(time.Hour), IfExpiry()}, ErrConditionFailed, time.Time{}},
		{[]ExpiryOption{WithTTL(time.Hour), IfNoExpiry(), ReturnPrevious()}, nil, time.Time{}},
	} {
		r, err := c.SetExpiry(ctx, k, step.opts...)
		if !errors.Is(err, step.err) || r.Version == 0 {
			t.Errorf("SetExpiry: %+v, %v; want %v", r, err, step.err)
		}
		if got, err := c.Expiry(ctx, k); !got.Equal(step.want) || err != nil {
			t.Errorf("expires at %v, %v; want %v", got, err, step.want)
		}
		if i == 6 && (r.Previous == nil || string(r.Previous.Value) != "v" || string(r.Previous.Key) != "k") {
			t.Errorf("previous row: %+v", r.Previous)
		}
	}
	if item, err := c.Get(ctx, k); item.TTL != time.Hour || err != nil {
		t.Errorf("TTL %v, %v", item.TTL, err)
	}
}

func TestRename(t *testing.T) {
	f := newFake(t)
	c := dial(t, func(cfg *Config) { cfg.SessionReads = true }, f)
	ctx := t.Context()
	a, b := []byte("{t}a"), []byte("b") // the fake has one shard
	if _, err := c.Rename(ctx, a, b); !errors.Is(err, ErrNotFound) {
		t.Errorf("of an absent key: %v", err)
	}
	c.PutString(ctx, "{t}a", "v")
	copied, err := c.Copy(ctx, a, b)
	if err != nil {
		t.Fatal(err)
	}
	if r, err := c.Rename(ctx, a, b, IfAbsent()); !errors.Is(err, ErrConditionFailed) || r.Version != copied.Version {
		t.Errorf("to a key that exists: %+v, %v", r, err)
	}
	renamed, err := c.Rename(ctx, a, b)
	if err != nil || renamed.Version <= copied.Version {
		t.Errorf("Rename: %+v, %v", renamed, err)
	}
	if exists, err := c.Exists(ctx, a); exists || err != nil {
		t.Errorf("the source exists: %v, %v", exists, err)
	}
	if v, err := c.GetString(ctx, "b"); v != "v" || err != nil {
		t.Errorf("the destination: %q, %v", v, err)
	}
	for _, k := range [][]byte{a, b} {
		if v := c.seen[protocol.Slot(k)].Load(); v != renamed.Version {
			t.Errorf("seen in the slot of %q: %d, want %d", k, v, renamed.Version)
		}
	}
}

// A write whose connection breaks after the server carried it out has an unknown
// outcome, or, in a session, takes effect once.
func TestConnectionLostUnderPartialWrite(t *testing.T) {
	ctx := t.Context()
	k, other := []byte("k"), []byte("other")
	for code, write := range map[protocol.Opcode]func(*Client) error{
		protocol.OpAppend:    func(c *Client) error { _, err := c.Append(ctx, k, k); return err },
		protocol.OpSetRange:  func(c *Client) error { _, err := c.SetRange(ctx, k, 1, k); return err },
		protocol.OpIncrFloat: func(c *Client) error { _, err := c.IncrFloat(ctx, other, 1); return err },
		protocol.OpSetExpiry: func(c *Client) error { _, err := c.SetExpiry(ctx, k, WithTTL(time.Hour)); return err },
		protocol.OpRename:    func(c *Client) error { _, err := c.Copy(ctx, k, other); return err },
	} {
		for _, exactlyOnce := range []bool{false, true} {
			f := newFake(t)
			c := dial(t, func(cfg *Config) { cfg.ExactlyOnce = exactlyOnce }, f)
			c.PutString(ctx, "k", "v")
			f.set(func() { f.intercept = once(code, verdict{drop: true, after: true}) })
			err := write(c)
			if exactlyOnce && err != nil || !exactlyOnce && (!errors.Is(err, ErrOutcomeUnknown) || SafeToRetry(err)) {
				t.Errorf("%v, exactly once %v: %v", code, exactlyOnce, err)
			}
			f.set(func() {
				if f.applied != 2 {
					t.Errorf("%v, exactly once %v: applied %d times", code, exactlyOnce, f.applied-1)
				}
			})
		}
	}
	for name, read := range map[protocol.Opcode]func(*Client) error{
		protocol.OpExpiry:   func(c *Client) error { _, err := c.Expiry(ctx, k); return err },
		protocol.OpGetRange: func(c *Client) error { _, _, err := c.GetRange(ctx, k, 0, 0); return err },
	} {
		f := newFake(t)
		c := dial(t, nil, f)
		c.PutString(ctx, "k", "v")
		f.set(func() { f.intercept = once(name, verdict{drop: true}) })
		if err := read(c); err != nil {
			t.Errorf("%v: %v", name, err)
		}
	}
}
