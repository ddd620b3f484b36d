package resp

import (
	"math"
	"strconv"
	"testing"
)

func TestParseInt(t *testing.T) {
	for s, want := range map[string]int64{
		"0": 0, "1": 1, "-1": -1, "10": 10, "9223372036854775807": math.MaxInt64, "-9223372036854775808": math.MinInt64,
	} {
		if got, ok := ParseInt([]byte(s)); got != want || !ok {
			t.Errorf("%q: %d, %v", s, got, ok)
		}
	}
	for _, s := range []string{
		"", "-", "+1", "01", "00", "-0", "-01", " 1", "1 ", "1\x00", "1.0", "0x1", "1e3", "a", "--1",
		"9223372036854775808", "-9223372036854775809", "10000000000000000000", "18446744073709551617", "99999999999999999999999",
	} {
		if got, ok := ParseInt([]byte(s)); ok {
			t.Errorf("%q: %d", s, got)
		}
	}
}

func FuzzParseInt(f *testing.F) {
	for _, s := range []string{"0", "-1", "9223372036854775807", "01", "+5"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		want, err := strconv.ParseInt(s, 10, 64)
		canonical := err == nil && strconv.FormatInt(want, 10) == s
		if got, ok := ParseInt([]byte(s)); ok != canonical || ok && got != want {
			t.Errorf("%q: %d, %v", s, got, ok)
		}
	})
}
