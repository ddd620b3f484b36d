package bench

import (
	"fmt"
	"math/bits"
	"strconv"
	"strings"
)

// Sizes is a distribution of sizes: one size, a range in which all are equally
// likely, or several of these with a share each. The zero value is the size 0.
type Sizes struct{ parts []sizePart }

// sizePart is chosen by all numbers below upTo that no part before it takes.
type sizePart struct {
	upTo      uint64 // of a uniformly random 64-bit number; the last takes all
	share     float64
	low, high int // inclusive
}

// sizesPartsMax bounds the parts of a distribution.
const sizesPartsMax = 64

// FixedSize returns the distribution that has only n.
func FixedSize(n int) Sizes { return Sizes{[]sizePart{{share: 1, low: n, high: n}}} }

// ParseSizes reads a distribution: "128", "16..1024", or shares that add up to
// 100 percent, such as "90%:128,10%:1024..4096".
func ParseSizes(text string) (Sizes, error) {
	words := strings.Split(text, ",")
	if len(words) == 1 && !strings.Contains(text, "%") {
		p, err := parseRange(text)
		p.share = 1
		return Sizes{[]sizePart{p}}, err
	}
	if len(words) > sizesPartsMax {
		return Sizes{}, fmt.Errorf("%w: sizes with %d parts, at most %d are allowed", ErrConfig, len(words), sizesPartsMax)
	}
	var s Sizes
	sum := 0.0
	for _, w := range words {
		share, size, ok := strings.Cut(strings.TrimSpace(w), "%:")
		percent, err := strconv.ParseFloat(share, 64)
		if !ok || err != nil || !(percent > 0) || percent > 100 {
			return Sizes{}, fmt.Errorf("%w: %q is not a share; write shares like 90%%:128,10%%:1024..4096", ErrConfig, w)
		}
		p, err := parseRange(size)
		if err != nil {
			return Sizes{}, err
		}
		sum += percent
		p.share, p.upTo = percent/100, uint64(min(sum/100, 1-1e-12)*(1<<63))<<1
		s.parts = append(s.parts, p)
	}
	if sum < 99.999 || sum > 100.001 {
		return Sizes{}, fmt.Errorf("%w: the shares of %q add up to %g%%, not to 100%%", ErrConfig, text, sum)
	}
	return s, nil
}

// parseRange reads a size or a range of sizes.
func parseRange(text string) (p sizePart, err error) {
	low, high, isRange := strings.Cut(strings.TrimSpace(text), "..")
	if !isRange {
		high = low
	}
	var errLow, errHigh error
	p.low, errLow = strconv.Atoi(low)
	p.high, errHigh = strconv.Atoi(high)
	if errLow != nil || errHigh != nil || p.low < 0 || p.high < p.low {
		return p, fmt.Errorf("%w: %q is neither a size, such as 128, nor a range, such as 16..1024", ErrConfig, text)
	}
	return p, nil
}

// At returns the size that a uniformly random number chooses. The same number
// chooses the same size.
func (s Sizes) At(random uint64) int {
	if len(s.parts) == 0 {
		return 0
	}
	p := &s.parts[0]
	if len(s.parts) > 1 {
		last := len(s.parts) - 1
		at := 0
		for at < last && random >= s.parts[at].upTo {
			at++
		}
		p = &s.parts[at]
		random *= 0x9e3779b97f4a7c15 // which part it is must not decide the size within
	}
	if p.low == p.high {
		return p.low
	}
	above, _ := bits.Mul64(random, uint64(p.high-p.low+1))
	return p.low + int(above)
}

// Min returns the smallest size.
func (s Sizes) Min() int {
	if len(s.parts) == 0 {
		return 0
	}
	n := s.parts[0].low
	for _, p := range s.parts {
		n = min(n, p.low)
	}
	return n
}

// Max returns the largest size.
func (s Sizes) Max() int {
	n := 0
	for _, p := range s.parts {
		n = max(n, p.high)
	}
	return n
}

// String returns the distribution as ParseSizes reads it.
func (s Sizes) String() string {
	if len(s.parts) == 0 {
		return "0"
	}
	var words []string
	for _, p := range s.parts {
		w := strconv.Itoa(p.low)
		if p.high > p.low {
			w += ".." + strconv.Itoa(p.high)
		}
		if len(s.parts) > 1 {
			w = strconv.FormatFloat(p.share*100, 'g', -1, 64) + "%:" + w
		}
		words = append(words, w)
	}
	return strings.Join(words, ",")
}
