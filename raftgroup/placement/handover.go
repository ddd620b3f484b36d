package placement

// Candidate is what is known of a node that may be given leaderships.
type Candidate struct {
	Leaders int  // shards that it leads, or is about to
	Well    bool // it is up, and neither stops, drains, stalls nor has a wrong clock
	Able    bool // the same, but its disk may stall and its clock may be wrong
}

// Led is a shard that the deciding node leads.
type Led struct {
	Shard      int
	MustGo     bool     // the replica is damaged, or has no lease for the rest of its term
	Busy       bool     // a transfer is under way
	Successors []uint64 // voters that are caught up and undamaged
}

// Own is what is known of the deciding node.
type Own struct {
	Leaves bool // it stops, drains, or is being removed: it must lead nothing
	Unwell bool // its disk stalls or its clock is wrong: it leads what nobody else can
	Spread bool // it hands over what it leads in excess of other nodes
}

// Transfer is a leadership to hand over.
type Transfer struct {
	Shard  int
	To     uint64 // replica
	Spread bool   // for balance only
}

// Handover returns the leaderships that a node must hand over.
func Handover(led []Led, nodes map[uint64]Candidate, own Own) (transfers []Transfer) {
	mine, given := len(led), make(map[uint64]int)
	for i := range led {
		l := &led[i]
		if l.Busy {
			continue
		}
		best := bestOf(l.Successors, nodes, given, func(c Candidate) bool { return c.Well })
		switch {
		case own.Leaves || l.MustGo:
			if best == 0 {
				best = bestOf(l.Successors, nodes, given, func(c Candidate) bool { return c.Able })
			}
			if best != 0 {
				transfers = append(transfers, Transfer{l.Shard, best, false})
			}
		case best == 0:
		case own.Unwell:
			transfers = append(transfers, Transfer{l.Shard, best, false})
		case own.Spread && mine-nodes[NodeOf(best)].Leaders-given[NodeOf(best)] >= 2:
			transfers = append(transfers, Transfer{l.Shard, best, true})
			given[NodeOf(best)]++
			mine--
		}
	}
	return transfers
}

// Successor returns the best successor of a leader that has to go, 0 if there is
// none.
func Successor(successors []uint64, nodes map[uint64]Candidate) uint64 {
	if t := Handover([]Led{{Successors: successors}}, nodes, Own{Leaves: true}); len(t) > 0 {
		return t[0].To
	}
	return 0
}

// bestOf returns the successor whose node leads least, 0 if no node is fit.
func bestOf(successors []uint64, nodes map[uint64]Candidate, given map[uint64]int, fit func(Candidate) bool) (best uint64) {
	least := 0
	for _, id := range successors {
		c := nodes[NodeOf(id)]
		if leaders := c.Leaders + given[NodeOf(id)]; fit(c) && (best == 0 || leaders < least) {
			best, least = id, leaders
		}
	}
	return best
}
