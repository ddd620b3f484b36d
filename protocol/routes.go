package protocol

import "fmt"

// RoutesReply answers ROUTES (whose request body is empty): who serves what.
type RoutesReply struct {
	Epoch  uint64 // of the slot map
	Nodes  []RouteNode
	Shards []RouteShard
}

// RouteNode is one server.
type RouteNode struct {
	ID      uint64
	Address []byte // host:port for clients
}

// RouteShard is one shard: the slots it owns, as inclusive ranges, and the
// node that leads it (0 if unknown).
type RouteShard struct {
	ID     uint16
	Leader uint64
	Slots  []SlotRange
}

// SlotRange is an inclusive range of slots, 0..16383.
type SlotRange struct{ First, Last uint16 }

// AppendTo appends the message body.
func (m *RoutesReply) AppendTo(dst []byte) []byte {
	dst = appendU64(dst, m.Epoch)
	dst = appendU16(dst, uint16(len(m.Nodes)))
	for i := range m.Nodes {
		dst = appendU64(dst, m.Nodes[i].ID)
		dst = appendString(dst, m.Nodes[i].Address)
	}
	dst = appendU16(dst, uint16(len(m.Shards)))
	for i := range m.Shards {
		s := &m.Shards[i]
		dst = appendU16(dst, s.ID)
		dst = appendU64(dst, s.Leader)
		dst = appendU16(dst, uint16(len(s.Slots)))
		for _, r := range s.Slots {
			dst = appendU16(appendU16(dst, r.First), r.Last)
		}
	}
	return dst
}

// Decode reads the message body. Addresses are views; the slices are new.
func (m *RoutesReply) Decode(b []byte) error {
	f := fields{b: b}
	*m = RoutesReply{Epoch: f.u64()}
	for n := f.u16(); n > 0 && !f.short; n-- {
		node := RouteNode{ID: f.u64(), Address: f.bytes(int(f.u16()))}
		if len(node.Address) > AddressBytesMax {
			return fmt.Errorf("%w: address over %d bytes", ErrTooLarge, AddressBytesMax)
		}
		m.Nodes = append(m.Nodes, node)
	}
	for n := f.u16(); n > 0 && !f.short; n-- {
		s := RouteShard{ID: f.u16(), Leader: f.u64()}
		for k := f.u16(); k > 0 && !f.short; k-- {
			r := SlotRange{First: f.u16(), Last: f.u16()}
			if r.First > r.Last || r.Last >= Slots {
				return fmt.Errorf("%w: slot range %d-%d", ErrOutOfRange, r.First, r.Last)
			}
			s.Slots = append(s.Slots, r)
		}
		m.Shards = append(m.Shards, s)
	}
	return f.end()
}
