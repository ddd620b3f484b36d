package datadir

import (
	"bytes"
	"crypto/ed25519"
	"encoding/json"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"io/fs"
	"math/rand/v2"
	"os"
	"slices"
	"syscall"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/proa-kv/proa/internal/durable"
	"github.com/proa-kv/proa/raftgroup/placement"
	"github.com/proa-kv/proa/raftlog"
	"github.com/proa-kv/proa/storage"
)

// Names inside a data directory.
const (
	IdentityFile = "proa.json"
	RunsFile     = "runs.json"
	LogDir       = "raft"
	EngineDir    = "dragonboat" // what the engine of that name keeps beside the log
	StateDir     = "state"
	lockFile     = "LOCK"

	damagedSuffix = ".damaged" // of a file that was put aside

	// dataFormat is what this version writes; dataFormatOldest and later ones it
	// reads, and makes a dataFormat of. From identityChecked on the identity's
	// file has a checksum, from formatSynced on the log records how far it was
	// synced, from formatOwned on the state knows whose it is.
	// With an engine other than etcd the format is dataFormatEngine: versions that know
	// of no other would take the log for etcd's.
	dataFormat       = 3
	dataFormatOldest = 2
	dataFormatEngine = 4
	identityChecked  = 3
	formatSynced     = 3
	formatOwned      = 3
)

// Errors of opening a data directory. Each is wrapped with what was found and
// what to do.
var (
	ErrOtherNode    = errors.New("the data directory belongs to another node")
	ErrOtherShards  = errors.New("the data directory has another number of shards")
	ErrOtherEngine  = errors.New("the data directory has another engine")
	ErrDataFormat   = errors.New("the data directory has a format this version cannot read")
	ErrLogMissing   = errors.New("the data directory has lost its log")
	ErrInUse        = errors.New("the data directory is in use")
	ErrNotDataDir   = errors.New("not a data directory")
	ErrBadDirectory = errors.New("cannot use the data directory")
	// ErrRolledBack: others remember more of this node than its directory does.
	ErrRolledBack = errors.New("the data directory is older than what this node has confirmed to other nodes (an old copy was restored?); erase it and let the node join again as a new node")
	// ErrRemoved: the cluster has removed the node.
	ErrRemoved = errors.New("removed from the cluster")
	// ErrLeftOut: the cluster was recovered without the node.
	ErrLeftOut = errors.New("left out when the cluster was recovered")
)

// Identity is what a data directory remembers about its node.
type Identity struct {
	Format      int              `json:"format"`            // of the directory as a whole
	Cluster     uint64           `json:"cluster_id,string"` // 0: not part of one yet
	Node        uint64           `json:"node_id"`           // 0: not known yet
	UID         uint64           `json:"uid,string"`        // of the directory, random
	Shards      int              `json:"shards"`
	Replicas    int              `json:"replicas"`         // of each shard, as the cluster was founded
	Engine      placement.Engine `json:"engine,omitempty"` // likewise
	Founder     bool             `json:"founder"`          // one of those that the cluster was founded with
	Members     []Member         `json:"members"`          // founders: all of them; others: whom they found when they joined
	Initialized bool             `json:"initialized"`      // the groups' logs have been begun

	Key        PrivateKey `json:"key"`                   // of the directory; what other nodes tell it by
	Generation uint64     `json:"generation"`            // how often the node was started
	RolledBack bool       `json:"rolled_back,omitempty"` // others have confirmed more for it than it holds
	Removed    bool       `json:"removed,omitempty"`     // the cluster has removed the node
	Lost       []uint64   `json:"lost,omitempty"`        // nodes that the cluster was recovered without; see Recover
}

// RemovedError says that the node was removed, and what to do with its directory.
func (id *Identity) RemovedError(dir string) error {
	return fmt.Errorf("node %d was %w; erase its data directory %s and start it again, without --node-id, to join as a new node", id.Node, ErrRemoved, dir)
}

// GaveUp reports whether the cluster was recovered in this directory without a
// node: whatever that one has is another history of the cluster.
func (id *Identity) GaveUp(node uint64) bool { return slices.Contains(id.Lost, node) }

