package config

import (
	"errors"
	"fmt"
	"math"
	"net"
	"strconv"
	"strings"
	"time"
)

// value is one setting bound to the place it is stored in.
type value interface {
	Set(text string) error // parses and checks the range
	String() string        // in the form Set accepts
	Allowed() string       // for messages and the reference
}

// ParseSize returns the bytes that text names: a whole or decimal number and
// an optional unit, in either case. The units KB, MB, GB, TB and KiB, MiB,
// GiB, TiB all are powers of 1024, as in most databases; without a unit (or
// with B) the number counts bytes.
func ParseSize(text string) (int64, error) {
	s := strings.TrimSpace(text)
	digits := strings.TrimRight(s, "BKMGTIbkmgti \t")
	number, err := strconv.ParseFloat(digits, 64)
	if err != nil || digits == "" || strings.ContainsAny(digits, "eExXpP_+-nN") {
		return 0, fmt.Errorf("not a size such as 64MiB or 4GB")
	}
	unit, ok := sizeUnits[strings.ToLower(strings.TrimSpace(s[len(digits):]))]
	if !ok {
		return 0, fmt.Errorf("unknown unit %q (B, KiB, MiB, GiB, TiB)", strings.TrimSpace(s[len(digits):]))
	}
	if !strings.Contains(digits, ".") {
		// Whole numbers keep all their digits; a float64 has only 53 bits.
		n, err := strconv.ParseInt(digits, 10, 64)
		if err != nil || n > math.MaxInt64/unit {
			return 0, errors.New("too large")
		}
		return n * unit, nil
	}
	if number*float64(unit) >= math.MaxInt64 {
		return 0, errors.New("too large")
	}
	return int64(number * float64(unit)), nil
}

var sizeUnits = map[string]int64{
	"": 1, "b": 1,
	"k": 1 << 10, "kb": 1 << 10, "kib": 1 << 10,
	"m": 1 << 20, "mb": 1 << 20, "mib": 1 << 20,
	"g": 1 << 30, "gb": 1 << 30, "gib": 1 << 30,
	"t": 1 << 40, "tb": 1 << 40, "tib": 1 << 40,
}

// FormatSize returns bytes in the largest unit that divides it without rest,
// so that ParseSize gives the same number back.
func FormatSize(bytes int64) string {
	for _, u := range []struct {
		name  string
		shift uint
	}{{"TiB", 40}, {"GiB", 30}, {"MiB", 20}, {"KiB", 10}} {
		if bytes != 0 && bytes&(1<<u.shift-1) == 0 {
			return strconv.FormatInt(bytes>>u.shift, 10) + u.name
		}
	}
	return strconv.FormatInt(bytes, 10)
}

// FormatDuration is time.Duration's String without zero parts at the end:
// 1h, not 1h0m0s.
func FormatDuration(d time.Duration) string {
	if d == 0 {
		return "0"
	}
	s := d.String()
	if strings.HasSuffix(s, "m0s") {
		s = strings.TrimSuffix(s, "0s")
	}
	if strings.HasSuffix(s, "h0m") {
		s = strings.TrimSuffix(s, "0m")
	}
	return s
}

type intValue struct {
	p        *int
	min, max int
	zero     bool // 0 is allowed below min
}

func (v intValue) Set(text string) error {
	n, err := strconv.Atoi(strings.TrimSpace(text))
	if err != nil {
		return errors.New("not a whole number")
	}
	if (n < v.min || n > v.max) && (n != 0 || !v.zero) {
		return errOutOfRange
	}
	*v.p = n
	return nil
}
func (v intValue) String() string  { return strconv.Itoa(*v.p) }
func (v intValue) Allowed() string { return fmt.Sprintf("%d to %d", v.min, v.max) }

type idValue struct{ p *uint64 }

func (v idValue) Set(text string) error {
	n, err := strconv.ParseUint(strings.TrimSpace(text), 10, 64)
	if errors.Is(err, strconv.ErrRange) {
		return errOutOfRange
	}
	if err != nil {
		return errors.New("not a whole number")
	}
	if n == 0 || n > nodeIDMax {
		return errOutOfRange
	}
	*v.p = n
	return nil
}
func (v idValue) String() string {
	if *v.p == 0 {
		return auto
	}
	return strconv.FormatUint(*v.p, 10)
}
func (v idValue) Allowed() string { return fmt.Sprintf("1 to %d", uint64(nodeIDMax)) }

