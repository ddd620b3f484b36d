package server

import (
	"fmt"

	"github.com/proa-kv/proa/command"
	"github.com/proa-kv/proa/protocol"
)

// extensions are those of the request that is dispatched, and of its reply.
type extensions struct {
	ext      protocol.Extensions // of the request
	marks    protocol.Extensions // of its reply
	extended bool                // one of them is not empty
}

// clearExtensions forgets those of an earlier request.
func (x *extensions) clearExtensions() { *x = extensions{} }

// session returns the session fields of the request.
func (x *extensions) session() command.Session {
	return command.Session{ID: x.ext.Session, Sequence: x.ext.Sequence, Acknowledged: x.ext.Acknowledged}
}

// onlyShard is the shard that the request is confined to, or allShards.
func (x *extensions) onlyShard() int {
	if x.ext.HasShard {
		return int(x.ext.Shard)
	}
	return allShards
}

// decodeExtensions decodes those of the request. It returns false if the request was
// refused for them.
func (p *processor) decodeExtensions(c *conn, f *protocol.Frame, op protocol.Opcode) bool {
	if err := p.ext.Decode(f.Extensions); err != nil {
		p.ext = protocol.Extensions{}
		p.refuse(c, f.ID, err)
		return false
	}
	p.extended = true
	if p.ext.Epoch != 0 {
		if epoch := p.srv.backend.Epoch(); epoch > p.ext.Epoch {
			p.marks.Epoch = epoch
		}
	}
	if p.ext.HasShard {
		if op != protocol.OpScan && op != protocol.OpDeleteRange {
			p.fail(c, f.ID, protocol.StatusBadRequest, 0, fmt.Sprintf("the extension SHARD belongs to SCAN and DELETE_RANGE, not to %v", op))
			return false
		}
		if n := p.srv.backend.Shards(); int(p.ext.Shard) >= n {
			p.fail(c, f.ID, protocol.StatusBadRequest, 0, fmt.Sprintf("there is no shard %d, the last one is %d", p.ext.Shard, n-1))
			return false
		}
	}
	return true
}
