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
	dst = append(dst, keyPrefix+"000000000000"...)
	for at := len(dst) - 1; i > 0; at-- {
		dst[at] = byte('0' + i%10)
		i /= 10
	}
	return dst
}

// chooser yields the numbers of the keys to ask for.
type chooser struct {
	keys       uint64
	sequential bool
	next       uint64
	random     rand.PCG
}

func newChooser(c *Config) chooser {
	ch := chooser{keys: c.Keys, sequential: c.Sequential}
	ch.random.Seed(c.Seed, 0x9e3779b97f4a7c15)
	return ch
}

// choose returns a number below keys. The product of a random 64-bit number
// and keys, divided by 2^64, is uniform but for one part in 2^64/keys.
func (c *chooser) choose() uint64 {
	if c.sequential {
		i := c.next
		if c.next++; c.next == c.keys {
			c.next = 0
		}
		return i
	}
	i, _ := bits.Mul64(c.random.Uint64(), c.keys)
	return i
}

// newValue returns n bytes that do not compress.
func newValue(n int, seed uint64) []byte {
	random := rand.NewPCG(seed, 0x2545f4914f6cdd1d)
	v := make([]byte, n)
	for i := range v {
		v[i] = byte(random.Uint64() >> 56)
	}
	return v
}
