//go:build unix

package storage

import (
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// cpuTime is the time that all threads of the process have run.
func cpuTime(b *testing.B) time.Duration {
	b.Helper()
	var u unix.Rusage
	if err := unix.Getrusage(unix.RUSAGE_SELF, &u); err != nil {
		b.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}
