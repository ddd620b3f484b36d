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
			key, to := fmt.Appendf(nil, "{%d-%d}key", i, k), fmt.Appendf(nil, "{%d-%d}to", i, k)
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
				var f protocol.Frame
				eventually(t, "a leader", func() error { // it may change on a busy machine: then nothing was done
					f = w.call(r.op, r.m.AppendTo(nil))
					if s := protocol.Status(f.Code); s.Retry() {
						return fmt.Errorf("%v %q", s, f.Body)
					}
					return nil
				})
				if s := protocol.Status(f.Code); s != protocol.StatusOK {
					t.Fatalf("%v of %s through server %d: %v %q", r.op, key, c.ID(n), s, f.Body)
				}
				var x protocol.Extensions
				if err := x.Decode(f.Extensions); err != nil {
					t.Fatal(err)
				}
				if x.Leader != 0 {
					forwarded++
				}
				if len(f.Body) < 8 {
					t.Fatalf("%v: a body of %d bytes", r.op, len(f.Body))
				}
				version := binary.LittleEndian.Uint64(f.Body)
				if want := r.reply(version).AppendTo(nil); version == 0 || string(f.Body) != string(want) {
					t.Errorf("%v of %s through server %d: %x, want %x", r.op, key, c.ID(n), f.Body, want)
				}
			}
		}
	}
	if forwarded == 0 {
		t.Error("no request was forwarded")
	}
	checkEqual(t, c)
}

func lengthReply(n int64) func(uint64) encoder {
	return func(version uint64) encoder {
		return &protocol.IncrReply{Version: version, Value: n}
	}
}

func writeReply(version uint64) encoder {
	return &protocol.WriteReply{Version: version}
}
