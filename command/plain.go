package command

// What was added to commands without a new format is known to some members of a
// cluster that is being upgraded, and not to others. A kind, or a comparison,
// that a replica does not know stops it, and a flag that it takes for nothing
// has it go on with another state than the rest. So none of them may get into a
// log before all members know them.

// Plain returns c as replicas of earlier versions carry it out too, or
// ErrEarlierVersion where they cannot. It may return c.
func (c *Command) Plain() (*Command, error) {
	if !c.isPlain() {
		return nil, ErrEarlierVersion
	}
	added := c.Kind.proposers()
	if c.Flags&added == 0 {
		return c, nil
	}
	plain := *c
	plain.Flags &^= added
	return &plain, nil
}

// proposers returns the flags of a command of this kind that are no part of what
// a client asks for: the proposer sets them once all members know them.
func (k Kind) proposers() Flags {
	switch k {
	case Txn:
		return Whole
	case Get, Batch:
		return Counted
	}
	return 0
}

// lastPlain is the last of the kinds that every version knows. Those after it are not
// plain; a kind that is added needs a condition of its own for when all members know it:
// the one for the present ones (all members have a key, see raftgroup) says nothing of it.
const lastPlain = Rename

func (c *Command) isPlain() bool {
	if c.Kind < Put || c.Kind > lastPlain {
		return false
	}
	for i := range c.Compares {
		if c.Compares[i].Target == OnAbsence {
			return false
		}
	}
	for _, ops := range [][]Command{c.Ops, c.Else} {
		for i := range ops {
			if !ops[i].isPlain() {
				return false
			}
		}
	}
	return true
}
