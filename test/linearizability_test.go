package test

import (
	"context"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/anishathalye/porcupine"

	"github.com/proa-kv/proa/client"
	"github.com/proa-kv/proa/internal/testcluster"
)

// TestLinearizable records what several clients ask and are answered on a few
// keys, with a SIGKILL in the middle, and has porcupine look for an order of
// all requests that explains every answer.
func TestLinearizable(t *testing.T) {
	rng := seeded(t)
	rounds, requests := 5, int64(3000)
	if testing.Short() {
		rounds, requests = 1, 800
	}
	for round := range rounds {
		h := newHistory(3)
		h.killAt = requests / 2
		h.endAt.Store(requests)
		node := testcluster.Start(t, testcluster.Config{Args: []string{"--shards=2"}})
		for i := range 12 {
			// Several connections, so that requests meet in the server in any
			// order; some share one.
			if i%3 == 0 {
				h.clients = append(h.clients, connect(t, node, nil))
			}
			h.begin(rng, h.clients[len(h.clients)-1])
		}
		<-h.reached
		node.Kill()
		node.Start()
		h.restarted.Store(h.now())
		h.wg.Wait()
		h.check(t, round)
		node.Stop()
	}
}

// history collects operations of all clients.
type history struct {
	clients    []*client.Client
	historians int
	start      time.Time
	keys       int
	killAt     int64 // operations after which reached is closed; 0: never
	endAt      atomic.Int64
	reached    chan struct{}
	count      atomic.Int64
	pace       time.Duration // each client waits up to twice as long between two operations
	wg         sync.WaitGroup

	// restarted is the time at which the server answered again, and nothing of
	// the one before can take effect any more; 0: there is none.
	restarted atomic.Int64

	mu     sync.Mutex
	ops    []porcupine.Operation
	failed []error
}

func newHistory(keys int) *history {
	h := &history{start: time.Now(), keys: keys, reached: make(chan struct{})}
	h.endAt.Store(math.MaxInt64)
	return h
}

// begin starts one more client.
func (h *history) begin(rng *rand.Rand, c *client.Client) {
	w := h.historian(rng, c)
	h.wg.Go(w.run)
}

// historian returns one more client, which does what it is told.
func (h *history) historian(rng *rand.Rand, c *client.Client) *historian {
	h.historians++
	return &historian{h: h, id: h.historians, c: c, rng: rand.New(rand.NewPCG(rng.Uint64(), 0)), seen: make(map[string]client.Item)}
}

// finish has all clients end what they are at, and no more.
func (h *history) finish() {
	h.endAt.Store(0)
	h.wg.Wait()
}

func (h *history) now() int64 { return int64(time.Since(h.start)) }

func (h *history) add(op porcupine.Operation) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.ops = append(h.ops, op)
}

func (h *history) check(t *testing.T, round int) {
	t.Helper()
	for _, err := range h.failed {
		t.Error(err)
	}
	unknown := 0
	for i := range h.ops {
		if h.ops[i].Return == math.MaxInt64 {
			unknown++
			// Nothing of the killed process can take effect once its
			// successor answers.
			if at := h.restarted.Load(); at != 0 {
				h.ops[i].Return = at
			}
		}
	}
	model := registers.ToModel()
	result, info := porcupine.CheckOperationsVerbose(model, h.ops, 2*time.Minute)
	t.Logf("round %d: %d operations, %d of unknown outcome: %v", round, len(h.ops), unknown, result)
	if result == porcupine.Ok {
		return
	}
	path := filepath.Join(os.TempDir(), fmt.Sprintf("proa-history-%d.html", h.start.UnixNano()))
	if err := porcupine.VisualizePath(model, info, path); err != nil {
		t.Error(err)
	}
	t.Fatalf("the history is not linearizable (%v); see %s", result, path)
}

type historian struct {
	h    *history
	id   int
	c    *client.Client
	rng  *rand.Rand
	seen map[string]client.Item // what it read last, for compare-and-set
}

type opKind uint8

const (
	opGet opKind = iota
	opPut
	opPutAbsent
	opDelete
	opIncr
	opCompareVersion // PUT if the key has a version
	opCompareValue   // TXN: PUT if the key has a value, else GET
)

