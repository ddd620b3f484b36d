package test

import (
	"encoding/binary"
	"fmt"
	"testing"
	"time"

	"github.com/proa-kv/proa/internal/testcluster"
	"github.com/proa-kv/proa/protocol"
)

// encoder is a message of package protocol.
type encoder interface{ AppendTo([]byte) []byte }

// TestClusterExtend sends the operations that make a row out of the one there is
// through every server, for keys of all shards. Most go on to another server.
// All replicas come to the same rows.
func TestClusterExtend(t *testing.T) {
	t.Parallel()
	c := testcluster.StartCluster(t, testcluster.ClusterConfig{Shards: 3})
	c.AwaitLeaders()
	at := uint64(time.Now().Add(time.Hour).UnixMilli())
	forwarded := 0
	for i, n := range c.Nodes() {
		w := greetWire(t, n)
		for k := range 12 {
			tries := 0
			eventually(t, "leaders that stay", func() error { // on a busy machine they may change
				tries++
				keys := fmt.Sprintf("{%d-%d-%d}", i, k, tries)
				more, err := extend(w, []byte(keys+"key"), []byte(keys+"to"), at)
				forwarded += more
				return err
			})
		}
	}
	if forwarded == 0 {
		t.Error("no request was forwarded")
	}
	checkEqual(t, c)
}

// extend makes one row out of the other. It returns how many of the requests were
// forwarded, and an error where the outcome of one is unknown.
func extend(w *wire, key, to []byte, at uint64) (forwarded int, err error) {
	w.t.Helper()
	for _, r := range []struct {
		op    protocol.Opcode
		m     encoder
		reply func(version uint64) encoder
	}{
		{protocol.OpAppend, &protocol.Append{Key: key, Value: []byte("10")}, lengthReply(2)},
		{protocol.OpSetRange, &protocol.SetRange{Offset: 2, Key: key, Value: []byte(".5")}, lengthReply(4)},
		{protocol.OpIncrFloat, &protocol.IncrFloat{Key: key, Increment: []byte("0.1")}, func(version uint64) encoder {
			return &protocol.FloatReply{Version: version, Text: []byte("10.6")}
		}},
		{protocol.OpSetExpiry, &protocol.SetExpiry{Flags: protocol.ExpiryAt, Millis: at, Key: key}, writeReply},
		{protocol.OpRename, &protocol.Rename{Source: key, Destination: to}, writeReply},
		{protocol.OpExpiry, &protocol.Key{Key: to}, func(version uint64) encoder {
			return &protocol.ExpiryReply{Version: version, ExpireAtMillis: at}
		}},
	} {
		f := w.call(r.op, r.m.AppendTo(nil))
		if s := protocol.Status(f.Code); s.Retry() || s.Outcome() == protocol.Unknown {
			return forwarded, fmt.Errorf("%v of %s: %v %q", r.op, key, s, f.Body)
		} else if s != protocol.StatusOK {
			w.t.Fatalf("%v of %s: %v %q", r.op, key, s, f.Body)
		}
		var x protocol.Extensions
		if err := x.Decode(f.Extensions); err != nil {
			w.t.Fatal(err)
		}
		if x.Leader != 0 {
			forwarded++
		}
		if len(f.Body) < 8 {
			w.t.Fatalf("%v: a body of %d bytes", r.op, len(f.Body))
		}
		version := binary.LittleEndian.Uint64(f.Body)
		if want := r.reply(version).AppendTo(nil); version == 0 || string(f.Body) != string(want) {
			w.t.Errorf("%v of %s: %x, want %x", r.op, key, f.Body, want)
		}
	}
	return forwarded, nil
}

func lengthReply(n int64) func(uint64) encoder {
	return func(version uint64) encoder {
		return &protocol.IncrReply{Version: version, Value: n}
	}
}

func writeReply(version uint64) encoder {
	return &protocol.WriteReply{Version: version}
}