type sizeValue struct {
	p        *int64
	min, max int64
	zero     bool
}

func (v sizeValue) Set(text string) error {
	n, err := ParseSize(text)
	if err != nil {
		return err
	}
	if (n < v.min || n > v.max) && (n != 0 || !v.zero) {
		return errOutOfRange
	}
	*v.p = n
	return nil
}
func (v sizeValue) String() string { return FormatSize(*v.p) }
func (v sizeValue) Allowed() string {
	return FormatSize(v.min) + " to " + FormatSize(v.max)
}

type durationValue struct {
	p        *time.Duration
	min, max time.Duration
	zero     bool
}

func (v durationValue) Set(text string) error {
	text = strings.TrimSpace(text)
	d, err := time.ParseDuration(text)
	if err != nil {
		if _, numeric := strconv.ParseFloat(text, 64); numeric == nil {
			return fmt.Errorf("needs a unit, such as %sms or %ss", text, text)
		}
		return errors.New("not a duration such as 150ms, 30s or 1h")
	}
	if (d < v.min || d > v.max) && (d != 0 || !v.zero) {
		return errOutOfRange
	}
	*v.p = d
	return nil
}
func (v durationValue) String() string { return FormatDuration(*v.p) }
func (v durationValue) Allowed() string {
	return FormatDuration(v.min) + " to " + FormatDuration(v.max)
}

// shareValue is written in percent and stored as a fraction.
type shareValue struct {
	p    *float64
	max  float64 // percent; 0 stands for 100
	zero bool    // 0% is allowed
}

func (v shareValue) percentMax() float64 {
	if v.max == 0 {
		return 100
	}
	return v.max
}

func (v shareValue) Set(text string) error {
	digits, ok := strings.CutSuffix(strings.TrimSpace(text), "%")
	f, err := strconv.ParseFloat(strings.TrimSpace(digits), 64)
	if err != nil || math.IsNaN(f) {
		return errors.New("not a percentage such as 0.1%")
	}
	if !ok {
		return fmt.Errorf("needs a percent sign, such as %s%%", strings.TrimSpace(text))
	}
	if f < 0 || f == 0 && !v.zero || f > v.percentMax() {
		return errOutOfRange
	}
	*v.p = f / 100
	return nil
}
func (v shareValue) String() string {
	// Ten digits hide the binary fraction that dividing by 100 leaves.
	return strconv.FormatFloat(*v.p*100, 'g', 10, 64) + "%"
}
func (v shareValue) Allowed() string {
	least := "above 0%"
	if v.zero {
		least = "0%"
	}
	return fmt.Sprintf("%s to %v%%", least, v.percentMax())
}

type boolValue struct{ p *bool }

func (v boolValue) Set(text string) error {
	switch strings.ToLower(strings.TrimSpace(text)) {
	case "true", "yes", "on", "1":
		*v.p = true
	case "false", "no", "off", "0":
		*v.p = false
	default:
		return errOutOfRange
	}
	return nil
}
func (v boolValue) String() string  { return strconv.FormatBool(*v.p) }
func (v boolValue) Allowed() string { return "true or false" }

type choiceValue struct {
	p       *string
	choices []string
}

func (v choiceValue) Set(text string) error {
	text = strings.ToLower(strings.TrimSpace(text))
	for _, c := range v.choices {
		if c == text {
			*v.p = text
			return nil
		}
	}
	return errOutOfRange
}
func (v choiceValue) String() string { return *v.p }
func (v choiceValue) Allowed() string {
	last := len(v.choices) - 1
	return strings.Join(v.choices[:last], ", ") + " or " + v.choices[last]
}

// addressValue is host:port; an empty host stands for all interfaces, an
// empty text or "off" for none.
type addressValue struct{ p *string }

