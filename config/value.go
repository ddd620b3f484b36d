package config

import (
	"errors"
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"
)

// value is one setting, bound to the field of Config that it is stored in.
type value struct {
	set     func(text string, zero bool) error // parses and checks the range, to which zero adds 0
	text    func() string                      // in the form that set accepts
	allowed string                             // for messages and the reference
	free    bool                               // any text: YAML may need quotes
}

var errOutOfRange = errors.New("out of range")

// number is a value from lowest to highest.
func number[T int | int64 | uint64 | float64 | time.Duration](p *T, lowest, highest T, parse func(string) (T, error), format func(T) string) value {
	return value{
		set: func(text string, zero bool) error {
			n, err := parse(strings.TrimSpace(text))
			switch {
			case err != nil:
				return err
			case (n < lowest || n > highest) && (n != 0 || !zero):
				return errOutOfRange
			}
			*p = n
			return nil
		},
		text:    func() string { return format(*p) },
		allowed: format(lowest) + " to " + format(highest),
	}
}

func integer(p *int, lowest, highest int) value {
	return number(p, lowest, highest, func(text string) (int, error) {
		n, err := strconv.Atoi(text)
		if err != nil {
			return 0, errors.New("not a whole number")
		}
		return n, nil
	}, strconv.Itoa)
}

func size(p *int64, lowest, highest int64) value {
	return number(p, lowest, highest, ParseSize, FormatSize)
}

func duration(p *time.Duration, lowest, highest time.Duration) value {
	return number(p, lowest, highest, func(text string) (time.Duration, error) {
		d, err := time.ParseDuration(text)
		if err == nil {
			return d, nil
		}
		if _, numeric := strconv.ParseFloat(text, 64); numeric == nil {
			return 0, fmt.Errorf("needs a unit, such as %sms or %ss", text, text)
		}
		return 0, errors.New("not a duration such as 150ms, 30s or 1h")
	}, FormatDuration)
}

// latency is the range common to the latency thresholds.
func latency(p *time.Duration) value { return duration(p, time.Microsecond, time.Hour) }

// percentage is written in percent and stored as a fraction. A lowest one of 0 is
// allowed itself only if positive is not set.
func percentage(p *float64, positive bool, highest float64) value {
	lowest, least := 0.0, "0%"
	if positive {
		lowest, least = math.SmallestNonzeroFloat64, "above 0%"
	}
	v := number(p, lowest, highest, func(text string) (float64, error) {
		digits, ok := strings.CutSuffix(text, "%")
		f, err := strconv.ParseFloat(strings.TrimSpace(digits), 64)
		switch {
		case err != nil || math.IsNaN(f):
			return 0, errors.New("not a percentage such as 0.1%")
		case !ok:
			return 0, fmt.Errorf("needs a percent sign, such as %s%%", text)
		}
		return f / 100, nil
	}, formatPercentage)
	v.allowed = least + " to " + formatPercentage(highest)
	return v
}

// formatPercentage has ten digits, which hide the binary fraction that dividing by
// 100 leaves.
func formatPercentage(share float64) string { return strconv.FormatFloat(share*100, 'g', 10, 64) + "%" }

// nodeID is the number of a node; 0, which stands for one that is not known yet,
// cannot be set.
func nodeID(p *uint64) value {
	return number(p, 1, nodeIDMax, func(text string) (uint64, error) {
		n, err := strconv.ParseUint(text, 10, 64)
		switch {
		case errors.Is(err, strconv.ErrRange):
			return 0, errOutOfRange
		case err != nil:
			return 0, errors.New("not a whole number")
		}
		return n, nil
	}, func(n uint64) string {
		if n == 0 {
			return auto
		}
		return strconv.FormatUint(n, 10)
	})
}

// trueOrFalse is what a boolean key accepts, for people.
const trueOrFalse = "true or false"

func boolean(p *bool) value {
	return value{
		set: func(text string, _ bool) error {
			switch strings.ToLower(strings.TrimSpace(text)) {
			case "true", "yes", "on", "1":
				*p = true
			case "false", "no", "off", "0":
				*p = false
			default:
				return errOutOfRange
			}
			return nil
		},
		text:    func() string { return strconv.FormatBool(*p) },
		allowed: trueOrFalse,
	}
}

