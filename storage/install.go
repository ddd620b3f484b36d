package storage

import (
	"errors"
	"fmt"
	"slices"
)

// ConfBytesMax bounds InstallMeta.Conf.
const ConfBytesMax = 64 << 10

// Errors of installations.
var (
	// ErrInstalling is returned by BeginInstall while another installation of
	// the shard is open.
	ErrInstalling = errors.New("storage: a snapshot of the shard is already being installed; close or abort that installation first")
	// ErrInstallOver is returned by an Install that was closed, aborted or
	// installed.
	ErrInstallOver = errors.New("storage: the installation has ended; start a new one")
	// ErrIncomplete is wrapped by the error of Install.Finish before the last
	// chunk, and of Store.Install before Finish.
	ErrIncomplete = errors.New("storage: snapshot is not complete")
)

// InstallMeta is what the replicated log needs to go on after a snapshot. It
// is kept with the shard's state.
type InstallMeta struct {
	Index uint64 // of the last entry in the snapshot, at least 1
	Term  uint64 // of that entry
	Conf  []byte // the group's configuration as of then, at most ConfBytesMax
}

// Install receives a snapshot of a shard. It stages the records as tables in a
// directory below the store's, where they harm nothing and can be found again,
// until Store.Install puts them in the place of what the shard has. It is safe
// for use from any goroutine.
type Install struct {
	exclusive
	shard int
	id    uint64
	meta  InstallMeta

	stage    staging
	state    streamState // up to where everything is staged, or is in partial
	source   *meta       // the sender's shard, as its first chunk tells
	partial  []byte      // of the last value, if it has not come in full
	complete bool        // the last chunk has come, and was right
	finished bool

	records    []record // of the chunk at hand
	sessions   sessionIndex
	nextExpiry uint64
	marked     uint64
}

// record is a record of a chunk, or views of one. The key is without the
// shard's number.
type record struct{ key, value []byte }

// BeginInstall begins to receive a snapshot of shard, which the sender's view
// id exports. If an installation of the same shard, id and m was interrupted,
// by Close or the end of the process, it goes on with what that has staged;
// anything else that is staged for the shard is removed. It reads what is
// staged, to be sure of it. m.Conf is copied.
//
// It fails with ErrStaleIndex if shard has applied m.Index already, and with
// ErrInstalling. The Install must be ended by Close, Abort or Store.Install.
func (s *Store) BeginInstall(shard int, id uint64, m InstallMeta) (*Install, error) {
	if err := s.enter(); err != nil {
		return nil, err
	}
	defer s.leave()
	switch {
	case shard < 0 || shard >= len(s.shards):
		return nil, fmt.Errorf("storage: installation of shard %d of %d", shard, len(s.shards))
	case len(m.Conf) > ConfBytesMax:
		return nil, fmt.Errorf("storage: configuration of %d bytes, at most %d are allowed", len(m.Conf), ConfBytesMax)
	}
	if err := s.checkNewer(shard, m.Index); err != nil {
		return nil, err
	}
	m.Conf = slices.Clone(m.Conf)
	in := &Install{exclusive: exclusive{store: s}, shard: shard, id: id, meta: m}
	if err := s.holders.addInstall(in); err != nil {
		return nil, err
	}
	if err := in.pickUp(); err != nil {
		s.holders.removeInstall(in)
		return nil, fmt.Errorf("storage: staging of shard %d: %w", shard, err)
	}
	return in, nil
}

// checkNewer fails if shard would not get ahead by a snapshot at index.
func (s *Store) checkNewer(shard int, index uint64) error {
	if applied := s.Applied(shard); index <= applied {
		return fmt.Errorf("%w: snapshot of shard %d at index %d, applied %d", ErrStaleIndex, shard, index, applied)
	}
	return nil
}

func (h *holders) addInstall(in *Install) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.installs[in.shard] != nil {
		return ErrInstalling
	}
	h.installs[in.shard] = in
	return nil
}

func (h *holders) removeInstall(in *Install) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.installs[in.shard] == in {
		delete(h.installs, in.shard)
	}
}

// Token returns what View.Export needs to go on after the chunks that were
// written, nil before the first. After a restart it is that of the last staged
// table.
func (in *Install) Token() []byte {
	in.mu.Lock()
	defer in.mu.Unlock()
	if in.source == nil {
		return nil
	}
	return in.state.appendTo(nil, in.id)
}

