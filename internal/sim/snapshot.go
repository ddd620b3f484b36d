package sim

import (
	"errors"
	"slices"
	"testing/synctest"
	"time"

	"github.com/proa-kv/proa/raftgroup/engine"
)

// transfer is a snapshot on its way. A goroutine of its own carries it, and
// waits for an event before each step.
type transfer struct {
	sim      *simulation
	from, to *member
	lives    [2]int
	snapshot engine.OutgoingSnapshot
	resume   chan error // capacity 1
	expects  bool       // the goroutine waits for resume
	ended    bool
	err      error // how it has ended
}

var errBroken = errors.New("connection broken")

// SendSnapshot begins to send a snapshot a little later.
func (l *link) SendSnapshot(node uint64, o engine.OutgoingSnapshot) {
	s, to := l.sim, l.to(node)
	if to == nil || s.over {
		o.Done(errBroken)
		return
	}
	t := &transfer{sim: s, from: l.from, to: to, snapshot: o, resume: make(chan error, 1)}
	t.lives = [2]int{l.from.life, to.life}
	s.countTransfers()
	s.transfers = append(s.transfers, t)
	t.expects = true
	s.note("%d → %d a snapshot", l.from.id, node)
	t.planStep()
	go t.run()
}

// whole reports whether both ends are what they were, and can reach each other.
func (t *transfer) whole() bool {
	return t.from.node != nil && t.to.node != nil && t.lives == [2]int{t.from.life, t.to.life} &&
		t.sim.open(t.from.id, t.to.id) && t.sim.open(t.to.id, t.from.id)
}

// step has the goroutine take its next step.
func (t *transfer) step() {
	switch {
	case !t.expects:
	case !t.whole() || t.sim.loading && t.sim.chance(0.1):
		t.proceed(errBroken)
	case t.from.paused || t.to.paused:
		t.planStep()
	default:
		t.proceed(nil)
	}
}

func (t *transfer) planStep() { t.sim.after(t.sim.between(0, 20*time.Millisecond), t.step) }

func (t *transfer) proceed(err error) {
	if t.expects {
		t.expects = false
		t.resume <- err
	}
}

// wait waits for the next step.
func (t *transfer) wait() error {
	if t.sim.over {
		return errBroken
	}
	t.expects = true
	t.planStep()
	return <-t.resume
}

func (t *transfer) run() {
	err := <-t.resume
	if err == nil {
		err = t.carry()
	}
	t.snapshot.Done(err)
	t.err, t.ended = err, true
}

func (t *transfer) carry() error {
	node := t.to.node
	if node == nil {
		return errBroken
	}
	in, token, err := node.BeginSnapshot(t.from.id, t.snapshot.Header())
	if err != nil {
		return err
	}
	err = t.snapshot.Export(token, func(chunk []byte) error {
		if err := t.wait(); err != nil {
			return err
		}
		return in.Write(chunk)
	})
	if err == nil {
		err = t.wait()
	}
	if err != nil {
		in.Abort()
		return err
	}
	return in.Finish()
}

// breakTransfers ends those that a member takes part in, nil: all.
func (s *simulation) breakTransfers(m *member) {
	for _, t := range s.transfers {
		if m == nil || t.from == m || t.to == m {
			t.proceed(errBroken)
			synctest.Wait()
		}
	}
	s.countTransfers()
}

// countTransfers forgets those that have ended.
func (s *simulation) countTransfers() {
	s.transfers = slices.DeleteFunc(s.transfers, func(t *transfer) bool {
		if t.ended && t.err == nil {
			s.stats.Snapshots++
		}
		return t.ended
	})
}
