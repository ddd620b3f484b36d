package report

import (
	"fmt"
	"slices"
)

// Median returns the middle of v, the mean of the middle two where there is
// none, and 0 if v is empty.
func Median(v []float64) float64 {
	v = slices.Sorted(slices.Values(v))
	if len(v) == 0 {
		return 0
	}
	return (v[(len(v)-1)/2] + v[len(v)/2]) / 2
}

// Ratio is how two variants compare: the median of the ratios within each
// round, and the smallest and largest of those. Its zero value stands for
// nothing to compare.
type Ratio struct {
	Median float64 `json:"median"`
	Low    float64 `json:"low"`
	High   float64 `json:"high"`
}

// RatioOf compares a with b, round by round.
func RatioOf(a, b []float64) Ratio {
	v := make([]float64, min(len(a), len(b)))
	for i := range v {
		v[i] = Quotient(a[i], b[i])
	}
	if len(v) == 0 {
		return Ratio{}
	}
	return Ratio{Median(v), slices.Min(v), slices.Max(v)}
}

// String returns the median with the range in parentheses.
func (r Ratio) String() string {
	return fmt.Sprintf("%.3f (%.2f–%.2f)", r.Median, r.Low, r.High)
}

// Quotient returns a / b, 0 where b is 0.
func Quotient(a, b float64) float64 {
	if b == 0 {
		return 0
	}
	return a / b
}

// Sum adds two series of figures round by round.
func Sum(a, b []float64) []float64 {
	v := make([]float64, min(len(a), len(b)))
	for i := range v {
		v[i] = a[i] + b[i]
	}
	return v
}