// format returns the format of a directory like this.
func (id *Identity) format() int {
	if id.Engine == placement.Etcd {
		return dataFormat
	}
	return dataFormatEngine
}

// Member is a node as a directory remembers it, to find the others again.
type Member struct {
	ID     uint64            `json:"id"`
	UID    uint64            `json:"uid,string"`
	Key    ed25519.PublicKey `json:"key,omitempty"` // nil: not known
	Peer   string            `json:"peer"`
	Client string            `json:"client"`
	Redis  string            `json:"redis,omitempty"` // for clients of the Redis protocol
}

// founders are the members a cluster was founded with, where this node knows.
func (id *Identity) founders() []Member {
	if !id.Founder {
		return nil
	}
	return id.Members
}

// lock takes the directory's lock, which the kernel drops when the process
// ends.
func lock(f vfs.FS, dir string) (io.Closer, error) {
	l, err := f.Lock(f.PathJoin(dir, lockFile))
	if err == nil {
		return l, nil
	}
	if errors.Is(err, fs.ErrPermission) {
		return nil, fmt.Errorf("%w %s: %v; give the server's user write permission there, or choose another with --data", ErrBadDirectory, dir, err)
	}
	var errno syscall.Errno
	if errors.As(err, &errno) && errno != syscall.EAGAIN { // it is not the lock that is refused
		return nil, fmt.Errorf("%w %s: %w", ErrBadDirectory, dir, err)
	}
	return nil, fmt.Errorf("%w: %s (%v); is another server running on it? stop that one, or choose another directory with --data", ErrInUse, dir, err)
}

// readIdentity returns the directory's identity, or ok = false where the
// directory has none yet.
func readIdentity(f vfs.FS, dir string) (id Identity, ok bool, err error) {
	path := f.PathJoin(dir, IdentityFile)
	b, ok, err := readFile(f, path)
	if err != nil || !ok {
		return id, false, err
	}
	id, err = decodeIdentity(b)
	if errors.Is(err, ErrBadDirectory) {
		err = fmt.Errorf("%w; "+RejoinOrRestore, err)
	}
	if err != nil {
		return Identity{}, false, fmt.Errorf("%s: %w", path, err)
	}
	return id, true, nil
}

// readFile returns the content of a file, or ok = false where there is none. Errors
// wrap ErrBadDirectory.
func readFile(f vfs.FS, path string) (b []byte, ok bool, err error) {
	file, err := f.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, false, nil
	}
	if err == nil {
		b, err = io.ReadAll(file)
		err = errors.Join(err, file.Close())
	}
	if err != nil {
		return nil, false, fmt.Errorf("%w: %w", ErrBadDirectory, err)
	}
	return b, true, nil
}

// ReadIdentity returns the identity of a data directory, which may be in use.
// Errors wrap ErrNotDataDir, ErrBadDirectory or ErrDataFormat.
func ReadIdentity(f vfs.FS, dir string) (Identity, error) {
	f = fileSystem(f, dir)
	id, ok, err := readIdentity(f, dir)
	if err == nil && !ok {
		err = lostIdentity(f, dir)
	}
	if err == nil && !ok {
		err = fmt.Errorf("%w: %s has no %s", ErrNotDataDir, dir, IdentityFile)
	}
	return id, err
}

// identityDocument is the content of the identity's file: readable, and with a
// checksum of every byte of it. The checksum's own digits count as zeros.
type identityDocument struct {
	Identity
	CRC32C string `json:"crc32c"`
}

const (
	// identitySumField precedes the checksum's digits. No string in a JSON
	// document can hold it: its quotes would be escaped.
	identitySumField = `"crc32c": "`
	identitySumZero  = "00000000"
)

func encodeIdentity(id Identity) ([]byte, error) {
	return sealDocument(identityDocument{id, identitySumZero})
}

// sealDocument encodes a document whose last field is a checksum of zeros, and
// fills that in.
func sealDocument(doc any) ([]byte, error) {
	b, err := json.MarshalIndent(doc, "", "  ")
	if err != nil {
		return nil, err
	}
	b = append(b, '\n')
	digits, _ := identitySumDigits(b)
	copy(digits, identitySum(b))
	return b, nil
}

