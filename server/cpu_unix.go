//go:build unix

package server

import (
	"time"

	"golang.org/x/sys/unix"
)

// processCPU returns the CPU time the process has used, in user mode and in the
// kernel.
func processCPU() time.Duration {
	var u unix.Rusage
	if unix.Getrusage(unix.RUSAGE_SELF, &u) != nil {
		return 0
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}
