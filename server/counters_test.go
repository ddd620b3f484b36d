package server

import (
	"bytes"
	"encoding/json"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/proa-kv/proa/command"
	"github.com/proa-kv/proa/protocol"
)

// TestErrorsAreCounted: each error that a client is told is counted by its
// status, through both listeners and inside BATCH, TXN and EXEC; what carries a
// result is none.
func TestErrorsAreCounted(t *testing.T) {
	s, addr := live(t, Config{})
	d, r := dial(t, addr), dialRedis(t, redisAddr(s))
	count := func(what string, do func(), want map[string]uint64) {
		t.Helper()
		before := s.Errors()
		do()
		got := s.Errors()
		for status := range got {
			if got[status] -= before[status]; got[status] == 0 {
				delete(got, status)
			}
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("%s (-want +got):\n%s", what, diff)
		}
	}
	put := func(key, value string) []byte {
		m := protocol.Put{Key: []byte(key), Value: []byte(value)}
		return m.AppendTo(nil)
	}
	incr := func(key string) []byte { m := protocol.Incr{Delta: 1, Key: []byte(key)}; return m.AppendTo(nil) }
	float := func(key string) []byte {
		m := protocol.IncrFloat{Key: []byte(key), Increment: []byte("1")}
		return m.AppendTo(nil)
	}
	ops := []protocol.Op{{Code: protocol.OpIncr, Body: incr("{a}text")}, {Code: protocol.OpIncrFloat, Body: float("{a}text")}, {Code: protocol.OpPut, Body: put("{a}x", "v")}}
	batch := protocol.Batch{Ops: ops}
	apart := protocol.Batch{Flags: protocol.BatchNonAtomic, Ops: append(ops, protocol.Op{Code: protocol.OpPut, Body: put("b", "v")}, protocol.Op{Code: protocol.OpPut, Body: put("c", "v")})}
	txn := protocol.Txn{Then: ops}
	type counts = map[string]uint64
	count("what is no error", func() {
		d.call(protocol.OpPut, put("{a}text", "text"))
		d.call(protocol.OpGet, []byte("absent"))
		r.do("SET k v NX")
		r.do("SET k v NX")
	}, counts{})
	for _, x := range []struct {
		what string
		op   protocol.Opcode
		body []byte
		want counts
	}{
		{"a malformed PUT", protocol.OpPut, []byte{0}, counts{"BAD_REQUEST": 1}},
		{"a bad option", protocol.OpPut, append([]byte{0x80}, put("k", "v")[1:]...), counts{"BAD_REQUEST": 1}},
		{"a long key", protocol.OpGet, bytes.Repeat([]byte("k"), protocol.KeyBytesMax+1), counts{"TOO_LARGE": 1}},
		{"an unknown opcode", 200, nil, counts{"UNSUPPORTED": 1}},
		{"INCR of a text", protocol.OpIncr, incr("{a}text"), counts{"NOT_INTEGER": 1}},
		{"INCRFLOAT of a text", protocol.OpIncrFloat, float("{a}text"), counts{"NOT_FLOAT": 1}},
		{"a BATCH", protocol.OpBatch, batch.AppendTo(nil), counts{"NOT_INTEGER": 1, "NOT_FLOAT": 1}},
		{"a BATCH in parts", protocol.OpBatch, apart.AppendTo(nil), counts{"NOT_INTEGER": 1, "NOT_FLOAT": 1}},
		{"a TXN", protocol.OpTxn, txn.AppendTo(nil), counts{"NOT_INTEGER": 1, "NOT_FLOAT": 1}},
	} {
		count(x.what, func() { d.call(x.op, x.body) }, x.want)
	}
	for _, x := range []struct {
		words string
		want  counts
	}{
		{"NOSUCH", counts{"UNSUPPORTED": 1}},
		{"GET", counts{"BAD_REQUEST": 1}},
		{"SET k v SOON", counts{"BAD_REQUEST": 1}},
		{"SET k v EX 0", counts{"BAD_REQUEST": 1}},
		{"INCR k", counts{"NOT_INTEGER": 1}},
		{"INCRBYFLOAT k 1", counts{"NOT_FLOAT": 1}},
		{"SCAN what", counts{"BAD_REQUEST": 1}},
	} {
		count(x.words, func() { r.do(x.words) }, x.want)
	}
	count("EXEC", func() {
		for _, words := range []string{"MULTI", "INCR k", "SET k 1", "INCR k", "INCRBYFLOAT k nothing", "EXEC"} {
			r.do(words)
		}
	}, counts{"NOT_INTEGER": 1, "NOT_FLOAT": 1})
	count("a stream out of step", func() {
		other := dial(t, addr)
		if _, err := other.nc.Write(make([]byte, protocol.HeaderBytes)); err != nil {
			t.Fatal(err)
		}
		other.receive()
	}, counts{"PROTOCOL": 1})
}

// TestErrorOfAPageIsCountedOnce: a walk over all keys of which a page fails is
// answered with one error, and that is one in the counters.
func TestErrorOfAPageIsCountedOnce(t *testing.T) {
	fc := newFakeCluster(t, Config{}, 2, 2, 2)
	n := fc.nodes[2]
	fc.with(func() { n.readIndexErr = command.ErrNoQuorum })
	c := dialRedis(t, n.redisAddr)
	for _, words := range []string{"KEYS *", "SCAN 0", "DBSIZE", "RANDOMKEY"} {
		before := n.srv.counters.errors.sum()
		if got := c.do(words); !strings.HasPrefix(got, "-CLUSTERDOWN") {
			t.Errorf("%s was answered %q", words, got)
		}
		if got := n.srv.counters.errors.sum() - before; got != 1 {
			t.Errorf("%s: %d errors were counted: %v", words, got, n.srv.Errors())
		}
	}
}

// STATUS tells the CPU time of the process, which never shrinks.
func TestStatusTellsCPU(t *testing.T) {
	d := newFakeCluster(t, Config{}, 1, 1, 1).nodes[1].client()
	var last int64
	for range 3 {
		f := d.call(protocol.OpStatus, nil)
		want(t, f, protocol.StatusOK)
		var s struct {
			Server struct {
				CPU int64 `json:"cpu_us"`
			} `json:"server"`
		}
		if err := json.Unmarshal(f.Body, &s); err != nil {
			t.Fatal(err)
		}
		if s.Server.CPU <= 0 || s.Server.CPU < last {
			t.Errorf("%d µs after %d", s.Server.CPU, last)
		}
		last = s.Server.CPU
	}
}
