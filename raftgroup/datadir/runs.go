package datadir

import (
	"errors"
	"fmt"
	"log/slog"
	"sync"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/proa-kv/proa/internal/durable"
	"github.com/proa-kv/proa/raftgroup/placement"
)

// # Which run of a node it is
//
// Raft trusts that a node never forgets what it has confirmed. A directory that
// is restored from an older copy has forgotten, and a copy that runs beside the
// original makes two nodes of one. Neither shows in the node's own files; other
// nodes can tell.
//
// Each start of a node is a run: it has a generation, one higher than that of
// the run before and written down before anybody learns of it, a random number,
// and a beginning, the position to which its log was synced when it was opened.
// Positions (raftlog.Log.Position) grow with each write of any shard, votes
// included, and are never lost. Nodes send each other their positions in every
// report. Each remembers, in a file, the last run of every other node and the
// highest position it has sent; the node's row in the meta group has its last
// run, too, for nodes that have no such memory of it.
//
// A run that is not the one remembered must be of a higher generation, and must
// begin where the one remembered had come to, or later. Otherwise the directory
// is older than what the node has confirmed, and may not take part any more.
//
// What this does not show: what a node did after its last report, a second ago at
// the most; what other nodes remembered and lost in a power failure, ten seconds
// at the most, or with a damaged file; and anything about a node that has no peers.

// remembered is what is known of another node's runs.
type remembered struct {
	placement.Run
	UID      uint64 `json:"uid,string"`
	Position uint64 `json:"position"` // the highest it has sent
}

// follows returns why next cannot be the present run, or a later one, of the
// node of which r is remembered; nil if it can.
func (r *remembered) follows(next *placement.Run) error {
	switch {
	case r.Generation == 0 || next.Number == r.Number:
		return nil
	case next.Generation <= r.Generation:
		return fmt.Errorf("it is at start %d, and start %d has already connected here", next.Generation, r.Generation)
	case next.Began < r.Position:
		return fmt.Errorf("its log was at %d when it started, and had been at %d before", next.Began, r.Position)
	}
	return nil
}

// Runs remembers the runs of other nodes.
type Runs struct {
	fs  vfs.FS
	dir string

	saving sync.Mutex // held while the file is written

	mu      sync.Mutex
	nodes   map[uint64]remembered
	unsaved bool
}

// runsDocument is the content of the runs' file: JSON like the identity, with a
// checksum of the same kind.
type runsDocument struct {
	Nodes  map[uint64]remembered `json:"nodes"`
	CRC32C string                `json:"crc32c"`
}

// errRunsDamaged says that nothing is remembered because the file is damaged.
var errRunsDamaged = errors.New("the record of other nodes' runs is damaged")

// OpenRuns reads what was remembered in the directory. A damaged file protects no
// more than a missing one, and to refuse it would protect no more either: it is put
// aside. Errors wrap ErrBadDirectory.
func (d *Dir) OpenRuns(logger *slog.Logger) (*Runs, error) {
	t, err := openRuns(d.FS, d.Path)
	if !errors.Is(err, errRunsDamaged) {
		return t, err
	}
	path := d.FS.PathJoin(d.Path, RunsFile)
	if err := d.FS.Rename(path, path+damagedSuffix); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrBadDirectory, err)
	}
	logger.Error("the record of other nodes' runs is damaged; starting without it: until they connect again, an old copy of one's data directory is noticed only by other nodes and by the cluster map; if another node was restored from an old copy, erase its data directory and let it join again as a new node",
		"error", err, "kept_as", path+damagedSuffix)
	return t, nil
}

// openRuns reads what was remembered in dir. Errors wrap ErrBadDirectory, or
// errRunsDamaged, with which there are Runs all the same.
func openRuns(f vfs.FS, dir string) (*Runs, error) {
	t := &Runs{fs: f, dir: dir, nodes: make(map[uint64]remembered)}
	path := f.PathJoin(dir, RunsFile)
	b, ok, err := readFile(f, path)
	if err != nil || !ok {
		return t, err
	}
	nodes, err := decodeRuns(b)
	if err != nil {
		return t, fmt.Errorf("%w: %s: %w", errRunsDamaged, path, err)
	}
	if nodes != nil {
		t.nodes = nodes
	}
	return t, nil
}

func encodeRuns(nodes map[uint64]remembered) ([]byte, error) {
	return sealDocument(runsDocument{nodes, identitySumZero})
}

func decodeRuns(b []byte) (map[uint64]remembered, error) {
	var doc runsDocument
	err := openDocument(b, &doc)
	return doc.Nodes, err
}

// Save makes what is remembered durable.
func (t *Runs) Save() error {
	t.saving.Lock()
	defer t.saving.Unlock()
	t.mu.Lock()
	b, err := encodeRuns(t.nodes)
	t.unsaved = false
	t.mu.Unlock()
	if err == nil {
		err = durable.ReplaceFile(t.fs, t.dir, RunsFile, b)
	}
	if err != nil {
		t.mu.Lock()
		t.unsaved = true
		t.mu.Unlock()
	}
	return err
}

// Admit takes in that a node is there with a run; seen is its last run by the map.
// An error that wraps ErrRolledBack says why that cannot be, another that it could
// not be remembered.
func (t *Runs) Admit(node, uid uint64, next, seen placement.Run) error {
	if err := (&remembered{Run: seen, Position: seen.Began}).follows(&next); err != nil {
		return fmt.Errorf("%w: %w", ErrRolledBack, err)
	}
	t.mu.Lock()
	if old, known := t.nodes[node]; known && old.UID == uid {
		err := old.follows(&next)
		if err != nil {
			err = fmt.Errorf("%w: %w", ErrRolledBack, err)
		}
		if err != nil || old.Number == next.Number {
			t.mu.Unlock()
			return err
		}
	}
	t.nodes[node] = remembered{Run: next, UID: uid, Position: next.Began}
	t.mu.Unlock()
	return t.Save()
}

// Progress takes in how far the log of a node's run has come.
func (t *Runs) Progress(node, number, position uint64) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if r, ok := t.nodes[node]; ok && r.Number == number && r.Position < position {
		r.Position = position
		t.nodes[node] = r
		t.unsaved = true
	}
}

// Forget drops a node that is no member any more.
func (t *Runs) Forget(node uint64) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if _, ok := t.nodes[node]; ok {
		delete(t.nodes, node)
		t.unsaved = true
	}
}

// Last returns the last known run of the node with a directory of that UID.
func (t *Runs) Last(node, uid uint64) (placement.Run, bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	r, ok := t.nodes[node]
	return r.Run, ok && r.UID == uid
}

// Dirty reports whether Save has something to write.
func (t *Runs) Dirty() bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.unsaved
}