func (v addressValue) Set(text string) error {
	text = strings.TrimSpace(text)
	if text == "" || strings.EqualFold(text, "off") {
		*v.p = ""
		return nil
	}
	host, port, err := net.SplitHostPort(text)
	if err != nil {
		return errors.New("not host:port")
	}
	if _, err := strconv.ParseUint(port, 10, 16); err != nil {
		return fmt.Errorf("port %q is not a number from 0 to 65535", port)
	}
	if oddHost(host) {
		return fmt.Errorf("host %q is not a name or an address", host)
	}
	*v.p = text
	return nil
}
func (v addressValue) String() string { return *v.p }
func (v addressValue) Allowed() string {
	return "host:port, :port for all interfaces, or off"
}

type pathValue struct {
	p        *string
	required bool
	bytesMax int // 0: no bound
}

func (v pathValue) Set(text string) error {
	switch {
	case text == "" && v.required:
		return errors.New("must not be empty")
	case strings.ContainsRune(text, 0):
		return errors.New("must not contain a zero byte")
	case v.bytesMax > 0 && len(text) > v.bytesMax:
		return fmt.Errorf("longer than the %d bytes the system allows", v.bytesMax)
	}
	*v.p = text
	return nil
}
func (v pathValue) String() string { return *v.p }
func (v pathValue) Allowed() string {
	if v.required {
		return "a path"
	}
	return "a path, or empty for none"
}

// advertisedValue is a host:port that others can connect to; an empty text or
// "off" stands for none.
type advertisedValue struct{ p *string }

func (v advertisedValue) Set(text string) error {
	text = strings.TrimSpace(text)
	if text == "" || strings.EqualFold(text, "off") {
		*v.p = ""
		return nil
	}
	if _, err := checkReachable(text); err != nil {
		return err
	}
	*v.p = text
	return nil
}
func (v advertisedValue) String() string  { return *v.p }
func (v advertisedValue) Allowed() string { return "host:port that others can reach, or off" }

// tokenBytesMin and tokenBytesMax bound a join token. What a handshake shows of
// a token can be used to guess a short one.
const (
	tokenBytesMin = 16
	tokenBytesMax = 256
)

// tokenValue is a join token.
type tokenValue struct{ p *string }

func (v tokenValue) Set(text string) error {
	text = strings.TrimSpace(text)
	switch {
	case text == "":
	case len(text) < tokenBytesMin || len(text) > tokenBytesMax:
		return fmt.Errorf("has %d characters, it must have %d to %d", len(text), tokenBytesMin, tokenBytesMax)
	case strings.ContainsFunc(text, func(r rune) bool { return r <= ' ' || r > '~' }):
		return errors.New("contains characters other than letters, digits and punctuation")
	}
	*v.p = text
	return nil
}
func (v tokenValue) String() string  { return *v.p }
func (v tokenValue) Allowed() string { return "16 to 256 characters, or empty for none" }

// peersValue is a list of addresses of peers.
type peersValue struct{ p *[]string }

func (v peersValue) Set(text string) error {
	var peers []string
	if strings.TrimSpace(text) != "" {
		peers = strings.Split(text, ",")
	}
	if len(peers) > joinMax {
		return fmt.Errorf("has %d peers, at most %d are allowed; a few members are enough", len(peers), joinMax)
	}
	seen := map[string]bool{}
	for i, peer := range peers {
		peer = strings.TrimSpace(peer)
		port, err := checkReachable(peer)
		switch {
		case peer == "":
			return fmt.Errorf("address %d in the list is empty", i+1)
		case err != nil:
			return fmt.Errorf("%s: %w", peer, err)
		case port == 0:
			return fmt.Errorf("%s: port 0 cannot be connected to", peer)
		case seen[strings.ToLower(peer)]:
			return fmt.Errorf("%s appears twice; each node has its own address", peer)
		}
		seen[strings.ToLower(peer)] = true
		peers[i] = peer
	}
	*v.p = peers
	return nil
}
func (v peersValue) String() string  { return strings.Join(*v.p, ",") }
func (v peersValue) Allowed() string { return "host:port, separated by commas, or empty for none" }

var errOutOfRange = errors.New("out of range")
