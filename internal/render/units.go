package render

import (
	"fmt"
	"time"

	"github.com/proa-kv/proa/config"
)

// Bytes shows a size with three digits and a unit.
func Bytes(n int64) string {
	const step = 1024
	if n < step {
		return fmt.Sprintf("%d B", n)
	}
	f := float64(n)
	unit := -1
	for ; f >= step && unit < 4; unit++ {
		f /= step
	}
	name := [...]string{"KiB", "MiB", "GiB", "TiB", "PiB"}[unit]
	switch {
	case f < 10:
		return fmt.Sprintf("%.2f %s", f, name)
	case f < 100:
		return fmt.Sprintf("%.1f %s", f, name)
	}
	return fmt.Sprintf("%.0f %s", f, name)
}

// Age shows how long something has lasted, as coarse as it is long.
func Age(d time.Duration) string {
	switch {
	case d >= 48*time.Hour:
		return fmt.Sprintf("%dd", d/(24*time.Hour))
	case d >= 2*time.Hour:
		return fmt.Sprintf("%dh", d/time.Hour)
	case d >= time.Minute:
		d = d.Round(time.Second)
	case d >= time.Second:
		d = d.Round(100 * time.Millisecond)
	default:
		d = d.Round(time.Millisecond)
	}
	return config.FormatDuration(d)
}

// Plural counts things.
func Plural(n int, thing string) string {
	if n == 1 {
		return "1 " + thing
	}
	return fmt.Sprintf("%d %ss", n, thing)
}

// TTL shows milliseconds only where they matter.
func TTL(d time.Duration) string {
	if d >= 10*time.Second {
		d = d.Round(time.Second)
	} else {
		d = d.Round(time.Millisecond)
	}
	return d.String()
}

// Micros shows a duration in µs with three digits and a unit.
func Micros(us *float64) string {
	switch {
	case us == nil:
		return "-"
	case *us < 1000:
		return fmt.Sprintf("%.0f µs", *us)
	case *us < 10_000:
		return fmt.Sprintf("%.1f ms", *us/1000)
	}
	return fmt.Sprintf("%.0f ms", *us/1000)
}