// registerInput is what a client asked.
type registerInput struct {
	kind    opKind
	key     string
	value   string // to write; the delta of an INCR
	expect  string // opCompareValue
	version uint64 // opCompareVersion
}

// registerOutput is what it was told. Of a row that was not found, or of a
// condition that failed, the version is what the reply named.
type registerOutput struct {
	unknown bool
	ok      bool // found, or carried out
	value   string
	version uint64 // 0: not told
}

func (w *historian) run() {
	for w.h.count.Load() < w.h.endAt.Load() {
		if w.h.pace > 0 {
			<-time.After(time.Duration(w.rng.Int64N(int64(2 * w.h.pace)))) // think time
		}
		w.do(w.next())
		if w.h.count.Add(1) == w.h.killAt {
			close(w.h.reached)
		}
	}
}

func registerKey(i int) string { return fmt.Sprintf("register/%d", i) }

// do carries out one operation and records it. It reports whether it was
// answered.
func (w *historian) do(in registerInput) bool {
	call := w.h.now()
	out, err := w.send(&in)
	ret := w.h.now()
	if err != nil && !out.unknown {
		w.h.mu.Lock()
		w.h.failed = append(w.h.failed, fmt.Errorf("%+v: %w", in, err))
		w.h.mu.Unlock()
	}
	if out.unknown {
		ret = math.MaxInt64
	}
	w.h.add(porcupine.Operation{ClientId: w.id, Input: in, Call: call, Output: out, Return: ret})
	if out.unknown {
		// For porcupine a client has one operation at a time, and this one may
		// last until the restart.
		w.id += 10_000
	}
	return err == nil
}

func (w *historian) next() registerInput {
	in := registerInput{key: registerKey(w.rng.IntN(w.h.keys)), value: strconv.Itoa(w.rng.IntN(1000))}
	switch n := w.rng.IntN(100); {
	case n < 35:
		in.kind = opGet
	case n < 50:
		in.kind = opPut
	case n < 57:
		in.kind = opPutAbsent
	case n < 65:
		in.kind = opDelete
	case n < 80:
		in.kind = opIncr
	case n < 90:
		in.kind, in.version = opCompareVersion, w.seen[in.key].Version
	default:
		in.kind, in.expect = opCompareValue, string(w.seen[in.key].Value)
	}
	return in
}

// send carries out one request. An error means that the reply cannot be part
// of a history.
func (w *historian) send(in *registerInput) (registerOutput, error) {
	ctx := context.Background()
	key := []byte(in.key)
	var out registerOutput
	var err error
	switch in.kind {
	case opGet:
		var item client.Item
		item, err = w.c.Get(ctx, key)
		out = registerOutput{ok: err == nil, value: string(item.Value), version: item.Version}
		w.seen[in.key] = item
	case opPut:
		out, err = w.write(w.c.Put(ctx, key, []byte(in.value)))
	case opPutAbsent:
		out, err = w.write(w.c.Put(ctx, key, []byte(in.value), client.IfAbsent()))
	case opCompareVersion:
		out, err = w.write(w.c.Put(ctx, key, []byte(in.value), client.IfVersion(in.version)))
	case opDelete:
		out, err = w.write(w.c.Delete(ctx, key))
	case opIncr:
		delta, _ := strconv.ParseInt(in.value, 10, 64)
		var n int64
		n, err = w.c.Incr(ctx, key, delta)
		out = registerOutput{ok: err == nil, value: strconv.FormatInt(n, 10)}
	case opCompareValue:
		var r client.TxnResult
		r, err = w.c.Txn(ctx, client.NewTxn().If(client.Value(key, client.Equal, []byte(in.expect))).
			Then(client.OpPut(key, []byte(in.value))).Else(client.OpGet(key)))
		if err == nil {
			out = registerOutput{ok: r.Succeeded, version: r.Results[0].Version, value: string(r.Results[0].Value)}
			err = r.Results[0].Err
		}
	}
	switch {
	case errors.Is(err, client.ErrOutcomeUnknown):
		return registerOutput{unknown: true}, err
	case errors.Is(err, client.ErrNotFound), errors.Is(err, client.ErrConditionFailed):
		return out, nil
	}
	return out, err
}

