package storage

import (
	"cmp"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"

	"github.com/cockroachdb/pebble/v2"

	"github.com/proa-kv/proa/command"
	"github.com/proa-kv/proa/internal/fields"
	"github.com/proa-kv/proa/storage/memtable"
)

// Sessions make a retried write take effect once (D4). Each write with a
// session leaves a record of its result under (session, sequence); a write
// whose record exists is answered from it, if it asks for the same: a client
// that uses a number twice is told so (SessionMismatch), not given the outcome
// of something else. Records go away when the client
// says that it will not ask again (Acknowledged), when the session has been
// unused for the retention time (Sweep), and past the bounds below.
//
// The floor of a session is the sequence up to which missing records were
// dropped: a write at or below it without a record is answered
// SessionExpired, since it may have had its effect. Each record carries the
// floor and the stamp of its write, and the newest record of a session is
// never dropped before the session, so that the index in memory can be rebuilt
// from the records alone. The bounds are constants because all replicas must
// drop the same records.
const (
	// sessionRecordsMax bounds the records of one session in one shard; the
	// lowest sequence goes first. It bounds how many writes a client that
	// never acknowledges may have under way.
	sessionRecordsMax = 1024
	// sessionsMax bounds the sessions of one shard; the one unused for longest
	// goes first.
	sessionsMax = 32 << 10
	// sessionValueBytesMax bounds the values kept in one record. If they are
	// longer in sum, a retry is answered without them (Result.RowOmitted).
	sessionValueBytesMax = 1 << 10

	sessionRecordFormat      = 1
	sessionRecordHeaderBytes = 1 + 8 + 8 // format, stamp, floor
)

// sessionIndex knows the sessions of a shard. Only Apply uses it.
type sessionIndex struct {
	byID map[uint64]*session
	// The list is in the order of use, the oldest first; stamps of a shard
	// never fall, so it is in the order of lastUse, too.
	first, last *session
}

type session struct {
	id       uint64
	floor    uint64
	lastUse  uint64         // stamp
	records  []sessionEntry // in the order of their sequences
	next     *session
	previous *session
}

// sessionEntry says that there is a record. Until the write batch that wrote it is
// published the database does not have it; pending is its place there.
type sessionEntry struct {
	sequence   uint64
	digest     uint64 // of the request, 0: not known
	writeBatch uint64
	pending    int
}

// clear forgets all sessions.
func (x *sessionIndex) clear() { *x = sessionIndex{byID: make(map[uint64]*session)} }

// load reads the records of shard.
func (x *sessionIndex) load(db *pebble.DB, shard int) (err error) {
	x.clear()
	it, err := db.NewIter(&pebble.IterOptions{
		LowerBound: appendPrefix(nil, shard, kindSession),
		UpperBound: appendPrefix(nil, shard, kindSession+1),
	})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, it.Close()) }()
	for it.First(); it.Valid(); it.Next() {
		record, err := it.ValueAndErr()
		if err != nil {
			return err
		}
		if err := x.add(it.Key(), record); err != nil {
			return err
		}
	}
	x.link()
	return it.Error()
}

// add adds a record that the database has. They come in the order of their
// keys; link follows the last.
func (x *sessionIndex) add(key, record []byte) error {
	id, sequence, digest, err := splitSessionKey(key)
	if err != nil {
		return err
	}
	stamp, floor, _, err := splitSessionRecord(record)
	if err != nil {
		return err
	}
	s := x.byID[id]
	if s == nil {
		s = &session{id: id}
		x.byID[id] = s
	}
	s.floor = max(s.floor, floor)
	s.lastUse = max(s.lastUse, stamp)
	s.records = append(s.records, sessionEntry{sequence: sequence, digest: digest})
	return nil
}

// link builds the list.
func (x *sessionIndex) link() {
	all := make([]*session, 0, len(x.byID))
	for _, s := range x.byID {
		all = append(all, s)
	}
	slices.SortFunc(all, compareUse)
	for _, s := range all {
		x.push(s)
	}
}

