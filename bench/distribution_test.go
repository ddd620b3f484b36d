package bench

import (
	"encoding/binary"
	"hash/fnv"
	"math"
	"math/rand/v2"
	"slices"
	"testing"
)

func TestZeta(t *testing.T) {
	for _, theta := range []float64{0.5, 0.99} {
		sum := 0.0
		for i := 1; i <= 300_000; i++ {
			sum += math.Pow(float64(i), -theta)
			switch i {
			case 1, 2, zetaExact, zetaExact + 1, 2000, 300_000:
				if got := zeta(uint64(i), theta); math.Abs(got-sum) > 1e-9*sum {
					t.Errorf("zeta(%d, %v) is %v, the sum is %v", i, theta, got, sum)
				}
			}
		}
	}
	// The constant that YCSB ships for its ten billion ranks.
	if got := zeta(zipfScrambled, ZipfTheta); math.Abs(got-26.46902820178302) > 1e-6 {
		t.Errorf("zeta of YCSB's ranks is %v", got)
	}
}

// What is drawn follows the formula. The ranks past the second come from an
// approximation, hence the tolerance for each; sums over many are close.
func TestZipfFrequencies(t *testing.T) {
	const n, draws = 1000, 2_000_000
	z := NewZipf(n, ZipfTheta)
	random := rand.New(rand.NewPCG(1, 2))
	seen := make([]float64, n)
	for range draws {
		seen[z.Rank(random.Float64())]++
	}
	for rank := range 2 {
		want := z.probability(uint64(rank))
		if got := seen[rank] / draws; math.Abs(got-want) > 0.01*want {
			t.Errorf("rank %d: share %v, want %v", rank, got, want)
		}
	}
	for _, upTo := range []int{3, 10, 50, 100, 300, 700} {
		got, want := 0.0, 0.0
		for rank := range upTo {
			got += seen[rank] / draws
			want += z.probability(uint64(rank))
		}
		if math.Abs(got-want) > 0.05*want {
			t.Errorf("the first %d ranks: share %v, want %v", upTo, got, want)
		}
	}
	if slices.Index(seen, 0) >= 0 {
		t.Errorf("rank %d was never drawn", slices.Index(seen, 0))
	}
}

func TestZipfEdges(t *testing.T) {
	for _, n := range []uint64{1, 2, 3, 1e12} {
		z := NewZipf(n, ZipfTheta)
		for _, u := range []float64{0, 0.5, 1 - 0x1p-53} {
			if rank := z.Rank(u); rank >= n {
				t.Errorf("%v of %d ranks draws %d", u, n, rank)
			}
		}
	}
	grown, fresh := NewZipf(1000, ZipfTheta), NewZipf(1004, ZipfTheta)
	for n := uint64(1001); n <= 1004; n++ {
		grown = grown.grown(n)
	}
	if math.Abs(grown.zeta-fresh.zeta) > 1e-9 || math.Abs(grown.eta-fresh.eta) > 1e-9 || grown.n != 1004 {
		t.Errorf("grown one by one: %+v, at once: %+v", grown, fresh)
	}
	if far := grown.grown(1e6); math.Abs(far.zeta-zeta(1e6, ZipfTheta)) > 1e-9 {
		t.Errorf("grown by much: %v", far.zeta)
	}
}

func TestHashed(t *testing.T) {
	for _, v := range []uint64{0, 1, 12345, math.MaxUint64} {
		h := fnv.New64a()
		h.Write(binary.LittleEndian.AppendUint64(nil, v))
		if hashed(v) != h.Sum64() {
			t.Errorf("%d is hashed to %x, want %x", v, hashed(v), h.Sum64())
		}
	}
}

// counts draws from a picker and returns how often each row came.
func counts(p *picker, draws int) map[uint64]int {
	seen := map[uint64]int{}
	for range draws {
		seen[p.existing()]++
	}
	return seen
}

func TestChoices(t *testing.T) {
	const keys, draws = 1000, 200_000
	newest := func(choice Choice) (hot uint64, share float64, distinct int) {
		p := newPicker(choice, keys, 1, 0, 1, 0)
		seen := counts(&p, draws)
		for row, n := range seen {
			if row >= keys {
				t.Fatalf("%v: row %d of %d", choice, row, keys)
			}
			if n > seen[hot] {
				hot = row
			}
		}
		return hot, float64(seen[hot]) / draws, len(seen)
	}
	if _, share, distinct := newest(Uniform); share > 0.002 || distinct != keys {
		t.Errorf("uniform: the most frequent of %d rows has a share of %v", distinct, share)
	}
	// The first rank, scattered by the hash, and what else falls on its row.
	z := NewZipf(zipfScrambled, ZipfTheta)
	if hot, share, distinct := newest(Zipfian); hot != hashed(0)%keys || math.Abs(share-z.probability(0)) > 0.005 || distinct != keys {
		t.Errorf("zipfian: row %d has a share of %v, %d rows in all", hot, share, distinct)
	}
	z = NewZipf(keys, ZipfTheta)
	if hot, share, _ := newest(Latest); hot != keys-1 || math.Abs(share-z.probability(0)) > 0.005 {
		t.Errorf("latest: row %d has a share of %v, want %v", hot, share, z.probability(0))
	}
	p := newPicker(InOrder, 5, 1, 1, 2, 0)
	for _, want := range []uint64{1, 3, 1, 3} {
		if got := p.existing(); got != want {
			t.Errorf("in order: %d, want %d", got, want)
		}
	}
}

// What was inserted becomes the most frequent, but for the newest, which may be
// on their way, and for those that are known to be.
func TestLatestFollowsInserts(t *testing.T) {
	const keys, threads, thread, margin, inserts = 1000, 3, 2, 4, arrivedMax + 100
	lost := uint64(keys + (inserts-margin-1)*threads + thread)
	p := newPicker(Latest, keys, 1, thread, threads, margin)
	own := map[uint64]bool{}
	var last uint64
	for i := range inserts {
		row := p.fresh()
		if row < keys || row%threads != (keys+thread)%threads || own[row] {
			t.Fatalf("insert %d is row %d", i, row)
		}
		if own[row] = true; row == lost {
			continue
		}
		p.acknowledged(row)
		if i < inserts-margin {
			last = row
		}
	}
	seen := counts(&p, 200_000)
	hot := last
	for row, n := range seen {
		if row >= keys && !own[row] || row > last {
			t.Fatalf("row %d was not inserted by then", row)
		}
		if n > seen[hot] {
			hot = row
		}
	}
	if hot != last {
		t.Errorf("most frequent is row %d, want %d", hot, last)
	}
}

func TestSeeds(t *testing.T) {
	draw := func(seed uint64, thread int) (rows []uint64) {
		p := newPicker(Zipfian, 1e6, seed, thread, 2, 0)
		for range 50 {
			rows = append(rows, p.existing())
		}
		return rows
	}
	if !slices.Equal(draw(1, 0), draw(1, 0)) || slices.Equal(draw(1, 0), draw(2, 0)) || slices.Equal(draw(1, 0), draw(1, 1)) {
		t.Error("the choice does not depend on seed and thread alone")
	}
}

// probability returns how likely a rank is by the definition.
func (z *Zipf) probability(rank uint64) float64 {
	return math.Pow(float64(rank+1), -z.theta) / z.zeta
}
