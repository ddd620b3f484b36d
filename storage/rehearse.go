package storage

import "github.com/proa-kv/proa/command"

// Rehearsal carries out commands of any shards one after the other, each on
// what those before it have made, and undoes them all: whoever proposes a
// command over several shards sees what it comes to, and can leave each shard a
// part that depends on nothing but that shard.
//
// What it sees is the state as Apply has left it. It is for the goroutine that
// calls Apply, and must end before the next Apply.
type Rehearsal struct {
	pass  *pass
	stamp uint64
	size  int // of the results, see command.ResultBytesMax
}

// Rehearse begins a Rehearsal at the time of stamp, Unix milliseconds: that of
// the entries to come. kind is that of the command whose operations are to be
// carried out: Batch, Txn or Rename.
func (s *Store) Rehearse(stamp uint64, kind command.Kind) (*Rehearsal, error) {
	if err := s.enter(); err != nil {
		return nil, err
	}
	p := &s.pass
	p.begin()
	p.entry, p.grown, p.counts, p.alone = 1, 0, kind != command.Txn, true
	return &Rehearsal{pass: p, stamp: stamp}, nil
}

// End forgets everything. Results that were made are not valid any more.
func (r *Rehearsal) End() {
	r.pass.counts = false
	r.pass.end()
	r.pass.store.leave()
}

// at has the pass work on a shard.
func (r *Rehearsal) at(shard int) *pass {
	p := r.pass
	p.shard, p.state = shard, p.touch(shard)
	p.state.stamp = max(p.state.stamp, r.stamp)
	p.now = p.state.stamp
	return p
}

// Compare reports whether x, whose key is of shard, holds.
func (r *Rehearsal) Compare(shard int, x *command.Compare) (bool, error) {
	holds, err := r.at(shard).compare(x)
	return holds, r.pass.store.damaged(shard, err)
}

// Do carries out c, whose keys are of shard. out is valid until End.
func (r *Rehearsal) Do(shard int, c *command.Command, out *command.Result) error {
	err := r.at(shard).carryOut(c, out)
	r.size += outcomeBytes + len(out.Value)
	return err
}

// Fits reports whether the results so far fit in one reply, as those of a Txn
// that is Whole must.
func (r *Rehearsal) Fits() bool { return r.size <= command.ResultBytesMax }

// Weight returns how many bytes of values have been read and made so far.
func (r *Rehearsal) Weight() int { return r.pass.bytes.taken }

// Row tells of a row as it is now. The value is valid until End.
func (r *Rehearsal) Row(shard int, key []byte) (value []byte, version, expireAt uint64, exists bool, err error) {
	p := r.at(shard)
	row := p.find(key)
	if err := p.load(row, true); err != nil || !p.visible(row) {
		return nil, 0, 0, false, p.store.damaged(shard, err)
	}
	return row.value, row.version, row.expireAt, true, nil
}

// Replay reports whether the write of a session that c names was carried out
// before in shard, or may have been; out then says with which result. digest is
// that of c as it was carried out in the shard, or 0, if whether it was c is for
// Apply to see. out is valid until End.
func (r *Rehearsal) Replay(shard int, c *command.Command, digest uint64, out *command.Result) (bool, error) {
	p := r.at(shard)
	p.digest = digest
	if s := p.store.shards[shard].sessions.byID[c.Session.ID]; s != nil && digest == 0 {
		if at, found := s.search(c.Session.Sequence); found {
			p.digest = s.records[at].digest
		}
	}
	done, err := p.replay(shard, c, out)
	return done, p.store.damaged(shard, err)
}
