package sim

import (
	"fmt"
	"math"
	"slices"
	"strings"
	"time"

	"github.com/anishathalye/porcupine"
)

// register is the state of a key as the model has it: what it holds, and the
// version of that, as far as somebody was told. A write whose outcome nobody
// heard has a version above floor, which later reads may tell.
type register struct {
	value   string
	version uint64 // 0: not told
	floor   uint64
}

// set is a write whose version is told, or not (0).
func (r register) set(value string, version uint64) (bool, register) {
	low := max(r.floor, r.version)
	if version == 0 {
		return true, register{value, 0, low}
	}
	return version > low, register{value, version, version}
}

// seen is a look at the present version.
func (r register) seen(version uint64) (bool, register) {
	switch {
	case version == 0 || r.version == version:
		return true, r
	case r.version == 0 && version > r.floor:
		return true, register{r.value, version, version}
	}
	return false, r
}

// step is one operation on a key, as the sequential specification has it.
func (r register) step(op *operation) (bool, register) {
	known, res := op.done, op.result
	switch op.kind {
	case opGet:
		if r.value != res.value {
			return false, r
		}
		if res.value == "" {
			return true, r
		}
		return r.seen(res.version)
	case opPut:
		return r.set(op.value, res.version)
	case opSwap:
		holds := r.value == op.expect
		if known && holds == res.failed {
			return false, r
		}
		if !holds {
			return true, r
		}
		return r.set(op.value, res.version)
	case opDelete:
		if known && (r.value == "") != res.failed {
			return false, r
		}
		if r.value == "" {
			return true, r
		}
		return r.set("", res.version)
	case opDeleteRange:
		return r.set("", res.version)
	case opIncr:
		n := int64(0)
		if r.value != "" {
			fmt.Sscan(r.value, &n)
		}
		if known && res.integer != n+1 {
			return false, r
		}
		return r.set(fmt.Sprint(n+1), res.version)
	}
	return false, r
}

var model = porcupine.Model{
	Init: func() any { return register{} },
	Step: func(state, input, _ any) (bool, any) {
		ok, next := state.(register).step(input.(*operation))
		return ok, next
	},
	Equal: func(a, b any) bool { return a == b },
	DescribeOperation: func(input, _ any) string {
		return input.(*operation).String()
	},
	DescribeState: func(state any) string {
		r := state.(register)
		return fmt.Sprintf("%q version %d", short(r.value), r.version)
	},
}

// String is the operation as a history shows it.
func (op *operation) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "client %d %s %s", op.client, opNames[op.kind], op.key)
	if op.kind == opPut || op.kind == opSwap {
		fmt.Fprintf(&b, " = %q", short(op.value))
	}
	if op.kind == opSwap {
		fmt.Fprintf(&b, " if version %d (%q)", op.version, short(op.expect))
	}
	if op.session.ID != 0 {
		fmt.Fprintf(&b, " [session %d, %d]", op.session.ID, op.session.Sequence)
	}
	switch {
	case !op.done:
		b.WriteString(" → unknown")
	case op.kind == opGet:
		fmt.Fprintf(&b, " → %q version %d", short(op.result.value), op.result.version)
	case op.kind == opIncr:
		fmt.Fprintf(&b, " → %d version %d", op.result.integer, op.result.version)
	default:
		fmt.Fprintf(&b, " → failed %v version %d", op.result.failed, op.result.version)
	}
	return b.String()
}

// linearizableWithin bounds the search for an order.
const linearizableWithin = 20 * time.Second

// Check looks for an order of each key's operations that explains what clients
// saw, and returns everything that is wrong with the run. It must be called
// outside of the bubble: it takes real time.
func (o *Outcome) Check() []string {
	var keys []string
	for k := range o.histories {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	problems := slices.Clone(o.Problems)
	for _, k := range keys {
		if text := checkKey(k, o.histories[k]); text != "" {
			problems = append(problems, text)
		}
	}
	return problems
}

func checkKey(key string, ops []*operation) string {
	var history []porcupine.Operation
	for _, op := range ops {
		if !op.done && (!op.write() || !op.unknown) {
			continue // it told nobody anything, and did nothing
		}
		end := op.returned
		if !op.done {
			end = math.MaxInt64
		}
		history = append(history, porcupine.Operation{ClientId: op.client, Input: op, Call: op.called, Return: end})
	}
	switch porcupine.CheckOperationsTimeout(model, history, linearizableWithin) {
	case porcupine.Ok:
		return ""
	case porcupine.Unknown:
		return fmt.Sprintf("whether the history of %s is linearizable was not found out within %v", key, linearizableWithin)
	}
	return fmt.Sprintf("the history of %s is not linearizable:\n%s", key, describe(ops))
}

// describe lists a history in the order of the calls.
func describe(ops []*operation) string {
	ops = slices.Clone(ops)
	slices.SortStableFunc(ops, func(a, b *operation) int { return int(a.called/1000 - b.called/1000) })
	var b strings.Builder
	for _, op := range ops {
		end := "never"
		if op.done {
			end = fmt.Sprintf("%.6f", time.Duration(op.returned).Seconds())
		} else if !op.unknown {
			continue
		}
		fmt.Fprintf(&b, "  %.6f – %s  %v\n", time.Duration(op.called).Seconds(), end, op)
	}
	return b.String()
}
