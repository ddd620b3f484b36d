package storage

import (
	"github.com/proa-kv/proa/command"
	"github.com/proa-kv/proa/storage/memtable"
)

// undo remembers what a command changes in the write batch, for one that may turn out
// to be impossible when it is half done.
type undo struct {
	on     bool
	state  shardChanges
	staged int
	rows   []row // as they were before each change, in order
}

// begin has changes remembered from now on.
func (u *undo) begin(ex *executor) {
	u.on, u.state, u.staged = true, *ex.state, len(ex.staged)
}

// keep remembers r, which is about to be changed.
func (u *undo) keep(r *row) {
	if u.on {
		u.rows = append(u.rows, *r)
	}
}

// end forgets what was remembered; the changes stay.
func (u *undo) end() {
	clear(u.rows)
	u.on, u.rows = false, u.rows[:0]
}

// rollBack takes all changes since begin back.
func (u *undo) rollBack(ex *executor) {
	for i := len(u.rows) - 1; i >= 0; i-- {
		was := &u.rows[i]
		*ex.rows.find(was.shard, was.key, was.hash) = *was
	}
	*ex.state = u.state
	ex.staged = ex.staged[:u.staged]
	clear(ex.marks)
	for i := range ex.staged {
		if r := &ex.staged[i]; r.list == memtable.Marks {
			ex.noteMark(r.key, r.value)
		}
	}
}

// outcomeBytes is what the outcome of an operation takes in a reply beside its
// value, at most.
const outcomeBytes = 40

// whole carries out ops if their results fit in one reply, and otherwise, or
// where one of them is Busy or Damaged, none of them.
func (ex *executor) whole(ops []command.Command, out *command.Result) error {
	ex.undo.begin(ex)
	defer ex.undo.end()
	ex.joint = len(ops) > 1
	defer func() { ex.joint = false }()
	results, size := ex.allocResults(len(ops)), 0
	for i := range ops {
		r := &results[i]
		if err := ex.execute(&ops[i], r); err != nil {
			return err
		}
		size += outcomeBytes + len(r.Value)
		status := r.Status
		if size > command.ResultBytesMax {
			status = command.TooLarge
		} else if status != command.Busy && status != command.Damaged {
			continue
		}
		ex.undo.rollBack(ex)
		out.Status, out.Succeeded = status, false
		return nil
	}
	out.Results = results
	return nil
}
