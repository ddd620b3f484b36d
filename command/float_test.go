package command

import (
	"bytes"
	"math/big"
	"regexp"
	"strings"
	"testing"
)

// What an x86-64 C library makes of strtold(a) + strtold(b), with %.17Lf.
func TestAddFloat(t *testing.T) {
	zeros := func(n int) string { return strings.Repeat("0", n) }
	long := "1" + zeros(5118)
	for _, tc := range []struct {
		a, b, want string
		status     Status
	}{
		{"0", "0", "0", OK},
		{"10.5", "0.1", "10.6", OK},
		{"10.6", "-5", "5.6", OK},
		{"5.0e3", "2.0e2", "5200", OK},
		{"0.1", "0.2", "0.3", OK},
		{"3", "-3", "0", OK},
		{"-0", "-0", "0", OK},
		{"-1e-18", "0", "0", OK},
		{"-0.00000000000000001", "0", "-0.00000000000000001", OK},
		{"0.000000000000000005", "0", "0", OK}, // half, and the nearest number is below it
		{"0.0000000000000000051", "0", "0.00000000000000001", OK},
		{"0.000000000000000004", "0", "0", OK},
		{"1e19", "1", "10000000000000000001", OK},
		{"18446744073709551615", "0", "18446744073709551615", OK}, // 64 bits
		{"18446744073709551615", "1", "18446744073709551616", OK},
		{"18446744073709551616", "1", "18446744073709551616", OK}, // a tie, to even
		{"18446744073709551618", "1", "18446744073709551620", OK}, // a tie, to even
		{"18446744073709551617", "0", "18446744073709551616", OK},
		{"18446744073709551619", "0", "18446744073709551620", OK},
		{"9223372036854775807", "0.5", "9223372036854775807.5", OK},
		{"1.5", "", "", NotFloat},
		{"", "1.5", "", NotFloat},
		{"007", "+.5", "7.5", OK},
		{"5.", "-.25", "4.75", OK},
		{".", "0", "", NotFloat},
		{"-", "0", "", NotFloat},
		{"+-1", "0", "", NotFloat},
		{"1.2.3", "0", "", NotFloat},
		{" 1", "0", "", NotFloat},
		{"1 ", "0", "", NotFloat},
		{"1\x00", "0", "", NotFloat},
		{"1_000", "0", "", NotFloat},
		{"1,5", "0", "", NotFloat},
		{"1e", "0", "", NotFloat},
		{"1e+", "0", "", NotFloat},
		{"1e1.5", "0", "", NotFloat},
		{"1E+2", "0", "100", OK},
		{"e5", "0", "", NotFloat},
		{"1p3", "0", "", NotFloat},
		{"0x1p3", "0", "8", OK},
		{"0X1.8P+1", "0", "3", OK},
		{"-0x.8", "0", "-0.5", OK},
		{"0xff", "0", "255", OK},
		{"0x1e2", "0", "482", OK}, // e is a digit
		{"0x", "0", "", NotFloat},
		{"0x.", "0", "", NotFloat},
		{"0xg", "0", "", NotFloat},
		{"0x1p", "0", "", NotFloat},
		{"x1", "0", "", NotFloat},
		{"0x10000000000000001", "0", "18446744073709551616", OK}, // a tie, to even
		{"0x10000000000000003", "0", "18446744073709551620", OK},
		{"0x1p16383", "-0x1p16383", "0", OK},
		{"0x1p16384", "0", "", NotFloat},
		{"0xffffffffffffffff8p16316", "0", "", NotFloat}, // rounds up to 2^16384
		{"0x1p-16445", "0", "0", OK},
		{"0x1p-16446", "0", "", NotFloat},
		{"-0x1p-16446", "0", "", NotFloat},
		{"0x1.0000000000000000001p-16446", "0", "0", OK},
		{"nan", "0", "", NotFloat},
		{"nan(1)", "0", "", NotFloat},
		{"infinite", "0", "", NotFloat},
		{"inf", "0", "", Overflow},
		{"0", "-Infinity", "", Overflow},
		{"INF", "-INF", "", Overflow},
		{"inf", "x", "", NotFloat},
		{"1e4932", "-1e4932", "0", OK},
		{"1e4933", "0", "", NotFloat},
		{"1e4932", "1e4932", "", Overflow},
		{"-1e4932", "-1e4932", "", Overflow},
		{"1e-4950", "0", "0", OK},
		{"1e-4951", "0", "", NotFloat},
		{"1e99999999999999999999", "0", "", NotFloat},
		{"1e-99999999999999999999", "0", "", NotFloat},
		{"0e99999999999999999999", "2", "2", OK},
		{"0." + zeros(5000) + "25e5001", "0", "2.5", OK},
		{"25" + zeros(5000) + "e-5001", "0", "2.5", OK},
		{zeros(5118) + "1", "0", "1", OK},
		{zeros(5119) + "1", "0", "", NotFloat},
		{long, "0", "", NotFloat}, // out of range
		{"0." + zeros(5116) + "1", "0", "", NotFloat},
		{"0x" + strings.Repeat("f", 5110) + "p-20440", "0", "1", OK},
		{"0x" + strings.Repeat("f", 5117), "0", "", NotFloat},
	} {
		got, status := AddFloat([]byte("before"), []byte(tc.a), []byte(tc.b))
		text, had := bytes.CutPrefix(got, []byte("before"))
		if !had || status != tc.status || status != OK && len(text) != 0 || tc.want != "" && string(text) != tc.want {
			t.Errorf("%.60q + %.60q = %.60q, %v; want %q, %v", tc.a, tc.b, text, status, tc.want, tc.status)
		}
	}
}

