package storage

import (
	"runtime"

	"golang.org/x/sys/unix"
)

// backgroundNice is the niceness of threads that flush and compact, so that those
// of requests go first where there are too few processors for both. Nothing waits
// for flushes until both memtables are full: then requests wait, and leave the
// processors to them.
const backgroundNice = 15

// lowerPriority has the calling goroutine, to its end, run on a thread of its own
// with backgroundNice. The thread ends with the goroutine, since
// an unprivileged process cannot take the priority back.
func lowerPriority() {
	runtime.LockOSThread()
	_ = unix.Setpriority(unix.PRIO_PROCESS, unix.Gettid(), backgroundNice) // of this thread alone
}
