package command

// EachKey calls f for the keys of c: with that of each comparison and each
// operation of either list, and where that is a Rename with its destination. A
// DeleteRange has none.
func (c *Command) EachKey(f func(key, destination []byte)) {
	for i := range c.Compares {
		f(c.Compares[i].Key, nil)
	}
	for _, ops := range [][]Command{c.Ops, c.Else} {
		for i := range ops {
			ops[i].EachKey(f)
		}
	}
	switch {
	case len(c.Key) == 0, c.Kind == DeleteRange: // bounds are no keys
	case c.Kind == Rename:
		f(c.Key, c.Value)
	default:
		f(c.Key, nil)
	}
}

// FirstKey returns the first key that EachKey visits, nil where there is none.
func (c *Command) FirstKey() []byte {
	switch {
	case len(c.Compares) > 0:
		return c.Compares[0].Key
	case len(c.Ops) > 0:
		return c.Ops[0].FirstKey()
	case len(c.Else) > 0:
		return c.Else[0].FirstKey()
	}
	return c.Key
}