// compareUse orders sessions by their last use, and by number where a stamp is
// shared: the place in the list depends on what happened since the last start.
func compareUse(a, b *session) int {
	return cmp.Or(cmp.Compare(a.lastUse, b.lastUse), cmp.Compare(a.id, b.id))
}

func (x *sessionIndex) push(s *session) {
	s.previous, s.next = x.last, nil
	if x.last != nil {
		x.last.next = s
	} else {
		x.first = s
	}
	x.last = s
}

func (x *sessionIndex) unlink(s *session) {
	if s.previous != nil {
		s.previous.next = s.next
	} else {
		x.first = s.next
	}
	if s.next != nil {
		s.next.previous = s.previous
	} else {
		x.last = s.previous
	}
}

// oldest returns the last use of the session unused for longest.
func (x *sessionIndex) oldest() uint64 {
	if x.first == nil {
		return never
	}
	return x.first.lastUse
}

// touch returns the session id, new or old, as the one used last.
func (x *sessionIndex) touch(id, stamp uint64) *session {
	s := x.byID[id]
	if s == nil {
		s = &session{id: id}
		x.byID[id] = s
	} else {
		x.unlink(s)
	}
	s.lastUse = stamp
	x.push(s)
	return s
}

// leastUsed returns the session to drop in favour of keep.
func (x *sessionIndex) leastUsed(keep *session) *session {
	var least *session
	for s := x.first; s != nil; s = s.next {
		if least != nil && s.lastUse > least.lastUse {
			break
		}
		if s != keep && (least == nil || compareUse(s, least) < 0) {
			least = s
		}
	}
	return least
}

// unusedSince returns the sessions last used at or before stamp, those unused
// for longest first, at least as many as hold limit records if there are.
func (x *sessionIndex) unusedSince(stamp uint64, limit int) []*session {
	var due []*session
	records := 0
	for s := x.first; s != nil && s.lastUse <= stamp; s = s.next {
		if records >= limit && s.lastUse > due[len(due)-1].lastUse {
			break
		}
		due = append(due, s)
		records += len(s.records)
	}
	slices.SortFunc(due, compareUse)
	return due
}

func (x *sessionIndex) remove(s *session) {
	x.unlink(s)
	delete(x.byID, s.id)
}

// search returns where sequence is in s, or would be.
func (s *session) search(sequence uint64) (int, bool) {
	if n := len(s.records); n > 0 && s.records[n-1].sequence < sequence {
		return n, false // the usual case: sequences come in order
	}
	return slices.BinarySearchFunc(s.records, sequence, func(e sessionEntry, sequence uint64) int {
		return cmp.Compare(e.sequence, sequence)
	})
}

// replay answers a command that was carried out before, or may have been, or
// whose number was used for another. It reports whether it did. It changes
// nothing: what replicas know of digests must not show in their states.
func (ex *executor) replay(shard int, c *command.Command, out *command.Result) (bool, error) {
	s := ex.store.shards[shard].sessions.byID[c.Session.ID]
	if s == nil {
		if c.Session.Sequence == 0 { // sequences count from 1
			out.Kind, out.Status = c.Kind, command.SessionExpired
			return true, nil
		}
		return false, nil
	}
	at, found := s.search(c.Session.Sequence)
	if !found {
		if c.Session.Sequence <= s.floor {
			out.Kind, out.Status = c.Kind, command.SessionExpired
			return true, nil
		}
		return false, nil
	}
	if known := s.records[at].digest; known != 0 && known != ex.digest {
		out.Kind, out.Status = c.Kind, command.SessionMismatch
		return true, nil
	}
	record, err := ex.sessionRecord(shard, s, at)
	if err != nil {
		return false, err
	}
	_, _, body, err := splitSessionRecord(record)
	if err != nil {
		return false, err
	}
	if err := decodeResult(body, out, ex.allocResults); err != nil {
		return false, err
	}
	if out.Kind != c.Kind { // a record without a digest
		*out = command.Result{Kind: c.Kind, Status: command.SessionMismatch}
	}
	return true, nil
}

