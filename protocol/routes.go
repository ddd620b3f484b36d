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
	f := read(b)
	*m = RoutesReply{Epoch: f.U64()}
	for n := f.U16(); n > 0 && !f.Short; n-- {
		node := RouteNode{ID: f.U64(), Address: f.text()}
		if err := checkSize("address", node.Address, AddressBytesMax); err != nil {
			return err
		}
		m.Nodes = append(m.Nodes, node)
	}
	for n := f.U16(); n > 0 && !f.Short; n-- {
		s := RouteShard{ID: f.U16(), Leader: f.U64()}
		for k := f.U16(); k > 0 && !f.Short; k-- {
			r := SlotRange{First: f.U16(), Last: f.U16()}
			if r.First > r.Last || r.Last >= Slots {
				return fmt.Errorf("%w: slot range %d-%d", ErrOutOfRange, r.First, r.Last)
			}
			s.Slots = append(s.Slots, r)
		}
		m.Shards = append(m.Shards, s)
	}
	return f.end()
}