func (w *historian) write(r client.WriteResult, err error) (registerOutput, error) {
	return registerOutput{ok: err == nil, version: r.Version}, err
}

// register is the state of one key. A version of 0 with exists says that the
// row was written by a request whose reply got lost; versionMin is the newest
// version known of the key, which every later one must exceed.
type register struct {
	exists     bool
	value      string
	version    uint64
	versionMin uint64
}

// registers is the sequential specification: what each request does to its key
// and what it may answer.
var registers = porcupine.NondeterministicModel{
	Partition: func(history []porcupine.Operation) [][]porcupine.Operation {
		byKey := make(map[string][]porcupine.Operation)
		for _, op := range history {
			key := op.Input.(registerInput).key
			byKey[key] = append(byKey[key], op)
		}
		var parts [][]porcupine.Operation
		for _, p := range byKey {
			parts = append(parts, p)
		}
		return parts
	},
	Init: func() []any { return []any{register{}} },
	Step: func(state, input, output any) []any {
		s, in, out := state.(register), input.(registerInput), output.(registerOutput)
		if !out.unknown {
			if next, ok := s.answer(in, out); ok {
				return []any{next}
			}
			return nil
		}
		// It never happened, or it did.
		if after, changed := s.effect(in); changed {
			return []any{s, after}
		}
		return []any{s}
	},
	Equal: func(a, b any) bool { return a == b },
	DescribeOperation: func(input, output any) string {
		in, out := input.(registerInput), output.(registerOutput)
		names := []string{"get", "put", "put if absent", "delete", "incr", "put if version", "put if value"}
		return fmt.Sprintf("%s(%s %s %d) → %+v", names[in.kind], in.value, in.expect, in.version, out)
	},
}

// found reconciles the state with a row that a reply shows.
func (s register) found(version uint64) (register, bool) {
	switch {
	case !s.exists || version == 0:
		return s, false
	case s.version == 0 && version > s.versionMin:
		s.version, s.versionMin = version, version
		return s, true
	}
	return s, s.version == version
}

// written is the state after a write that was answered with a version, 0 where
// the answer does not name one.
func (s register) written(value string, version uint64) (register, bool) {
	if version != 0 && version <= s.versionMin {
		return s, false
	}
	return register{exists: true, value: value, version: version, versionMin: max(s.versionMin, version)}, true
}

// answer is the state after a request with a known answer; false means that
// the answer is impossible in this state.
func (s register) answer(in registerInput, out registerOutput) (register, bool) {
	switch in.kind {
	case opGet:
		if !out.ok {
			return s, !s.exists
		}
		next, ok := s.found(out.version)
		return next, ok && s.value == out.value
	case opPut:
		if !out.ok {
			return s, false
		}
		return s.written(in.value, out.version)
	case opPutAbsent:
		if !out.ok {
			return s.found(out.version)
		}
		next, ok := s.written(in.value, out.version)
		return next, ok && !s.exists
	case opDelete:
		if !out.ok {
			return s, !s.exists
		}
		return register{versionMin: out.version}, s.exists && out.version > s.versionMin
	case opIncr:
		n, ok := s.sum(in)
		next, _ := s.written(n, 0)
		return next, ok && out.ok && out.value == n
	case opCompareVersion:
		return s.answerVersion(in, out)
	case opCompareValue:
		if out.ok {
			next, ok := s.written(in.value, out.version)
			return next, ok && s.exists && s.value == in.expect
		}
		if !s.exists {
			return s, out.version == 0
		}
		next, ok := s.found(out.version)
		return next, ok && s.value == out.value && s.value != in.expect
	}
	return s, false
}

// answerVersion is answer for a PUT that demands a version, where 0 stands for
// an absent key.
func (s register) answerVersion(in registerInput, out registerOutput) (register, bool) {
	if !out.ok {
		if out.version == 0 {
			return s, !s.exists && in.version != 0
		}
		next, ok := s.found(out.version)
		return next, ok && out.version != in.version
	}
	if in.version == 0 {
		next, ok := s.written(in.value, out.version)
		return next, ok && !s.exists
	}
	found, ok := s.found(in.version)
	next, fits := found.written(in.value, out.version)
	return next, ok && fits
}

