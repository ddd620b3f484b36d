package storage

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/cockroachdb/pebble/v2"
	pebblerecord "github.com/cockroachdb/pebble/v2/record"
	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/proa-kv/proa/command"
)

// Verify checks the database of o, which no process may have open, without
// changing it: that it is the owner's, the checksum of every block of every table, the order of the
// tree, and that every record decodes, belongs to one of its shards, and
// agrees with its shard's state. Each finding goes to report, at most
// findingsMax of them; then the error is ErrCorrupt. Any other error means
// that the check could not be made.
//
// It returns each shard's applied index as far as it could be read: the index
// above which the log must have the entries.
func Verify(o Options, report func(string)) (applied []uint64, err error) {
	o, err = o.withDefaults()
	if err != nil {
		return nil, err
	}
	dir, shards := o.Dir, o.Shards
	v := &verifier{shards: shards, report: report, states: make([]meta, shards)}
	applied = make([]uint64, shards)
	defer func() {
		if r := recover(); r != nil {
			fatal, ok := r.(verifyFatal)
			if !ok {
				panic(r)
			}
			v.found("%v", fatal.err)
		}
		for i := range applied {
			applied[i] = v.states[i].applied
		}
		if v.findings > 0 {
			err = fmt.Errorf("%w: findings in %s: %d", ErrCorrupt, dir, v.findings)
		}
	}()
	po := verifyOptions(o)
	if err := checkMarker(&o); errors.Is(err, ErrFiles) {
		v.found("open: %v", err)
		return applied, nil
	}
	lock, err := lockDatabase(o.FS, dir)
	if err != nil {
		return applied, fmt.Errorf("storage: verify %s: %w", dir, err)
	}
	defer func() { err = errors.Join(err, lock.Close()) }()
	po.Lock = lock
	db, err := pebble.Open(dir, po)
	if errors.Is(err, os.ErrPermission) {
		return applied, fmt.Errorf("storage: verify %s: %w", dir, err)
	}
	if err != nil { // there is a database, it is ours alone, and does not open
		err = explainFiles(err, dir, po)
		if errors.Is(err, ErrOptionsFile) {
			return applied, fmt.Errorf("storage: verify %s: %w", dir, err)
		}
		v.found("open: %v", err)
		return applied, nil
	}
	defer func() { err = errors.Join(err, db.Close()) }()
	if err := v.manifest(o.FS, dir); err != nil {
		return applied, err
	}
	if err := v.tables(db, po, dir); err != nil {
		return applied, err
	}
	if v.findings > 0 {
		return applied, nil // reading on would only find the same again
	}
	if _, err := checkOwner(db, &o); err != nil {
		v.found("%v", err)
	}
	if err := db.CheckLevels(nil); err != nil {
		v.found("order of the tables: %v", err)
	}
	return applied, v.records(db)
}

// lockDatabase makes sure that there is a database, and nobody else at it.
func lockDatabase(fs vfs.FS, dir string) (*pebble.Lock, error) {
	found, err := pebble.Peek(dir, fs)
	if err != nil {
		return nil, err
	}
	if !found.Exists {
		return nil, os.ErrNotExist
	}
	return pebble.LockDirectory(dir, fs)
}

// findingsMax bounds what Verify reports.
const findingsMax = 100

func verifyOptions(o Options) *pebble.Options {
	po := basePebbleOptions(o)
	po.ReadOnly = true
	po.ErrorIfNotExists = true
	po.DisableTableStats = true
	po.DisableWAL = true
	po.CacheSize = 8 << 20 // each block is read once
	po.Logger = verifyLogger{}
	po.EventListener = &pebble.EventListener{DataCorruption: func(pebble.DataCorruptionInfo) {}}
	po.EnsureDefaults()
	return po
}

// verifyLogger turns what Pebble takes for the end of the process into a
// finding: Verify does all its work in one goroutine and recovers.
type verifyLogger struct{}

type verifyFatal struct{ err error }

func (verifyLogger) Infof(string, ...any)  {}
func (verifyLogger) Errorf(string, ...any) {}
func (verifyLogger) Fatalf(format string, args ...any) {
	panic(verifyFatal{fmt.Errorf(format, args...)})
}

type verifier struct {
	shards   int
	report   func(string)
	findings int
	states   []meta
}

func (v *verifier) found(format string, args ...any) {
	v.findings++
	if v.findings <= findingsMax && v.report != nil {
		v.report(fmt.Sprintf(format, args...))
	}
}

// manifest tells of bytes at the end of the manifest that are no record. They
// are no finding: a crash leaves them, and then they cost nothing. If they are
// damage, the database is as it was before, and the log has the rest.
func (v *verifier) manifest(fs vfs.FS, dir string) (err error) {
	found, err := pebble.Peek(dir, fs)
	if err != nil {
		return err
	}
	f, err := fs.Open(found.ManifestFilename)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	r := pebblerecord.NewReader(f, 0)
	for {
		at := r.Offset()
		part, err := r.Next()
		if err == nil {
			_, err = io.Copy(io.Discard, part)
		}
		switch {
		case errors.Is(err, io.EOF):
			return nil
		case pebblerecord.IsInvalidRecord(err):
			if v.report != nil {
				v.report(fmt.Sprintf("%s: invalid record at byte %d, torn by a crash or damaged; nothing is missing if the log continues where the state ends", fs.PathBase(found.ManifestFilename), at))
			}
			return nil
		case err != nil:
			return err
		}
	}
}

