package bench

import "math/rand/v2"

// Prefix begins the key of every row that this package writes, so that a load
// overwrites nothing of an application. [Harness.Claim]
// refuses to begin where other rows lie under it, and [DeleteRows] deletes them.
const Prefix = "_bench/"

// Behind Prefix stands what sort of row it is, and the row's number or, for
// ycsbRows, its hash. Numbers have a fixed width, so that all keys of a sort are
// equally long, 16 or 24 bytes, and those with numbers sort by them.
const (
	plainRows   = Prefix + "k"
	counterRows = Prefix + "c"
	ycsbRows    = Prefix + "user"

	numberDigits = 8  // 40 bits, for numbers below keysMax
	hashDigits   = 13 // 65 bits, for hashes
	keysMax      = 1_000_000_000_000

	// KeyBytes is the length of every key that AppendKey makes.
	KeyBytes = len(plainRows) + numberDigits
)

// AppendKey appends key number i, below 10^12: "_bench/k" and eight digits.
func AppendKey(dst []byte, i uint64) []byte {
	return appendDigits(append(dst, plainRows...), i, numberDigits)
}

// digitBits is what each digit holds. The digits are those of RFC 4648's
// base32hex in lower case, which sort by value.
const (
	digitBits = 5
	keyDigits = "0123456789abcdefghijklmnopqrstuv"
)

// appendDigits appends a number in so many digits, leading zeros included.
func appendDigits(dst []byte, v uint64, digits int) []byte {
	for shift := digitBits * (digits - 1); shift >= 0; shift -= digitBits {
		dst = append(dst, keyDigits[v>>shift&(1<<digitBits-1)])
	}
	return dst
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
