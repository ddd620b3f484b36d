package storage

import (
	"bytes"
	"slices"

	"github.com/proa-kv/proa/command"
)

// Commands that make a large row out of a small command: Append, SetRange,
// IncrFloat, SetExpiry, Rename. What they read and make is bounded twice. Of
// one entry by growthBytesMax: what comes after that in the entry is answered
// Busy, on all replicas alike, since it depends on the entry and the rows
// alone. Of several entries by writeBatchGrowthMax: then the rest of them waits for
// the next write batch.
const (
	// growthBytesMax is about what the largest entry brings with it by itself.
	growthBytesMax      = 64 << 20
	writeBatchGrowthMax = growthBytesMax
)

// takeRow loads the row of key, with its value. Where the entry has grown as
// far as it may it returns false, and out says so; nothing was loaded.
func (ex *executor) takeRow(key []byte, out *command.Result) (r *row, ok bool, err error) {
	if ex.grown > growthBytesMax-command.ValueBytesMax {
		out.Status = command.Busy
		return nil, false, nil
	}
	r = ex.find(key)
	if err := ex.load(r, true); err != nil {
		return nil, false, err
	}
	if r.counted != ex.entry {
		r.counted = ex.entry
		ex.grown += len(r.value)
	}
	if r.visible(ex.now) {
		out.Version = r.version
	}
	return r, true, nil
}

// takeVisible is takeRow for a command that finds nothing where the row is not
// visible.
func (ex *executor) takeVisible(key []byte, out *command.Result) (r *row, ok bool, err error) {
	if r, ok, err = ex.takeRow(key, out); ok && !r.visible(ex.now) {
		out.Status, ok = command.NotFound, false
	}
	return r, ok, err
}

func (ex *executor) append(c *command.Command, out *command.Result) error {
	r, ok, err := ex.takeRow(c.Key, out)
	if !ok {
		return err
	}
	old := r.present(ex.now)
	n := len(old) + len(c.Value)
	if n > command.ValueBytesMax {
		out.Status = command.TooLarge
		return nil
	}
	ex.grown += len(c.Value)
	ex.replace(r, append(ex.extensible(old, n, r.dirty), c.Value...), r.expiry(ex.now))
	out.Version, out.Integer = r.version, int64(n)
	return nil
}

// extensible returns value with room for n bytes in all. A value that has
// spare room is its row's alone, and what was delivered of it before ends
// before that room. A row that was changed in this write batch already gets more than
// it needs, so that many small additions do not each copy the whole.
func (b *writeBatch) extensible(value []byte, n int, again bool) []byte {
	if n <= cap(value) {
		return value
	}
	room := n
	if again {
		room = min(2*n, command.ValueBytesMax)
	}
	grown := b.bytes.alloc(room)[:len(value)]
	copy(grown, value)
	return grown
}

func (ex *executor) setRange(c *command.Command, out *command.Result) error {
	r, ok, err := ex.takeRow(c.Key, out)
	if !ok {
		return err
	}
	old := r.present(ex.now)
	if len(c.Value) == 0 {
		out.Integer = int64(len(old))
		return nil
	}
	end := uint64(c.Offset) + uint64(len(c.Value))
	if end > command.ValueBytesMax {
		out.Status = command.TooLarge
		return nil
	}
	// What was delivered of the old value must stay as it was: a copy.
	value := ex.bytes.alloc(max(len(old), int(end)))
	ex.grown += len(value)
	clear(value[copy(value, old):])
	copy(value[c.Offset:], c.Value)
	ex.replace(r, value, r.expiry(ex.now))
	out.Version, out.Integer = r.version, int64(len(value))
	return nil
}

func (ex *executor) incrFloat(c *command.Command, out *command.Result) error {
	r, ok, err := ex.takeRow(c.Key, out)
	if !ok {
		return err
	}
	old := zero
	if r.visible(ex.now) {
		old = r.value
	}
	sum, status := command.AddFloat(nil, old, c.Value)
	if status != command.OK {
		out.Status = status
		return nil
	}
	ex.grown += len(sum)
	ex.replace(r, sum, r.expiry(ex.now))
	out.Version = r.version
	r.show(out, ex.now, true)
	return nil
}

// zero is what an absent row counts as for IncrFloat.
var zero = []byte("0")

func (ex *executor) rename(c *command.Command, out *command.Result) error {
	from, ok, err := ex.takeVisible(c.Key, out)
	if !ok {
		return err
	}
	ifAbsent := c.Flags&command.RenameIfAbsent != 0
	if bytes.Equal(c.Key, c.Value) {
		if ifAbsent {
			out.Status = command.ConditionFailed
		}
		return nil
	}
	// Without the room behind it, which is the source's.
	value, expireAt := slices.Clip(from.value), from.expireAt
	to := ex.find(c.Value) // from is not valid any more
	if err := ex.load(to, false); err != nil {
		return err
	}
	if ifAbsent && to.visible(ex.now) {
		out.Status, out.Version = command.ConditionFailed, to.version
		return nil
	}
	ex.grown += len(value)
	ex.move(c, value, expireAt)
	out.Version = ex.find(c.Value).version
	return nil
}

// move gives the loaded destination of a Rename its value and expiry, and
// removes the source unless it is to be kept.
func (ex *executor) move(c *command.Command, value []byte, expireAt uint64) {
	// Nobody may see the source gone and the destination not there.
	within := ex.joint
	ex.joint = true
	defer func() { ex.joint = within }()
	if c.Flags&command.RenameKeepSource == 0 {
		ex.remove(ex.find(c.Key))
	}
	ex.replace(ex.find(c.Value), value, expireAt)
}