// text is a value that parse returns as it is stored.
func text(p *string, allowed string, parse func(string) (string, error)) value {
	return value{
		set: func(text string, _ bool) (err error) {
			if text, err = parse(text); err == nil {
				*p = text
			}
			return err
		},
		text:    func() string { return *p },
		allowed: allowed,
		free:    true,
	}
}

func choice(p *string, choices ...string) value {
	last := len(choices) - 1
	v := text(p, strings.Join(choices[:last], ", ")+" or "+choices[last], func(text string) (string, error) {
		if text = strings.ToLower(strings.TrimSpace(text)); !slices.Contains(choices, text) {
			return "", errOutOfRange
		}
		return text, nil
	})
	v.free = false
	return v
}

// orOff is a value that check accepts; "off" stands for an empty one, which is none.
func orOff(p *string, allowed string, check func(string) error) value {
	return text(p, allowed, func(text string) (string, error) {
		text = strings.TrimSpace(text)
		if text == "" || strings.EqualFold(text, "off") {
			return "", nil
		}
		return text, check(text)
	})
}

// address is host:port; an empty host stands for all interfaces.
func address(p *string) value {
	return orOff(p, "host:port, :port for all interfaces, or off", func(text string) error {
		_, _, err := splitAddress(text)
		return err
	})
}

// advertised is a host:port that others can connect to.
func advertised(p *string) value {
	return orOff(p, "host:port that others can reach, or off", func(text string) error {
		_, err := checkReachable(text)
		return err
	})
}

// pathname is a file's path, of at most most bytes; an empty one is none, which
// needed refuses.
func pathname(p *string, allowed string, needed bool, most int) value {
	return text(p, allowed, func(text string) (string, error) {
		switch {
		case strings.ContainsRune(text, 0):
			return "", errors.New("must not contain a zero byte")
		case text == "" && needed:
			return "", errors.New("must not be empty")
		case len(text) > most:
			return "", fmt.Errorf("longer than the %d bytes the system allows", most)
		}
		return text, nil
	})
}

// tokenBytesMin and tokenBytesMax bound a join token. What a handshake shows of
// a token can be used to guess a short one.
const (
	tokenBytesMin = 16
	tokenBytesMax = 256
)

// token is a join token.
func token(p *string) value {
	return text(p, "16 to 256 characters, or empty for none", func(text string) (string, error) {
		text = strings.TrimSpace(text)
		switch {
		case text == "":
		case len(text) < tokenBytesMin || len(text) > tokenBytesMax:
			return "", fmt.Errorf("has %d characters, it must have %d to %d", len(text), tokenBytesMin, tokenBytesMax)
		case strings.ContainsFunc(text, func(r rune) bool { return r <= ' ' || r > '~' }):
			return "", errors.New("contains characters other than letters, digits and punctuation")
		}
		return text, nil
	})
}

// peers is a list of addresses of peers.
func peers(p *[]string) value {
	return value{
		set: func(text string, _ bool) (err error) {
			list, err := parsePeers(text)
			if err == nil {
				*p = list
			}
			return err
		},
		text:    func() string { return strings.Join(*p, ",") },
		allowed: "host:port, separated by commas, or empty for none",
		free:    true,
	}
}

func parsePeers(text string) (peers []string, err error) {
	if strings.TrimSpace(text) != "" {
		peers = strings.Split(text, ",")
	}
	if len(peers) > joinMax {
		return nil, fmt.Errorf("has %d peers, at most %d are allowed; a few members are enough", len(peers), joinMax)
	}
	seen := map[string]bool{}
	for i, peer := range peers {
		peer = strings.TrimSpace(peer)
		port, err := checkReachable(peer)
		switch {
		case peer == "":
			return nil, fmt.Errorf("address %d in the list is empty", i+1)
		case err != nil:
			return nil, fmt.Errorf("%s: %w", peer, err)
		case port == 0:
			return nil, fmt.Errorf("%s: port 0 cannot be connected to", peer)
		case seen[strings.ToLower(peer)]:
			return nil, fmt.Errorf("%s appears twice; each node has its own address", peer)
		}
		seen[strings.ToLower(peer)] = true
		peers[i] = peer
	}
	return peers, nil
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
	name := strings.TrimSpace(s[len(digits):])
	unit, ok := sizeUnits[strings.ToLower(name)]
	if !ok {
		return 0, fmt.Errorf("unknown unit %q (B, KiB, MiB, GiB, TiB)", name)
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