// effect is the state after a request whose reply got lost, and whether it can
// have changed anything.
func (s register) effect(in registerInput) (register, bool) {
	next, _ := s.written(in.value, 0)
	switch in.kind {
	case opPut:
		return next, true
	case opPutAbsent:
		return next, !s.exists
	case opDelete:
		return register{versionMin: s.versionMin}, s.exists
	case opIncr:
		n, ok := s.sum(in)
		next.value = n
		return next, ok
	case opCompareVersion:
		if in.version == 0 {
			return next, !s.exists
		}
		known, ok := s.found(in.version)
		if !ok {
			return s, false
		}
		next, _ = known.written(in.value, 0)
		return next, true
	case opCompareValue:
		return next, s.exists && s.value == in.expect
	}
	return s, false
}

func (s register) sum(in registerInput) (string, bool) {
	if !s.exists {
		return in.value, true
	}
	a, errA := strconv.ParseInt(s.value, 10, 64)
	b, errB := strconv.ParseInt(in.value, 10, 64)
	return strconv.FormatInt(a+b, 10), errA == nil && errB == nil
}

// The specification itself must not accept everything: small histories that
// are wrong in one way each.
func TestRegisterModel(t *testing.T) {
	op := func(client int, call, ret int64, in registerInput, out registerOutput) porcupine.Operation {
		in.key = "k"
		return porcupine.Operation{ClientId: client, Input: in, Call: call, Output: out, Return: ret}
	}
	put := op(0, 0, 1, registerInput{kind: opPut, value: "1"}, registerOutput{ok: true, version: 5})
	lost := op(0, 0, 10, registerInput{kind: opPut, value: "2"}, registerOutput{unknown: true})
	get := func(call int64, ok bool, value string, version uint64) porcupine.Operation {
		return op(1, call, call+1, registerInput{kind: opGet}, registerOutput{ok: ok, value: value, version: version})
	}
	for _, tt := range []struct {
		name string
		ops  []porcupine.Operation
		want bool
	}{
		{"read what was written", []porcupine.Operation{put, get(2, true, "1", 5)}, true},
		{"another value", []porcupine.Operation{put, get(2, true, "2", 5)}, false},
		{"another version", []porcupine.Operation{put, get(2, true, "1", 6)}, false},
		{"a lost write", []porcupine.Operation{put, get(2, false, "", 0)}, false},
		{"a read before the write", []porcupine.Operation{put, get(0, false, "", 0)}, true},
		{"unknown, not carried out", []porcupine.Operation{lost, get(12, false, "", 0)}, true},
		{"unknown, carried out", []porcupine.Operation{lost, get(12, true, "2", 9)}, true},
		{"unknown, carried out and gone", []porcupine.Operation{lost, get(3, true, "2", 9), get(5, false, "", 0)}, false},
		{"unknown, seen too late", []porcupine.Operation{lost, get(12, false, "", 0), get(14, true, "2", 9)}, false},
		{"a version that goes back", []porcupine.Operation{put, op(2, 2, 3, registerInput{kind: opPut, value: "3"}, registerOutput{ok: true, version: 4})}, false},
		{"an increment twice", []porcupine.Operation{put,
			op(2, 2, 3, registerInput{kind: opIncr, value: "1"}, registerOutput{ok: true, value: "2"}), get(4, true, "3", 9)}, false},
		{"a version that was not there", []porcupine.Operation{put,
			op(2, 2, 3, registerInput{kind: opCompareVersion, value: "3", version: 4}, registerOutput{ok: true, version: 7})}, false},
		{"a value that was not there", []porcupine.Operation{put,
			op(2, 2, 3, registerInput{kind: opCompareValue, value: "3", expect: "2"}, registerOutput{ok: true, version: 7})}, false},
	} {
		if got := porcupine.CheckOperations(registers.ToModel(), slices.Clone(tt.ops)); got != tt.want {
			t.Errorf("%s: linearizable %v, want %v", tt.name, got, tt.want)
		}
	}
}