// identitySumDigits returns the digits of the checksum in b, a view.
func identitySumDigits(b []byte) (digits []byte, ok bool) {
	at := bytes.LastIndex(b, []byte(identitySumField))
	if at < 0 || len(b) < at+len(identitySumField)+len(identitySumZero) {
		return nil, false
	}
	return b[at+len(identitySumField):][:len(identitySumZero)], true
}

// identitySum is the checksum of b, in which its digits are zeros.
func identitySum(b []byte) string {
	return fmt.Sprintf("%08x", crc32.Checksum(b, crc32.MakeTable(crc32.Castagnoli)))
}

// decodeIdentity reads the content of the identity's file. Errors wrap
// ErrBadDirectory or ErrDataFormat. Where there is a checksum, the format counts
// only if it matches.
func decodeIdentity(b []byte) (Identity, error) {
	var doc identityDocument
	err := openDocument(b, &doc)
	if errors.Is(err, errNoSum) && (doc.Format < identityChecked || doc.Format > dataFormatEngine) {
		err = nil
	}
	if err != nil {
		return Identity{}, fmt.Errorf("%w: the identity file is damaged or was edited: %w", ErrBadDirectory, err)
	}
	if doc.Format < dataFormatOldest || doc.Format > dataFormatEngine {
		return Identity{}, fmt.Errorf("%w: it has format %d, and this version reads %d to %d; run the version of proa that wrote it", ErrDataFormat, doc.Format, dataFormatOldest, dataFormatEngine)
	}
	if !doc.Engine.Known() {
		return Identity{}, fmt.Errorf("%w: its engine is %q, which this version does not have; run the version of proa that wrote it", ErrDataFormat, doc.Engine)
	}
	return doc.Identity, nil
}

// errNoSum says that a document has no checksum. It may be of an early version.
var errNoSum = errors.New("it has no checksum")

// openDocument reads a document of sealDocument into doc, and checks it. The error
// says what is wrong.
func openDocument(b []byte, doc any) error {
	err := json.Unmarshal(b, doc)
	switch {
	case len(b) == 0:
		return errors.New("it is empty")
	case err == nil:
		return checkDocument(b)
	case !bytes.HasSuffix(b, []byte("}\n")):
		return fmt.Errorf("it is cut short, or its end is damaged: %w", err)
	}
	return fmt.Errorf("it is not the JSON that proa writes: %w", err)
}

// checkDocument compares the checksum in b with the rest of it.
func checkDocument(b []byte) error {
	b = bytes.Clone(b)
	digits, ok := identitySumDigits(b)
	if !ok {
		return errNoSum
	}
	found := string(digits)
	copy(digits, identitySumZero)
	if want := identitySum(b); found != want {
		return fmt.Errorf("its checksum is %q, but its content has %q", found, want)
	}
	return nil
}

// Write replaces the identity in a directory, durably and atomically.
func (id *Identity) Write(f vfs.FS, dir string) error {
	b, err := encodeIdentity(*id)
	if err != nil {
		return err
	}
	return durable.ReplaceFile(f, dir, IdentityFile, b)
}

// Asked is what a node was told to be. Zero values mean "whatever the directory says".
type Asked struct {
	Node   uint64
	Shards int
	Engine string // as placement.ParseEngine reads it
}

func (a *Asked) check() error {
	if a.Shards < 0 || a.Shards > ShardsMax {
		return fmt.Errorf("%d shards requested, 1 to %d are allowed", a.Shards, ShardsMax)
	}
	_, err := a.engine()
	return err
}

// engine returns the engine asked for, or that of a new cluster if none was.
func (a *Asked) engine() (placement.Engine, error) {
	if a.Engine == "" {
		return placement.Etcd, nil
	}
	return placement.ParseEngine(a.Engine)
}

// refuses reports whether another engine was asked for.
func (a *Asked) refuses(e placement.Engine) bool { return a.Engine != "" && a.Engine != e.String() }

// otherEngine is what to do where the engine is to be another one than e.
func otherEngine(e placement.Engine) string {
	return fmt.Sprintf("the engine is fixed when a cluster is founded: leave raft.engine out or set it to %v; to change to another engine, found a new cluster in an empty directory (--data) and move the data with proa export and proa import", e)
}

