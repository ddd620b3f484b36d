package bench

import (
	"math"
	"math/bits"
	"math/rand/v2"
)

// Choice says how a workload chooses among the rows.
type Choice uint8

// The choices.
const (
	Uniform Choice = iota // all equally likely
	Zipfian               // few are asked for often, scattered over the rows
	Latest                // what was inserted last most often
	InOrder               // one after the other
	choiceEnd
)

var choiceNames = [choiceEnd]string{"uniform", "zipfian", "latest", "sequential"}

// String returns the name that ParseChoice reads.
func (c Choice) String() string {
	if c >= choiceEnd {
		return "unknown"
	}
	return choiceNames[c]
}

// ParseChoice reads "uniform", "zipfian", "latest" or "sequential".
func ParseChoice(name string) (Choice, bool) {
	for c, n := range choiceNames {
		if n == name {
			return Choice(c), true
		}
	}
	return 0, false
}

// Zipf draws ranks below n: rank i is (i+1)^-theta times as likely as rank 0.
// The generator is that of Gray, Sundaresan, Englert, Baclawski and Weinberger,
// "Quickly generating billion-record synthetic databases", SIGMOD 1994. Ranks
// past the second are drawn from a continuous approximation, which is off by
// some percent for the first few. A Zipf is a value; drawing does not change it.
type Zipf struct {
	n                       uint64
	theta, alpha, zeta, eta float64
	second                  float64 // 1 + 0.5^theta
}

// ZipfTheta is the skew that YCSB uses.
const ZipfTheta = 0.99

// NewZipf returns a Zipf over n ranks, at least 1, with 0 < theta < 1.
func NewZipf(n uint64, theta float64) Zipf {
	z := Zipf{theta: theta, alpha: 1 / (1 - theta), second: 1 + math.Pow(0.5, theta)}
	return z.over(n, zeta(n, theta))
}

// over returns z over n ranks, whose terms have the given sum.
func (z Zipf) over(n uint64, sum float64) Zipf {
	z.n, z.zeta, z.eta = n, sum, 1
	if n > 2 {
		z.eta = (1 - math.Pow(2/float64(n), 1-z.theta)) / (1 - z.second/sum)
	}
	return z
}

// grown returns z over n ranks, no fewer than it has. Where few were added, so
// are their terms: it is cheap to call after each insert.
func (z Zipf) grown(n uint64) Zipf {
	if n-z.n > 4 {
		return z.over(n, zeta(n, z.theta))
	}
	sum := z.zeta
	for i := z.n + 1; i <= n; i++ {
		sum += math.Pow(float64(i), -z.theta)
	}
	return z.over(n, sum)
}

// Rank returns the rank that a uniformly random number, 0 <= u < 1, draws.
func (z *Zipf) Rank(u float64) uint64 {
	uz := u * z.zeta
	switch {
	case uz < 1 || z.n == 1:
		return 0
	case uz < z.second || z.n == 2:
		return 1
	}
	return min(uint64(float64(z.n)*math.Pow(z.eta*u-z.eta+1, z.alpha)), z.n-1)
}

// zetaExact is up to where zeta adds one by one.
const zetaExact = 1000

// zeta returns the sum of i^-theta for i from 1 to n: the first terms one by
// one, the others by the Euler-Maclaurin formula, whose error is below 1e-12
// from there on.
func zeta(n uint64, theta float64) float64 {
	sum := 0.0
	for i := min(n, zetaExact); i > 0; i-- {
		sum += math.Pow(float64(i), -theta)
	}
	if n <= zetaExact {
		return sum
	}
	a, b := float64(zetaExact), float64(n)
	fa, fb := math.Pow(a, -theta), math.Pow(b, -theta)
	return sum + (b*fb-a*fa)/(1-theta) + (fb-fa)/2 + theta/12*(fa/a-fb/b)
}

// zipfScrambled is over how many ranks the scrambled choice draws, whatever the
// number of rows: as in YCSB, so that the skew does not depend on it.
const zipfScrambled = 10_000_000_000

