package client

import (
	"errors"
	"fmt"
	"slices"
	"testing"

	"github.com/proa-kv/proa/protocol"
)

// resultsFrame is a reply with the outcome of each part.
func resultsFrame(statuses ...Status) []byte {
	var m protocol.BatchReply
	for i, s := range statuses {
		r := protocol.OpResult{Status: s}
		if s == protocol.StatusOK {
			r.Body = (&protocol.WriteReply{Version: uint64(10 + i)}).AppendTo(nil)
		}
		m.Results = append(m.Results, r)
	}
	return protocol.End(m.AppendTo(protocol.Begin(nil, uint8(protocol.StatusOK), protocol.FlagReply, 0)), 0)
}

// answers lets a server of three shards answer the parts of a DELETE_RANGE, one
// attempt after the other, and returns what it was asked.
func answers(f *fake, attempts [3][]Status) *[]string {
	asked := new([]string)
	f.intercept = func(_ *fakeConn, fr *protocol.Frame, x *protocol.Extensions) verdict {
		if protocol.Opcode(fr.Code) != protocol.OpDeleteRange {
			return verdict{}
		}
		var m protocol.DeleteRange
		if err := m.Decode(fr.Body); err != nil {
			return verdict{reply: errorFrame(protocol.StatusBadRequest, 0, err.Error())}
		}
		first, end := 0, len(attempts)
		if x.HasShard {
			first, end = int(x.Shard), int(x.Shard)+1
		}
		*asked = append(*asked, fmt.Sprintf("%d-%d %d %s %s", first, end, m.Flags, m.Start, m.End))
		var statuses []Status
		for shard := first; shard < end; shard++ {
			statuses = append(statuses, attempts[shard][0])
			attempts[shard] = attempts[shard][1:]
		}
		return verdict{reply: resultsFrame(statuses...)}
	}
	return asked
}

const (
	isOK     = protocol.StatusOK
	isMoved  = protocol.StatusNotLeader
	isUnsure = protocol.StatusTimeout
)

func TestDeleteRange(t *testing.T) {
	f := newFake(t)
	asked := answers(f, [3][]Status{{isOK, isOK, isOK}, {isMoved, isMoved, isOK, isOK, isOK}, {isOK, isOK, isOK}})
	c := dial(t, nil, f)
	for _, err := range []error{
		c.DeleteRange(t.Context(), []byte("a"), []byte("b")), c.DeletePrefix(t.Context(), []byte("p")), c.DeleteAll(t.Context()),
	} {
		if err != nil {
			t.Error(err)
		}
	}
	want := []string{"0-3 0 a b", "1-2 0 a b", "1-2 0 a b", "0-3 1 p ", "0-3 2  "}
	if !slices.Equal(*asked, want) {
		t.Errorf("asked for %q, want %q", *asked, want)
	}
	for _, err := range []error{
		c.DeleteRange(t.Context(), nil, nil), c.DeletePrefix(t.Context(), nil),
		c.DeleteRange(t.Context(), make([]byte, protocol.KeyBytesMax+1), nil),
	} {
		if !errors.Is(err, ErrBadRequest) && !errors.Is(err, ErrTooLarge) || !SafeToRetry(err) {
			t.Errorf("%v", err)
		}
	}
	if len(*asked) != len(want) {
		t.Error("a range that makes no sense was sent")
	}
}