// claim makes dir this node's: it reads the identity and checks it against
// what was asked for, or writes a new one, which belongs to no cluster yet.
// The number asked for is not written down before the directory belongs to a
// cluster: the cluster may refuse it.
func claim(f vfs.FS, dir string, asked *Asked) (Identity, error) {
	node, shards := asked.Node, asked.Shards
	id, ok, err := readIdentity(f, dir)
	if err != nil {
		return id, err
	}
	if ok && id.Removed {
		return id, id.RemovedError(dir)
	}
	if ok && id.RolledBack {
		return id, fmt.Errorf("%w: %s", ErrRolledBack, dir)
	}
	if ok && id.Key == nil {
		id.Key = newKey() // the directory was made by an earlier version
		if err := id.Write(f, dir); err != nil {
			return id, fmt.Errorf("%w %s: %w", ErrBadDirectory, dir, err)
		}
	}
	if ok {
		if id.Cluster == 0 {
			id.Node = node // nothing has been promised to anybody under another one
			return id, nil
		}
		if node != 0 && node != id.Node {
			return id, fmt.Errorf("%w: %s was written by node %d, this is node %d; start with --node-id %d, or choose another directory with --data", ErrOtherNode, dir, id.Node, node, id.Node)
		}
		if shards != 0 && shards != id.Shards {
			return id, fmt.Errorf("%w: %s has %d, but %d were requested; the number is fixed at the first start: leave --shards out or set it to %d", ErrOtherShards, dir, id.Shards, shards, id.Shards)
		}
		if asked.refuses(id.Engine) {
			return id, fmt.Errorf("%w: %s has %v, but %s was requested; %s", ErrOtherEngine, dir, id.Engine, asked.Engine, otherEngine(id.Engine))
		}
		return id, nil
	}
	if err := lostIdentity(f, dir); err != nil {
		return id, err
	}
	id = Identity{Format: dataFormat, UID: NewID(), Key: newKey()}
	if err := id.Write(f, dir); err != nil {
		return id, fmt.Errorf("%w %s: %w", ErrBadDirectory, dir, err)
	}
	id.Node = node
	return id, nil
}

// lostIdentity fails for a directory without identity that has a log or a state: it is
// damaged, not new.
func lostIdentity(f vfs.FS, dir string) error {
	for _, sub := range []string{LogDir, StateDir} {
		if names, err := f.List(f.PathJoin(dir, sub)); err == nil && len(names) > 0 {
			return fmt.Errorf("%w: %s has %s/ but no %s; "+RejoinOrRestore, ErrBadDirectory, dir, sub, IdentityFile)
		}
	}
	return nil
}

// NewID draws a number other than 0.
func NewID() uint64 {
	for {
		if id := rand.Uint64(); id != 0 {
			return id
		}
	}
}

// prepare creates the directory where it is missing, so that it is still
// there after a power failure, and says clearly why it cannot.
func prepare(f vfs.FS, dir string) error {
	err := durable.MakeDir(f, dir, 0o755) // the directory itself: see privateFS
	switch {
	case errors.Is(err, os.ErrPermission):
		return fmt.Errorf("%w %s: %v; give the server's user write permission there, or choose another with --data", ErrBadDirectory, dir, err)
	case err != nil:
		return fmt.Errorf("%w %s: %w; choose another with --data", ErrBadDirectory, dir, err)
	}
	return nil
}

// LogOptions are how the log of the directory is opened.
func (id *Identity) LogOptions(f vfs.FS, dir string) raftlog.Options {
	return raftlog.Options{
		Dir: f.PathJoin(dir, LogDir), FS: f, Owner: id.UID,
		// Earlier formats did not record how far it was synced.
		Begun: id.Initialized && id.Format >= formatSynced,
	}
}

// StateOptions are how the state of the directory is opened.
func (id *Identity) StateOptions(f vfs.FS, dir string) storage.Options {
	return storage.Options{
		Dir: f.PathJoin(dir, StateDir), FS: f, Shards: id.Shards + 1,
		Owner: storage.Owner{Cluster: id.Cluster, Node: id.Node, UID: id.UID},
		Begun: id.Initialized && id.Format >= formatOwned,
	}
}
