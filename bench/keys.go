package bench

import (
	"math/bits"
	"math/rand/v2"
)

// Keys are a prefix and a number of fixed width, so that all are equally long
// and sort by number.
const (
	keyPrefix = "key:"
	keyDigits = 12
	keysMax   = 1_000_000_000_000

	// KeyBytes is the length of every key.
	KeyBytes = len(keyPrefix) + keyDigits
)

// AppendKey appends key number i, below 10^12: "key:" and twelve digits.
func AppendKey(dst []byte, i uint64) []byte {
	return appendDigits(append(dst, keyPrefix...), i, keyDigits)
}

// Chooser chooses keys uniformly and independently. It belongs to one
// goroutine.
type Chooser struct {
	keys   uint64
	random rand.PCG
}

// NewChooser returns a Chooser of numbers below keys, which must not be 0. The
// seed and the stream determine the choice; the streams of one seed differ.
func NewChooser(keys, seed, stream uint64) *Chooser {
	c := &Chooser{keys: keys}
	c.random.Seed(seed, 0x9e3779b97f4a7c15+stream*0xbf58476d1ce4e5b9)
	return c
}

// Next returns the number of the next key. The product of a random 64-bit
// number and keys, divided by 2^64, is uniform but for one part in 2^64/keys.
func (c *Chooser) Next() uint64 {
	i, _ := bits.Mul64(c.random.Uint64(), c.keys)
	return i
}

// order yields the numbers of the keys to ask for, one after the other or by
// chance.
type order struct {
	keys       uint64
	sequential bool
	next       uint64
	random     *Chooser
}

func newOrder(c *Config) order {
	return order{keys: c.Keys, sequential: c.Sequential, random: NewChooser(c.Keys, c.Seed, 0)}
}

// choose returns a number below keys.
func (o *order) choose() uint64 {
	if !o.sequential {
		return o.random.Next()
	}
	i := o.next
	if o.next++; o.next == o.keys {
		o.next = 0
	}
	return i
}

// NewValue returns n bytes that do not compress and that the seed determines.
func NewValue(n int, seed uint64) []byte {
	random := rand.NewPCG(seed, 0x2545f4914f6cdd1d)
	v := make([]byte, n)
	for i := range v {
		v[i] = byte(random.Uint64() >> 56)
	}
	return v
}
