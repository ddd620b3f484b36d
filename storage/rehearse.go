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
	ex    *executor
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
	ex := &s.executor
	ex.begin()
	ex.entry, ex.grown, ex.counts, ex.alone = 1, 0, kind != command.Txn, true
	return &Rehearsal{ex: ex, stamp: stamp}, nil
}

// End forgets everything. Results that were made are not valid any more.
func (r *Rehearsal) End() {
	r.ex.counts = false
	r.ex.end()
	r.ex.store.leave()
}

// at has the executor work on a shard.
func (r *Rehearsal) at(shard int) *executor {
	ex := r.ex
	ex.shard, ex.state = shard, ex.touch(shard)
	ex.state.stamp = max(ex.state.stamp, r.stamp)
	ex.now = ex.state.stamp
	return ex
}

// Compare reports whether x, whose key is of shard, holds.
func (r *Rehearsal) Compare(shard int, x *command.Compare) (bool, error) {
	holds, err := r.at(shard).compare(x)
	return holds, r.ex.store.damaged(shard, err)
}

// Do carries out c, whose keys are of shard. out is valid until End.
func (r *Rehearsal) Do(shard int, c *command.Command, out *command.Result) error {
	err := r.at(shard).execute(c, out)
	r.size += outcomeBytes + len(out.Value)
	return err
}

// Fits reports whether the results so far fit in one reply, as those of a Txn
// that is Whole must.
func (r *Rehearsal) Fits() bool { return r.size <= command.ResultBytesMax }

// Weight returns how many bytes of values have been read and made so far.
func (r *Rehearsal) Weight() int { return r.ex.bytes.taken }

// Row tells of a row as it is now. The value is valid until End.
func (r *Rehearsal) Row(shard int, key []byte) (value []byte, version, expireAt uint64, exists bool, err error) {
	ex := r.at(shard)
	row := ex.find(key)
	if err := ex.load(row, true); err != nil || !row.visible(ex.now) {
		return nil, 0, 0, false, ex.store.damaged(shard, err)
	}
	return row.value, row.version, row.expireAt, true, nil
}

// Replay reports whether the write of a session that c names was carried out
// before in shard, or may have been; out then says with which result. digest is
// that of c as it was carried out in the shard, or 0, if whether it was c is for
// Apply to see. out is valid until End.
func (r *Rehearsal) Replay(shard int, c *command.Command, digest uint64, out *command.Result) (bool, error) {
	ex := r.at(shard)
	ex.digest = digest
	if s := ex.store.shards[shard].sessions.byID[c.Session.ID]; s != nil && digest == 0 {
		if at, found := s.search(c.Session.Sequence); found {
			ex.digest = s.records[at].digest
		}
	}
	done, err := ex.replay(shard, c, out)
	return done, ex.store.damaged(shard, err)
}
