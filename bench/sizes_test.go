package bench

import (
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"strings"
	"testing"
)

func TestSizes(t *testing.T) {
	for _, tc := range []struct {
		text     string
		min, max int
		want     string // where it differs from text
	}{
		{"128", 128, 128, ""}, {"0", 0, 0, ""}, {"16..1024", 16, 1024, ""}, {"5..5", 5, 5, "5"}, {" 7 ", 7, 7, "7"},
		{"90%:128,10%:4096", 128, 4096, ""}, {"50%:1..3, 49.5%:9,0.5%:10..20", 1, 20, "50%:1..3,49.5%:9,0.5%:10..20"},
		{"100%:64", 64, 64, "64"},
	} {
		s, err := ParseSizes(tc.text)
		if tc.want == "" {
			tc.want = tc.text
		}
		if err != nil || s.Min() != tc.min || s.Max() != tc.max || s.String() != tc.want {
			t.Errorf("%q is %v, %d to %d, %v", tc.text, s, s.Min(), s.Max(), err)
		}
	}
	for _, text := range []string{"", "x", "-1", "5..3", "..", "1..", "50%:1", "60%:1,50%:2", "0%:1,100%:2", "1,2", "50%:1,50%", "101%:1", "NaN%:1,50%:2", "9999999999999999999",
		strings.Repeat("1%:1,", 99) + "1%:1"} {
		if _, err := ParseSizes(text); !errors.Is(err, ErrConfig) {
			t.Errorf("%q was accepted: %v", text, err)
		}
	}
	if s := (Sizes{}); s.At(5) != 0 || s.Min() != 0 || s.Max() != 0 || s.String() != "0" {
		t.Error("the zero value is not the size 0")
	}
}

// Each part has its share, and within a part all sizes are equally likely.
func TestSizesShares(t *testing.T) {
	s, err := ParseSizes("20%:1,30%:10..19,50%:100")
	if err != nil {
		t.Fatal(err)
	}
	const draws = 200_000
	random := rand.New(rand.NewPCG(1, 2))
	seen := map[int]int{}
	for range draws {
		seen[s.At(random.Uint64())]++
	}
	want := map[int]float64{1: 0.2, 100: 0.5}
	for n := 10; n < 20; n++ {
		want[n] = 0.03
	}
	for n, share := range want {
		if got := float64(seen[n]) / draws; math.Abs(got-share) > 0.005 {
			t.Errorf("size %d: share %.4f, want %.4f", n, got, share)
		}
	}
	if len(seen) != len(want) {
		t.Errorf("other sizes as well: %v", seen)
	}
	for _, random := range []uint64{0, math.MaxUint64} {
		if a, b := s.At(random), s.At(random); a != b {
			t.Error("the same number chooses different sizes")
		}
	}
}

func FuzzParseSizes(f *testing.F) {
	for _, text := range []string{"128", "1..2", "90%:128,10%:4096", "50%:1..3,50%:7", "%:", "..,"} {
		f.Add(text, uint64(1)<<40)
	}
	f.Fuzz(func(t *testing.T, text string, random uint64) {
		s, err := ParseSizes(text)
		if err != nil {
			return
		}
		if n := s.At(random); n < s.Min() || n > s.Max() {
			t.Fatalf("%d is not within %d to %d", n, s.Min(), s.Max())
		}
		again, err := ParseSizes(s.String())
		if err != nil || fmt.Sprint(again) != fmt.Sprint(s) {
			t.Fatalf("%q is shown as %q, which reads as %v, %v", text, s, again, err)
		}
	})
}