// sessionRecord returns the record of s.records[at] as bytes of the write batch.
func (b *writeBatch) sessionRecord(shard int, s *session, at int) ([]byte, error) {
	e := s.records[at]
	if e.writeBatch == b.number {
		return b.pending[e.pending], nil
	}
	b.key = appendSessionKey(b.key[:0], shard, s.id, e.sequence, e.digest)
	v, found, closer, err := b.stored(hashRecord(b.key), b.key)
	if err != nil {
		return nil, fmt.Errorf("storage: record of a session: %w", err)
	}
	if !found {
		return nil, fmt.Errorf("%w: record %d of session %d of shard %d is missing", ErrCorrupt, e.sequence, s.id, shard)
	}
	return b.bytes.copy(v), closer.Close()
}

// remember records the result of c, and drops the records that c's
// acknowledgement or the bounds make superfluous.
func (ex *executor) remember(shard int, c *command.Command, result *command.Result) {
	sh := &ex.store.shards[shard]
	s := sh.sessions.touch(c.Session.ID, ex.now)
	// The record just made must survive, it carries the floor.
	acknowledged := min(c.Session.Acknowledged, c.Session.Sequence-1)
	s.floor = max(s.floor, acknowledged)
	drop := 0
	for drop < len(s.records) && s.records[drop].sequence <= acknowledged {
		drop++
	}
	if len(s.records)-drop >= sessionRecordsMax {
		s.floor = max(s.floor, s.records[drop].sequence)
		drop++
	}
	ex.dropRecords(shard, s, drop)

	record := ex.appendRecord(s.floor, result)
	at, _ := s.search(c.Session.Sequence)
	s.records = slices.Insert(s.records, at, sessionEntry{
		sequence: c.Session.Sequence, digest: ex.digest, writeBatch: ex.number, pending: len(ex.pending),
	})
	ex.pending = append(ex.pending, record)
	ex.stage(memtable.Sessions, ex.bytes.sessionKey(shard, s.id, c.Session.Sequence, ex.digest), record)
	if len(sh.sessions.byID) > sessionsMax {
		ex.dropSession(shard, sh.sessions.leastUsed(s))
	}
}

// sessionKey returns the key of a record as bytes of the arena.
func (a *arena) sessionKey(shard int, id, sequence, digest uint64) []byte {
	return appendSessionKey(a.alloc(sessionKeyBytes + digestBytes)[:0], shard, id, sequence, digest)
}

// dropRecords deletes the first n records of s.
func (ex *executor) dropRecords(shard int, s *session, n int) {
	for _, e := range s.records[:n] {
		ex.stageDeletion(memtable.Sessions, ex.bytes.sessionKey(shard, s.id, e.sequence, e.digest))
	}
	s.records = s.records[:copy(s.records, s.records[n:])]
}

func (ex *executor) dropSession(shard int, s *session) {
	ex.dropRecords(shard, s, len(s.records))
	ex.store.shards[shard].sessions.remove(s)
}

// A record is its format, the stamp of the write, the floor of the session
// (8 bytes each), and the result: flags, then what they announce as varints.
const (
	resultHasRow    = 1 << 0 // version, TTL, length of the value, value
	resultSucceeded = 1 << 1
	resultHasOps    = 1 << 2 // number of results, results
	resultOmitted   = 1 << 3 // there was a row, but its value was not kept: version, TTL
	resultFlags     = 1<<4 - 1

	resultBytesMin = 5 // flags, status, kind, version, integer
)