// The largest number is the longest text, and as exact as it is.
func TestAddFloatLargest(t *testing.T) {
	const text = "0x1.fffffffffffffffep16383"
	for sign, want := range map[string]int{"": FloatBytesMax - 1, "-": FloatBytesMax} {
		got, status := AddFloat(nil, []byte(sign+text), []byte("0"))
		if status != OK || len(got) != want {
			t.Fatalf("%d bytes, %v; want %d", len(got), status, want)
		}
		again, status := AddFloat(nil, got, []byte("0.125"))
		if status != OK || !bytes.Equal(again, got) {
			t.Errorf("read again it is %.20s…, %v", again, status)
		}
	}
}

var floatShape = regexp.MustCompile(`^-?(0|[1-9][0-9]*)(\.[0-9]{0,16}[1-9])?$`)

// FuzzAddFloat: whatever the texts are, the sum is in its one form, does not
// depend on the order, and is as near to the exact one as two roundings of the
// operands and one of the sum can bring it.
func FuzzAddFloat(f *testing.F) {
	f.Add([]byte("10.5"), []byte("0.1"))
	f.Add([]byte("-0x1.8p-3"), []byte("inf"))
	f.Add([]byte("1e4932"), []byte("1.2e-4950"))
	f.Fuzz(func(t *testing.T, a, b []byte) {
		sum, status := AddFloat(nil, a, b)
		if other, s := AddFloat(nil, b, a); s != status || !bytes.Equal(other, sum) {
			t.Fatalf("%q, %v one way, %q, %v the other", sum, status, other, s)
		}
		switch status {
		case OK:
		case NotFloat, Overflow:
			if len(sum) != 0 {
				t.Fatalf("%v with %q", status, sum)
			}
			return
		default:
			t.Fatalf("status %d", status)
		}
		if !floatShape.Match(sum) || string(sum) == "-0" || len(sum) > FloatBytesMax {
			t.Fatalf("not in its form: %q", sum)
		}
		again, status := AddFloat(nil, sum, []byte("0"))
		if status != OK || len(again) > FloatBytesMax {
			t.Fatalf("%q is refused when read again: %v", sum, status)
		}
		x, okX := exactly(a)
		y, okY := exactly(b)
		s, okS := exactly(sum)
		if !okX || !okY || !okS {
			return // a spelling, or a size, that package big does not take
		}
		want := new(big.Rat).Add(x, y)
		// 2^-63 of each operand is more than three roundings cost, and half a
		// unit of the last digit is that of the text.
		slack := new(big.Rat).Add(new(big.Rat).Abs(x), new(big.Rat).Abs(y))
		slack.Mul(slack, big.NewRat(1, 1<<62))
		slack.Add(slack, big.NewRat(1, 100_000_000_000_000_000))
		if want.Sub(want, s).Abs(want).Cmp(slack) > 0 {
			t.Fatalf("%q + %q = %q", a, b, sum)
		}
	})
}

// exactly reads a short decimal number with no rounding.
func exactly(text []byte) (*big.Rat, bool) {
	if len(text) > 40 || strings.ContainsAny(string(text), "xXpP_/") {
		return nil, false
	}
	if _, exponent, found := strings.Cut(strings.ToLower(string(text)), "e"); found && len(exponent) > 4 {
		return nil, false
	}
	return new(big.Rat).SetString(string(text))
}

func BenchmarkAddFloat(b *testing.B) {
	for name, text := range map[string]string{"short": "10.5", "largest": "1e4932", "smallest": "1e-4950"} {
		b.Run(name, func(b *testing.B) {
			var dst []byte
			b.ReportAllocs()
			for b.Loop() {
				dst, _ = AddFloat(dst[:0], []byte(text), []byte("0.1"))
			}
		})
	}
}