// Write stages the next chunk, which it does not keep. It returns an error that
// wraps ErrChunk, and has done nothing, for what is not that chunk. Any other
// error is of the disk, or ErrInstallOver or ErrClosed: then the installation
// can only be closed or aborted, and begun again.
func (in *Install) Write(b []byte) error {
	if err := in.use(); err != nil {
		return err
	}
	defer in.leave()
	c, err := decodeChunk(b)
	if err == nil {
		err = in.admit(&c)
	}
	if err != nil {
		return fmt.Errorf("%w: shard %d: %w", ErrChunk, in.shard, err)
	}
	next, partial, err := in.parse(&c)
	if err != nil {
		return fmt.Errorf("%w: shard %d, chunk %d: %w", ErrChunk, in.shard, c.sequence, err)
	}
	in.source = &c.meta
	if c.last {
		in.complete = true
		return nil
	}
	if err := in.add(); err != nil {
		return in.broken(err)
	}
	in.state, in.partial = next, partial
	if in.state.left > 0 || in.stage.size < in.store.tableBytes {
		return nil
	}
	return in.broken(in.cut())
}

// broken remembers an error after which the staged tables are not what they
// should be. What progress says of those before is still true.
func (in *Install) broken(err error) error {
	if err != nil {
		in.err = fmt.Errorf("storage: staging of shard %d: %w", in.shard, err)
	}
	return in.err
}

// admit checks that c is the next chunk of the snapshot. The last one may come
// again.
func (in *Install) admit(c *chunk) error {
	switch {
	case c.shard != in.shard:
		return fmt.Errorf("it is of shard %d", c.shard)
	case c.id != in.id:
		return fmt.Errorf("it is of view %x, expected is %x", c.id, in.id)
	case c.sequence != in.state.sequence:
		return fmt.Errorf("its number is %d, expected is %d", c.sequence, in.state.sequence)
	case c.last && in.state.left > 0:
		return errors.New("the stream ends within a record")
	case in.complete && !c.last:
		return errors.New("the stream has ended")
	case in.source != nil && *in.source != c.meta:
		return fmt.Errorf("the shard's state is %+v, but earlier chunks had %+v", c.meta, *in.source)
	case c.meta.applied != in.meta.Index && c.meta.applied != 0:
		// A shard that has applied nothing may be at the index at which its
		// log begins.
		return fmt.Errorf("it is a snapshot at index %d, expected is %d", c.meta.applied, in.meta.Index)
	}
	return nil
}

// parse reads c into records and checks them. It returns what state and partial
// are after the chunk, and changes neither.
func (in *Install) parse(c *chunk) (next streamState, partial []byte, err error) {
	next, partial = in.state.clone(), in.partial
	if in.source == nil {
		next.hash = newStateHash(c.meta)
	}
	in.records = in.records[:0]
	err = next.advance(c.payload, func(part []byte) error {
		value := part
		if next.left > 0 || len(part) < next.value {
			// Beyond its length partial is nobody's.
			partial = append(partial, part...)
			value = partial
		}
		if next.left > 0 {
			return nil
		}
		partial = nil
		return in.addParsed(c, next.key, value)
	})
	if err != nil {
		return next, nil, err
	}
	next.sequence++
	sum := next.hash.sum()
	if c.last {
		sum = next.hash.finish()
	}
	if next.records != c.records || sum != c.sum {
		return next, nil, fmt.Errorf("%d records with checksum %016x, but its header has %d and %016x", next.records, sum, c.records, c.sum)
	}
	return next, partial, nil
}

// addParsed adds a record that has come in full. The key is copied.
func (in *Install) addParsed(c *chunk, key, value []byte) error {
	if key[0] < kindMeta && in.stage.hasState {
		return errors.New("a record after the last one")
	}
	full := append(appendPrefix(make([]byte, 0, shardBytes+len(key)), in.shard, key[0]), key[1:]...)
	if err := checkRecord(full, value, c.meta); err != nil {
		return err
	}
	in.records = append(in.records, record{full, value})
	return nil
}

