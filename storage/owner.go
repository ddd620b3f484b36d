package storage

import (
	"errors"
	"fmt"

	"github.com/cockroachdb/pebble/v2"
)

// ErrOwner means that the database belongs to another owner than Options say.
var ErrOwner = errors.New("storage: the state belongs to another node")

// Owner is who a database belongs to. It is kept in the database, so that no
// other file of the directory can say otherwise unnoticed.
type Owner struct {
	Cluster, Node uint64
	UID           uint64 // of the data directory; 0: nobody's, nothing is kept or compared
}

// The owner's record lies behind all shards. Its value is format (1), number of
// shards (4), cluster, node, UID (8 each).
const (
	ownerShard  = ShardsMax
	kindOwner   = 'n'
	ownerFormat = 1
	ownerBytes  = 1 + 4 + 3*8
)

func ownerKey() []byte { return appendPrefix(nil, ownerShard, kindOwner) }

func encodeOwner(o Owner, shards int) []byte {
	b := le.AppendUint32([]byte{ownerFormat}, uint32(shards))
	for _, n := range []uint64{o.Cluster, o.Node, o.UID} {
		b = le.AppendUint64(b, n)
	}
	return b
}

func decodeOwner(b []byte) (o Owner, shards int, err error) {
	if len(b) != ownerBytes || b[0] != ownerFormat {
		return o, 0, fmt.Errorf("%w: owner's record of %d bytes", ErrCorrupt, len(b))
	}
	return Owner{le.Uint64(b[5:]), le.Uint64(b[13:]), le.Uint64(b[21:])}, int(le.Uint32(b[1:])), nil
}

// checkOwner holds the owner's record against o. found says that there is one,
// or need be none.
func checkOwner(r pebble.Reader, o *Options) (found bool, err error) {
	if o.Owner.UID == 0 {
		return true, nil
	}
	v, err := readRecord(r, ownerKey())
	if err != nil {
		return false, err
	}
	if v == nil && o.Begun {
		return false, fmt.Errorf("%w: there is no record of which node it belongs to: MANIFEST-* is cut or damaged, or the files are another database's", ErrCorrupt)
	}
	if v == nil {
		return false, nil
	}
	owner, shards, err := decodeOwner(v)
	if err != nil {
		return true, err
	}
	if owner != o.Owner || shards != o.Shards {
		err = fmt.Errorf("%w: to node %d of cluster %016x, data directory %016x, with %d shards; this is node %d of cluster %016x, data directory %016x, with %d",
			ErrOwner, owner.Node, owner.Cluster, owner.UID, shards-1, o.Owner.Node, o.Owner.Cluster, o.Owner.UID, o.Shards-1)
	}
	return true, err
}

func (o *Options) ownerRecord() record {
	return record{ownerKey(), encodeOwner(o.Owner, o.Shards)}
}
