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
// alone. Of several entries by passGrowthMax: then the rest of them waits for
// the next pass.
const (
	// growthBytesMax is about what the largest entry brings with it by itself.
	growthBytesMax = 64 << 20
	passGrowthMax  = growthBytesMax
)

// takeRow loads the row of key, with its value. Where the entry has grown as
// far as it may it returns false, and out says so; nothing was loaded.
func (p *pass) takeRow(key []byte, out *command.Result) (r *row, ok bool, err error) {
	if p.grown > growthBytesMax-command.ValueBytesMax {
		out.Status = command.Busy
		return nil, false, nil
	}
	r = p.find(key)
	if err := p.load(r, true); err != nil {
		return nil, false, err
	}
	if r.counted != p.entry {
		r.counted = p.entry
		p.grown += len(r.value)
	}
	if p.visible(r) {
		out.Version = r.version
	}
	return r, true, nil
}

// replace makes value the new one of the loaded row r, which keeps its expiry
// where it is visible.
func (p *pass) replace(r *row, value []byte) {
	var expireAt, indexed uint64
	if r.exists {
		indexed = r.expireAt
	}
	if p.visible(r) {
		expireAt = r.expireAt
	}
	p.write(r, value, expireAt)
	p.reindex(r.key, indexed, expireAt)
}

// present is the value that r has for a command that takes an absent row for an
// empty one.
func (p *pass) present(r *row) []byte {
	if !p.visible(r) {
		return nil
	}
	return r.value
}

func (p *pass) append(c *command.Command, out *command.Result) error {
	r, ok, err := p.takeRow(c.Key, out)
	if !ok {
		return err
	}
	old := p.present(r)
	n := len(old) + len(c.Value)
	if n > command.ValueBytesMax {
		out.Status = command.TooLarge
		return nil
	}
	p.grown += len(c.Value)
	p.replace(r, append(p.extensible(old, n, r.dirty), c.Value...))
	out.Version, out.Integer = r.version, int64(n)
	return nil
}

// extensible returns value with room for n bytes in all. A value that has
// spare room is its row's alone, and what was delivered of it before ends
// before that room. A row that was changed in this pass already gets more than
// it needs, so that many small additions do not each copy the whole.
func (p *pass) extensible(value []byte, n int, again bool) []byte {
	if n <= cap(value) {
		return value
	}
	room := n
	if again {
		room = min(2*n, command.ValueBytesMax)
	}
	grown := p.bytes.alloc(room)[:len(value)]
	copy(grown, value)
	return grown
}

func (p *pass) setRange(c *command.Command, out *command.Result) error {
	r, ok, err := p.takeRow(c.Key, out)
	if !ok {
		return err
	}
	old := p.present(r)
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
	value := p.bytes.alloc(max(len(old), int(end)))
	p.grown += len(value)
	clear(value[copy(value, old):])
	copy(value[c.Offset:], c.Value)
	p.replace(r, value)
	out.Version, out.Integer = r.version, int64(len(value))
	return nil
}

func (p *pass) incrFloat(c *command.Command, out *command.Result) error {
	r, ok, err := p.takeRow(c.Key, out)
	if !ok {
		return err
	}
	old := zero
	if p.visible(r) {
		old = r.value
	}
	sum, status := command.AddFloat(nil, old, c.Value)
	if status != command.OK {
		out.Status = status
		return nil
	}
	p.grown += len(sum)
	p.replace(r, sum)
	out.Version = r.version
	p.show(r, out, true)
	return nil
}

// zero is what an absent row counts as for IncrFloat.
var zero = []byte("0")

func (p *pass) rename(c *command.Command, out *command.Result) error {
	from, ok, err := p.takeRow(c.Key, out)
	if !ok {
		return err
	}
	if !p.visible(from) {
		out.Status = command.NotFound
		return nil
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
	to := p.find(c.Value) // from is not valid any more
	if err := p.load(to, false); err != nil {
		return err
	}
	if ifAbsent && p.visible(to) {
		out.Status, out.Version = command.ConditionFailed, to.version
		return nil
	}
	p.grown += len(value)
	p.move(c, value, expireAt)
	out.Version = p.find(c.Value).version
	return nil
}

// move gives the loaded destination of a Rename its value and expiry, and
// removes the source unless it is to be kept.
func (p *pass) move(c *command.Command, value []byte, expireAt uint64) {
	// Nobody may see the source gone and the destination not there.
	within := p.joint
	p.joint = true
	defer func() { p.joint = within }()
	if c.Flags&command.RenameKeepSource == 0 {
		from := p.find(c.Key)
		p.remove(from)
		p.reindex(from.key, expireAt, 0)
	}
	to := p.find(c.Value)
	var indexed uint64
	if to.exists {
		indexed = to.expireAt
	}
	p.write(to, value, expireAt)
	p.reindex(to.key, indexed, expireAt)
}
