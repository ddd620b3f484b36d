package dragonboat

import (
	"errors"
	"fmt"
	"io"
	"math"
	"time"

	"github.com/lni/dragonboat/v4/statemachine"

	"github.com/proa-kv/proa/command"
	"github.com/proa-kv/proa/raftgroup/engine"
	"github.com/proa-kv/proa/storage"
)

// machine is a shard's part of the store as dragonboat sees it. Its methods are called by
// dragonboat's workers; an error that they returned would be a panic there, so they have
// the node fail, and say that all is well: see nodeHost.failed.
type machine struct {
	shard    *shard
	unloaded chan struct{} // closed when dragonboat has let go of it
}

var _ statemachine.IOnDiskStateMachine = machine{}

// fail has the node fail.
func (m machine) fail(err error) {
	m.shard.engine.host.Fail(fmt.Errorf("%s: %w", m.shard.engine.ShardName(m.shard.number), err))
}

// Open returns the index up to which the store has the shard durably.
func (m machine) Open(<-chan struct{}) (uint64, error) {
	return m.shard.engine.Store.Applied(m.shard.number), nil
}

// Update carries committed entries out, and delivers the outcomes of commands.
func (m machine) Update(entries []statemachine.Entry) ([]statemachine.Entry, error) {
	s := m.shard
	e := s.engine
	if !e.failed() {
		if err := m.update(entries); err != nil {
			m.fail(err)
		}
		e.request(repliesDue)
	}
	m.drive(entries[len(entries)-1].Index)
	return entries, nil
}

// drive has replies written, the state being at an index, if it is the last state to get
// there; see replies.
func (m machine) drive(index uint64) {
	if e := m.shard.engine; e.replies.applied(m.shard.number, index) {
		e.host.Drive()
	}
}

func (m machine) update(entries []statemachine.Entry) error {
	s := m.shard
	e := s.engine
	e.applying.Lock()
	defer e.applying.Unlock()
	if s.down.Load() { // another replica takes this one's place, and the state may have been given up
		return nil
	}
	alone := s.Sole.Load() || e.State.Is(engine.Alone) // who the members are is known later than what is replayed
	waiting := make([]*proposed, 0, 16)
	rows := false
	for i := range entries {
		data, start, number, err := cutName(entries[i].Cmd)
		if err != nil {
			return err
		}
		var done []engine.Completion
		if start == e.start {
			if p := s.resolve(number); p != nil {
				waiting, done = append(waiting, p), p.done
			}
		}
		if len(data) == 0 {
			data = nil
		}
		rows = rows || data != nil
		e.applier.Add(storage.Entry{Shard: s.number, Index: entries[i].Index, Data: data, Alone: alone}, done)
		mark := command.IsMark(data)
		if !mark && i < len(entries)-1 {
			continue
		}
		if err := m.apply(); err != nil {
			return err
		}
		if mark {
			e.await(func() { e.host.MarkApplied(s.number, entries[i].Index) })
		}
	}
	for _, p := range waiting {
		p.ended.Store(true)
	}
	if rows && s.number == e.Meta() {
		return m.mapApplied()
	}
	return nil
}

// apply carries out what has been added.
func (m machine) apply() error {
	s := m.shard
	e := s.engine
	n := e.applier.Len()
	last := e.applier.Entry(n - 1).Index
	err := e.applier.Apply(e.Store, 0, n)
	if errors.Is(err, storage.ErrDamaged) {
		s.down.Store(true)
		e.applier.Reset(command.TimedOut) // others carry it out
		e.Post(func() { s.breakDown() })
		return nil
	}
	if err != nil {
		return err
	}
	e.applier.Reset(command.Lost) // all have theirs
	s.queue.Reuse(nil, e.applier.Recycle())
	s.Applied.Store(last)
	return nil
}

// mapApplied has the control plane take in new rows of the meta group.
func (m machine) mapApplied() (err error) {
	e := m.shard.engine
	e.await(func() {
		for _, s := range e.shards {
			s.reconcileAt = 0
		}
		err = e.host.MapApplied()
	})
	return err
}

// Lookup is not used: reads go to the store.
func (m machine) Lookup(any) (any, error) { return nil, errors.ErrUnsupported }

// Sync makes durable what has been applied. dragonboat forgets entries behind what it was
// told is durable.
func (m machine) Sync() error {
	s := m.shard
	for !s.down.Load() && !s.engine.failed() {
		applied := s.engine.Store.Applied(s.number)
		if s.engine.Store.Durable(s.number) >= applied {
			return nil
		}
		if err := s.engine.Store.Flush(); err != nil {
			m.fail(err)
		}
	}
	return nil
}

// Close does nothing; the store is the node's.
func (m machine) Close() error {
	m.drive(math.MaxUint64)
	close(m.unloaded)
	return nil
}

// PrepareSnapshot fixes the state that is to be sent.
func (m machine) PrepareSnapshot() (any, error) {
	if m.shard.down.Load() {
		return nil, statemachine.ErrSnapshotStreaming
	}
	return m.shard.engine.Store.OpenView(m.shard.number)
}

// SaveSnapshot writes the state that was fixed.
func (m machine) SaveSnapshot(fixed any, w io.Writer, stopped <-chan struct{}) error {
	view, ok := fixed.(*storage.View)
	if !ok {
		return statemachine.ErrSnapshotStreaming
	}
	defer view.Close()
	if err := writeState(w, view, stopped); err != nil {
		m.shard.logger.Warn("snapshot was not delivered", "error", err)
		return statemachine.ErrSnapshotStreaming
	}
	return nil
}

// RecoverFromSnapshot puts a state that was received in the place of what was there.
func (m machine) RecoverFromSnapshot(r io.Reader, stopped <-chan struct{}) error {
	s := m.shard
	e := s.engine
	started := time.Now()
	index, in, err := readState(r, e.Store, s.number, stopped)
	if errors.Is(err, statemachine.ErrSnapshotStopped) {
		return err
	}
	if err == nil {
		err = m.install(in)
	}
	if err != nil {
		m.fail(err)
		return statemachine.ErrSnapshotStopped
	}
	s.Applied.Store(index)
	m.drive(index)
	s.logger.Info("snapshot installed", "index", index, "took", time.Since(started))
	return nil
}

func (m machine) install(in *storage.Install) error {
	e := m.shard.engine
	e.applying.Lock()
	err := e.Store.Install(in)
	e.applying.Unlock()
	if err == nil && m.shard.number == e.Meta() {
		err = m.mapApplied()
	}
	return err
}