// add stages the records of a chunk.
func (in *Install) add() error {
	defer clear(in.records)
	for _, r := range in.records {
		if r.key[shardBytes] > kindMeta {
			if err := in.addState(); err != nil {
				return err
			}
		}
		if err := in.stage.add(r.key, r.value); err != nil {
			return err
		}
	}
	return nil
}

// addState stages, in their place among the records, the shard's state and
// what the log needs.
func (in *Install) addState() error {
	if in.stage.hasState {
		return nil
	}
	in.stage.hasState = true
	if err := in.stage.add(appendPrefix(nil, in.shard, kindInstall), appendInstallMeta(nil, in.meta)); err != nil {
		return err
	}
	var b [metaBytes]byte
	in.stateAfter().put(b[:])
	return in.stage.add(appendPrefix(nil, in.shard, kindMeta), b[:])
}

// stateAfter returns the shard's state right after the installation.
func (in *Install) stateAfter() meta {
	m := *in.source
	m.applied = in.meta.Index
	return m
}

// cut completes the table at hand and notes how far the installation has got.
// There is no partial value.
func (in *Install) cut() error {
	if err := in.stage.completeTable(); err != nil {
		return err
	}
	return in.stage.writeProgress(in.progress())
}

func (in *Install) progress() progress {
	return progress{
		shard:    in.shard,
		id:       in.id,
		meta:     in.meta,
		source:   *in.source,
		hasState: in.stage.hasState,
		sizes:    in.stage.sizes,
		token:    in.state.appendTo(nil, in.id),
	}
}

// Finish completes and syncs the staged tables when the whole stream has been
// written, reads what of them must be in memory, and makes what the shard has
// applied durable, so that Store.Install need not. It may take as long as a
// flush. It fails, wrapping ErrIncomplete, before the last chunk. Finishing
// again does nothing.
func (in *Install) Finish() error {
	if err := in.use(); err != nil {
		return err
	}
	defer in.leave()
	if in.finished {
		return nil
	}
	if !in.complete {
		return fmt.Errorf("%w: shard %d: the last of the %d chunks received was not the final one", ErrIncomplete, in.shard, in.state.sequence)
	}
	if err := in.completeTables(); err != nil {
		return in.broken(err)
	}
	in.sessions.clear()
	in.nextExpiry, in.marked = never, 0
	if err := in.stage.scan(in.notice); err != nil {
		return in.broken(err)
	}
	in.sessions.link()
	if in.store.Durable(in.shard) < in.store.Applied(in.shard) {
		if err := in.store.flush(); err != nil {
			return err
		}
	}
	in.finished = true
	return nil
}

func (in *Install) completeTables() error {
	if err := in.addState(); err != nil {
		return err
	}
	return in.cut()
}

// notice keeps of a staged record what the store has in memory of it.
func (in *Install) notice(key, value []byte) error {
	switch key[shardBytes] {
	case kindExpiry:
		at, _, err := splitExpiryKey(key)
		in.nextExpiry = min(in.nextExpiry, at)
		return err
	case kindMark:
		bucket, revision, err := decodeMark(key, value)
		if err == nil && bucket == markedSince {
			in.marked = revision + 1
		}
		return err
	case kindSession:
		return in.sessions.add(key, value)
	}
	return nil
}

// Close ends the work on the installation and keeps what is staged: a later
// BeginInstall goes on with it. After Abort, Store.Install, Store.Close or
// another Close it does nothing.
func (in *Install) Close() error { return in.end(false) }

// Abort ends the installation and removes what it has staged.
func (in *Install) Abort() error { return in.end(true) }

func (in *Install) end(remove bool) error {
	if in.store.enter() != nil {
		return nil // the store has closed it, or is about to
	}
	defer in.store.leave()
	in.mu.Lock()
	defer in.mu.Unlock()
	if errors.Is(in.err, ErrInstallOver) {
		return nil
	}
	err := in.release()
	if remove {
		err = errors.Join(err, in.stage.remove())
	}
	in.store.holders.removeInstall(in)
	return err
}

// release lets go of files and memory. The caller holds mu.
func (in *Install) release() error {
	if errors.Is(in.err, ErrInstallOver) {
		return nil
	}
	in.err = ErrInstallOver
	in.partial, in.records, in.sessions = nil, nil, sessionIndex{}
	return in.stage.close()
}