// hashed is FNV-1a, 64 bits, of a number's little-endian bytes. YCSB scatters
// with it what is popular, and the order of keys.
func hashed(v uint64) uint64 {
	h := uint64(0xcbf29ce484222325)
	for range 8 {
		h = (h ^ v&0xff) * 0x100000001b3
		v >>= 8
	}
	return h
}

// scatter scatters a number over all 64 bits, without collisions (the finalizer
// of SplitMix64).
func scatter(v uint64) uint64 {
	v = (v ^ v>>30) * 0xbf58476d1ce4e5b9
	v = (v ^ v>>27) * 0x94d049bb133111eb
	return v ^ v>>31
}

// picker chooses rows for one thread out of those that were there at the start
// and those the thread has inserted. Nothing but the seed and the thread's own
// number of requests determines what it chooses, so two runs ask for the same;
// the one exception is an insert that is not acknowledged long after it was
// sent, in the place of which an older row is read.
type picker struct {
	random  rand.PCG
	choice  Choice
	keys    uint64 // rows at the start
	thread  uint64 // of threads
	threads uint64
	zipf    Zipf

	next     uint64 // InOrder: the row to take next
	inserted uint64 // by this thread
	// margin is how many of the newest inserts are not chosen, because they may
	// be on their way still.
	margin uint64
	// arrived has a bit for each of the last arrivedMax inserts: it was
	// acknowledged.
	arrived [arrivedMax / 64]uint64
}

const arrivedMax = 4096

func newPicker(choice Choice, keys, seed uint64, thread, threads int, margin uint64) picker {
	p := picker{choice: choice, keys: keys, thread: uint64(thread), threads: uint64(threads), margin: margin, next: uint64(thread)}
	p.random.Seed(seed, 0x9e3779b97f4a7c15+uint64(thread)*0xbf58476d1ce4e5b9)
	switch choice {
	case Zipfian:
		p.zipf = NewZipf(zipfScrambled, ZipfTheta)
	case Latest:
		p.zipf = NewZipf(keys, ZipfTheta)
	}
	return p
}

// below returns a uniformly random number below n: the product of a random 64-bit
// number and n, divided by 2^64, is uniform but for one part in 2^64/n.
func (p *picker) below(n uint64) uint64 {
	i, _ := bits.Mul64(p.random.Uint64(), n)
	return i
}

// unit returns a uniformly random number, 0 <= u < 1.
func (p *picker) unit() float64 { return float64(p.random.Uint64()>>11) / (1 << 53) }

// existing chooses a row that is there.
func (p *picker) existing() uint64 {
	switch p.choice {
	case Zipfian:
		return hashed(p.zipf.Rank(p.unit())) % p.keys
	case Latest:
		return p.latest()
	case InOrder:
		row := p.next
		if p.next += p.threads; p.next >= p.keys {
			p.next = p.thread % p.keys
		}
		return row
	}
	return p.below(p.keys)
}

// latest chooses the newer rows more often.
func (p *picker) latest() uint64 {
	visible := p.inserted - min(p.inserted, p.margin)
	if n := p.keys + visible; n != p.zipf.n {
		p.zipf = p.zipf.grown(n)
	}
	rank := p.zipf.Rank(p.unit())
	for ; rank < visible; rank++ {
		if n := visible - 1 - rank; p.isThere(n) {
			return p.keys + n*p.threads + p.thread
		}
	}
	return p.keys - 1 - (rank - visible)
}

// isThere reports whether the thread's insert n was acknowledged. Of old ones
// that is taken for granted.
func (p *picker) isThere(n uint64) bool {
	return p.inserted-n > arrivedMax || p.arrived[n%arrivedMax/64]&(1<<(n%64)) != 0
}

// acknowledged notes that a row which fresh has returned is there.
func (p *picker) acknowledged(row uint64) {
	if n := (row - p.keys - p.thread) / p.threads; p.inserted-n <= arrivedMax {
		p.arrived[n%arrivedMax/64] |= 1 << (n % 64)
	}
}

// fresh returns the row to insert next. Each thread has its own.
func (p *picker) fresh() uint64 {
	n := p.inserted
	p.arrived[n%arrivedMax/64] &^= 1 << (n % 64)
	p.inserted++
	return p.keys + n*p.threads + p.thread
}