// tables checks the checksums of all blocks, filters and indexes included,
// which reading the rows need not touch.
func (v *verifier) tables(db *pebble.DB, o *pebble.Options, dir string) error {
	levels, err := db.SSTables()
	if err != nil {
		return err
	}
	for level, tables := range levels {
		for i := range tables {
			name := tables[i].BackingSSTNum.String() + ".sst"
			if err := verifyTable(o, o.FS.PathJoin(dir, name), &tables[i]); err != nil {
				v.found("table %s of level %d: %v", name, level, err)
			}
		}
	}
	return nil
}

func verifyTable(o *pebble.Options, path string, part *pebble.SSTableInfo) (err error) {
	r, err := openTable(o, path)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, r.Close()) }()
	err = r.ValidateBlockChecksums()
	if err != nil && part != nil && part.Virtual {
		// Of the file only a part is in use, and what is damaged may be another:
		// so a shard whose damage has been replaced leaves it behind.
		return readThrough(r, part.Smallest.UserKey, append(bytes.Clone(part.Largest.UserKey), 0))
	}
	return err
}

// records decodes every record, the states of the shards first: the others
// are held against them.
func (v *verifier) records(db *pebble.DB) (err error) {
	for i := range v.states {
		m, err := readMeta(db, i)
		if err != nil {
			v.found("shard %d: %v", i, err)
		}
		v.states[i] = m
	}
	it, err := db.NewIter(nil)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, it.Close()) }()
	for it.First(); it.Valid(); it.Next() {
		value, err := it.ValueAndErr()
		if err == nil {
			err = v.record(it.Key(), value)
		}
		if err != nil {
			v.found("record: %v", err)
		}
	}
	if err := it.Error(); err != nil {
		v.found("reading: %v", err)
	}
	return nil
}

func (v *verifier) record(key, value []byte) error {
	if len(key) < prefixBytes {
		return fmt.Errorf("%w: key of %d bytes", ErrCorrupt, len(key))
	}
	shard := int(key[0])<<8 | int(key[1])
	if shard == ownerShard && key[2] == kindOwner && len(key) == prefixBytes {
		_, _, err := decodeOwner(value)
		return err
	}
	if shard >= v.shards {
		return fmt.Errorf("%w: shard %d of %d", ErrCorrupt, shard, v.shards)
	}
	switch m := v.states[shard]; key[2] {
	case kindInstall, kindLost, kindMeta:
		return verifyState(key, value, m)
	default:
		return checkRecord(key, value, m)
	}
}

// verifyState checks what a shard has beside the records that entries made.
func verifyState(key, value []byte, m meta) error {
	if len(key) != prefixBytes {
		return fmt.Errorf("%w: kind %q of a shard with a key of %d bytes", ErrCorrupt, key[2], len(key))
	}
	switch key[2] {
	case kindMeta:
		_, err := decodeMeta(value)
		return err
	case kindLost:
		if len(value) != 1 || value[0] != lostFormat {
			return fmt.Errorf("%w: record of a lost shard of %d bytes", ErrCorrupt, len(value))
		}
		return nil
	}
	installed, err := decodeInstallMeta(value)
	if err == nil && installed.Index > m.applied {
		err = fmt.Errorf("%w: installed at index %d, applied %d", ErrCorrupt, installed.Index, m.applied)
	}
	return err
}

// checkRecord checks that a record is one that entries make, and agrees with
// the state m of its shard.
func checkRecord(key, value []byte, m meta) error {
	switch key[2] {
	case kindData:
		version, _, _, err := decodeRow(value)
		if err == nil && (len(key) == prefixBytes || version == 0 || version > m.revision) {
			err = fmt.Errorf("%w: row with a key of %d bytes, version %d, the shard's revision %d",
				ErrCorrupt, len(key)-prefixBytes, version, m.revision)
		}
		return err
	case kindExpiry:
		_, _, err := splitExpiryKey(key)
		if err == nil && len(value) != 0 {
			err = fmt.Errorf("%w: expiry index with a value", ErrCorrupt)
		}
		return err
	case kindMark:
		_, revision, err := decodeMark(key, value)
		if err == nil && revision > m.revision {
			err = fmt.Errorf("%w: mark at revision %d, the shard's is %d", ErrCorrupt, revision, m.revision)
		}
		return err
	case kindSession:
		return verifySession(key, value, m)
	default:
		return fmt.Errorf("%w: kind 0x%02x", ErrCorrupt, key[2])
	}
}

func verifySession(key, value []byte, m meta) error {
	if _, _, _, err := splitSessionKey(key); err != nil {
		return err
	}
	stamp, _, body, err := splitSessionRecord(value)
	if err != nil {
		return err
	}
	if stamp > m.stamp {
		return fmt.Errorf("%w: session record stamped %d, the shard %d", ErrCorrupt, stamp, m.stamp)
	}
	var out command.Result
	return decodeResult(body, &out, func(n int) []command.Result { return make([]command.Result, n) })
}
