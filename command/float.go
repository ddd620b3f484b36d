package command

import (
	"bytes"
	"math/big"
)

// Arithmetic of IncrFloat. Numbers are those of an 80-bit long double of x86:
// 64 bits of mantissa, exponents of 15 bits; they are rounded to the nearest,
// ties to even. Text is what the C library's strtold takes and what its printf
// writes with %.17Lf, without the zeros at the end.
//
// All of it is exact up to the one rounding, so that replicas on any processor
// agree, and bounded: a text over floatTextBytesMax is refused before it is
// looked at, and an exponent out of range before anything is raised to it.
const (
	// FloatBytesMax bounds what AddFloat appends: the largest number has 4,933
	// digits, and a sign. What has a fraction is much shorter.
	FloatBytesMax = 4934

	// floatTextBytesMax bounds the text of a number that is read.
	floatTextBytesMax = 5*1024 - 1

	floatMantissaBits = 64
	// A number is m·2^e with 1/2 <= m < 1, as in package big.
	floatExponentMax  = 16384     // of the largest
	floatSmallestHalf = -16446    // 2^that is half of the smallest, and rounds to 0
	floatFraction     = 17        // digits behind the point
	floatScaleMax     = 1_000_000 // exponents in a text are cut to this, far out of range
	floatMagnitudeMax = 4_933     // 10^that is over the largest
	floatMagnitudeMin = -4_951    // 10^that is below half of the smallest
	floatShownMin     = -60       // what is below 2^that, and so below 10^-17 / 2, is shown as 0
)

var floatHalf = newFloat().SetMantExp(newFloat().SetInt64(1), floatSmallestHalf)

// AddFloat appends the sum of two numbers to dst, as text: digits, with at most
// 17 behind the point, no exponent, no zeros that could be left out. It returns
// dst as it was, and NotFloat where one of the texts is no number, or Overflow
// where the sum is not finite.
//
// A number is, without regard to case and without blanks, a decimal one
// ("-1.5e3"), a hexadecimal one ("0x1.8p3"), or "inf" or "infinity", each with
// an optional sign; at most 5119 bytes; within the range of an 80-bit long
// double, and not so small that it would be 0.
func AddFloat(dst, a, b []byte) ([]byte, Status) {
	x, okX := parseFloat(a)
	y, okY := parseFloat(b)
	if !okX || !okY {
		return dst, NotFloat
	}
	if x.IsInf() || y.IsInf() {
		return dst, Overflow // infinity, or none at all
	}
	sum := newFloat().Add(x, y)
	if sum.Sign() != 0 && sum.MantExp(nil) > floatExponentMax {
		return dst, Overflow
	}
	return appendFloat(dst, sum), OK
}

func newFloat() *big.Float {
	return new(big.Float).SetPrec(floatMantissaBits).SetMode(big.ToNearestEven)
}

// appendFloat appends x, which is finite.
func appendFloat(dst []byte, x *big.Float) []byte {
	if x.Sign() == 0 || x.MantExp(nil) < floatShownMin {
		return append(dst, '0')
	}
	start := len(dst)
	dst = x.Append(dst, 'f', floatFraction)
	for dst[len(dst)-1] == '0' {
		dst = dst[:len(dst)-1]
	}
	if dst[len(dst)-1] == '.' {
		dst = dst[:len(dst)-1]
	}
	if string(dst[start:]) == "-0" {
		dst = append(dst[:start], '0')
	}
	return dst
}

// parseFloat reads the whole of text.
func parseFloat(text []byte) (*big.Float, bool) {
	if len(text) == 0 || len(text) > floatTextBytesMax {
		return nil, false
	}
	negative := text[0] == '-'
	if negative || text[0] == '+' {
		text = text[1:]
	}
	lower := make([]byte, len(text))
	for i, c := range text {
		if lower[i] = c; 'A' <= c && c <= 'Z' {
			lower[i] += 'a' - 'A'
		}
	}
	switch string(lower) {
	case "inf", "infinity":
		return newFloat().SetInf(negative), true
	}
	base, mark := 10, "e"
	digits, hexadecimal := bytes.CutPrefix(lower, []byte("0x"))
	if hexadecimal {
		base, mark = 16, "p"
	}
	x, ok := parseDigits(digits, base, mark)
	if ok && negative {
		x.Neg(x)
	}
	return x, ok
}

// parseDigits reads digits of a base, 10 or 16, with a point among them or not,
// and an exponent, of 10 or 2, behind a mark. It changes text.
func parseDigits(text []byte, base int, mark string) (*big.Float, bool) {
	text, exponent, scaled := bytes.Cut(text, []byte(mark))
	scale := 0
	if scaled {
		n, ok := new(big.Int).SetString(string(exponent), 10)
		if !ok {
			return nil, false
		}
		if scale = n.Sign() * floatScaleMax; n.CmpAbs(big.NewInt(floatScaleMax)) < 0 {
			scale = int(n.Int64())
		}
	}
	whole, fraction, _ := bytes.Cut(text, []byte("."))
	digits := append(whole, fraction...)
	if len(digits) == 0 || digits[0] == '+' || digits[0] == '-' {
		return nil, false
	}
	mantissa, ok := new(big.Int).SetString(string(digits), base)
	switch {
	case !ok:
		return nil, false
	case mantissa.Sign() == 0:
		return newFloat(), true
	case base == 16:
		return binaryFloat(mantissa, scale-4*len(fraction))
	default:
		return decimalFloat(mantissa, scale-len(fraction))
	}
}

// binaryFloat returns mantissa·2^scale, for a mantissa above 0.
func binaryFloat(mantissa *big.Int, scale int) (*big.Float, bool) {
	x := newFloat().SetInt(mantissa)
	accuracy := x.Acc()
	return inRange(x.SetMantExp(x, scale), accuracy)
}

// decimalFloat returns mantissa·10^scale, for a mantissa above 0.
func decimalFloat(mantissa *big.Int, scale int) (*big.Float, bool) {
	// 10^(most-2) <= mantissa < 10^most
	most := decimalDigitsMax(mantissa)
	if most+scale <= floatMagnitudeMin || most-2+scale >= floatMagnitudeMax {
		return nil, false
	}
	if scale >= 0 {
		x := newFloat().SetInt(mantissa.Mul(mantissa, pow10(scale)))
		return inRange(x, x.Acc())
	}
	exact := func(n *big.Int) *big.Float { return new(big.Float).SetInt(n) }
	x := newFloat().Quo(exact(mantissa), exact(pow10(-scale)))
	return inRange(x, x.Acc())
}

// decimalDigitsMax returns the number of decimal digits of n, or one more.
func decimalDigitsMax(n *big.Int) int {
	return n.BitLen()*30_103/100_000 + 1 // a little more than log10(2)
}

func pow10(n int) *big.Int {
	return new(big.Int).Exp(big.NewInt(10), big.NewInt(int64(n)), nil)
}

// inRange returns x unless it is too large or rounds to 0. accuracy says where
// x, above 0, is beside what it stands for. That a number near the smallest has
// fewer bits is of no account: sums with it are shown as 0, or without it.
func inRange(x *big.Float, accuracy big.Accuracy) (*big.Float, bool) {
	if x.MantExp(nil) > floatExponentMax {
		return nil, false
	}
	order := x.Cmp(floatHalf)
	return x, order > 0 || order == 0 && accuracy == big.Below
}