// What part of a deletion may have been done is not told as not done; within a
// session it is completed.
func TestDeleteRangeInPart(t *testing.T) {
	unsure := [3][]Status{{isOK, isOK}, {isUnsure, isOK}, {isOK, isOK}}
	f := newFake(t)
	answers(f, unsure)
	c := dial(t, nil, f)
	var e *Error
	if err := c.DeleteAll(t.Context()); !errors.As(err, &e) || e.Outcome != Unknown || e.Status != isUnsure {
		t.Errorf("%v", err)
	}
	f = newFake(t)
	asked := answers(f, unsure)
	if err := dial(t, func(c *Config) { c.ExactlyOnce = true }, f).DeleteAll(t.Context()); err != nil || len(*asked) != 2 {
		t.Errorf("in a session: %v, asked for %q", err, *asked)
	}
	f = newFake(t)
	moved := slices.Repeat([]Status{isMoved}, 1000)
	answers(f, [3][]Status{moved, moved, moved})
	few := func(c *Config) { c.RetryMax = 3 }
	if err := dial(t, few, f).DeleteAll(t.Context()); !SafeToRetry(err) {
		t.Errorf("refused everywhere: %v", err)
	}
	f = newFake(t)
	answers(f, [3][]Status{{isOK}, moved, moved})
	if err := dial(t, few, f).DeleteAll(t.Context()); err == nil || SafeToRetry(err) {
		t.Errorf("refused in part: %v", err)
	}
}

// Reads of a session see that what they have deleted is gone.
func TestDeleteRangeIsSeen(t *testing.T) {
	f := newFake(t)
	answers(f, [3][]Status{{isOK}, {isOK}, {isOK}})
	c := dial(t, func(c *Config) { c.SessionReads = true }, f)
	if err := c.DeleteAll(t.Context()); err != nil {
		t.Fatal(err)
	}
	if got := c.seen[7].Load(); got != 12 { // nothing is known of shards here
		t.Errorf("the token is %d", got)
	}
}

func TestWatchAndGetRange(t *testing.T) {
	f := newFake(t)
	c := dial(t, nil, f)
	var watched protocol.WatchReply
	f.intercept = func(_ *fakeConn, fr *protocol.Frame, x *protocol.Extensions) verdict {
		reply := func(b []byte) verdict { return verdict{reply: protocol.End(b, 0)} }
		begun := protocol.Begin(nil, uint8(isOK), protocol.FlagReply, 0)
		switch protocol.Opcode(fr.Code) {
		case protocol.OpWatch:
			if string(fr.Body) != "k" || x.Session != 0 {
				t.Errorf("%q, %+v", fr.Body, x)
			}
			return reply(watched.AppendTo(begun))
		case protocol.OpGetRange:
			var m protocol.GetRange
			if err := m.Decode(fr.Body); err != nil || m.Start != -3 || m.End != 7 {
				t.Errorf("%+v, %v", m, err)
			}
			if string(m.Key) != "k" {
				return verdict{reply: protocol.End(protocol.Begin(nil, uint8(protocol.StatusNotFound), protocol.FlagReply, 0), 0)}
			}
			return reply((&protocol.RangeReply{Version: 4, Length: 9, Part: []byte("end")}).AppendTo(begun))
		}
		return verdict{}
	}
	for _, w := range []struct {
		reply protocol.WatchReply
		want  protocol.Compare
	}{
		{protocol.WatchReply{Version: 3, Revision: 8}, protocol.Compare{Target: protocol.CompareVersion, Relation: Equal, Key: []byte("k"), Version: 3}},
		{protocol.WatchReply{Revision: 8}, protocol.Compare{Target: protocol.CompareAbsent, Relation: Equal, Key: []byte("k"), Version: 8}},
	} {
		f.set(func() { watched = w.reply })
		got, err := c.Watch(t.Context(), []byte("k"))
		if g := got.compare; err != nil || g.Target != w.want.Target || g.Relation != w.want.Relation || g.Version != w.want.Version || string(g.Key) != "k" {
			t.Errorf("%+v, %v; want %+v", g, err, w.want)
		}
	}
	part, length, err := c.GetRange(t.Context(), []byte("k"), -3, 7)
	if err != nil || string(part.Value) != "end" || part.Version != 4 || length != 9 {
		t.Errorf("%+v, %d, %v", part, length, err)
	}
	if _, _, err := c.GetRange(t.Context(), []byte("absent"), -3, 7); !errors.Is(err, ErrNotFound) {
		t.Error(err)
	}
	if _, err := c.Watch(t.Context(), nil); !errors.Is(err, ErrBadRequest) {
		t.Error(err)
	}
}