// appendRecord encodes result into the write batch's arena.
func (ex *executor) appendRecord(floor uint64, result *command.Result) []byte {
	values := len(result.Value)
	for i := range result.Results {
		values += len(result.Results[i].Value)
	}
	b := append(ex.record[:0], sessionRecordFormat)
	b = le.AppendUint64(b, ex.now)
	b = le.AppendUint64(b, floor)
	b = appendResult(b, result, values <= sessionValueBytesMax)
	ex.record = b
	return ex.bytes.copy(b)
}

// appendResult appends r, and the values of its rows where withValues.
func appendResult(b []byte, r *command.Result, withValues bool) []byte {
	flags := byte(0)
	switch {
	case r.RowOmitted || r.HasRow && !withValues && len(r.Value) > 0:
		flags |= resultOmitted
	case r.HasRow:
		flags |= resultHasRow
	}
	if r.Succeeded {
		flags |= resultSucceeded
	}
	if len(r.Results) > 0 {
		flags |= resultHasOps
	}
	b = append(b, flags, byte(r.Status), byte(r.Kind))
	b = binary.AppendUvarint(b, r.Version)
	b = binary.AppendVarint(b, r.Integer)
	if flags&(resultHasRow|resultOmitted) != 0 {
		b = binary.AppendUvarint(b, r.RowVersion)
		b = binary.AppendUvarint(b, r.RowTTL)
	}
	if flags&resultHasRow != 0 {
		b = binary.AppendUvarint(b, uint64(len(r.Value)))
		b = append(b, r.Value...)
	}
	if flags&resultHasOps != 0 {
		b = binary.AppendUvarint(b, uint64(len(r.Results)))
		for i := range r.Results {
			b = appendResult(b, &r.Results[i], withValues)
		}
	}
	return b
}

func splitSessionRecord(b []byte) (stamp, floor uint64, result []byte, err error) {
	if len(b) < sessionRecordHeaderBytes || b[0] != sessionRecordFormat {
		return 0, 0, nil, fmt.Errorf("%w: session record of %d bytes", ErrCorrupt, len(b))
	}
	return le.Uint64(b[1:]), le.Uint64(b[9:]), b[sessionRecordHeaderBytes:], nil
}

// decodeResult decodes all of body into out. Values are views of body. alloc makes
// room for the results of operations.
func decodeResult(body []byte, out *command.Result, alloc func(int) []command.Result) error {
	rest, err := decodeOneResult(body, out, alloc)
	if err == nil && len(rest) != 0 {
		err = errSessionRecord
	}
	return err
}

var errSessionRecord = fmt.Errorf("%w: result in a session record", ErrCorrupt)

// decodeOneResult decodes one result. Where alloc is nil it must have none of
// operations.
func decodeOneResult(b []byte, out *command.Result, alloc func(int) []command.Result) ([]byte, error) {
	const omittedRow = resultHasRow | resultOmitted
	if len(b) < 3 || b[0]&^resultFlags != 0 || b[0]&omittedRow == omittedRow {
		return nil, errSessionRecord
	}
	flags := b[0]
	*out = command.Result{
		Kind:       command.Kind(b[2]),
		Status:     command.Status(b[1]),
		HasRow:     flags&omittedRow != 0,
		RowOmitted: flags&resultOmitted != 0,
		Succeeded:  flags&resultSucceeded != 0,
	}
	t := fields.Reader{B: b[3:]}
	out.Version = t.Uvarint()
	out.Integer = t.Varint()
	if out.HasRow {
		out.RowVersion = t.Uvarint()
		out.RowTTL = t.Uvarint()
	}
	if flags&resultHasRow != 0 {
		out.Value = t.Counted()
	}
	if flags&resultHasOps != 0 {
		n := t.Uvarint()
		if alloc == nil || n > uint64(len(t.B)/resultBytesMin) {
			return nil, errSessionRecord
		}
		out.Results = alloc(int(n))
		for i := range out.Results {
			var err error
			if t.B, err = decodeOneResult(t.B, &out.Results[i], nil); err != nil {
				return nil, err
			}
		}
	}
	if t.Short {
		return nil, errSessionRecord
	}
	return t.B, nil
}
