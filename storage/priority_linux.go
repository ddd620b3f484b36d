package storage

import (
	"runtime"

	"golang.org/x/sys/unix"
)

// backgroundNice is how far the threads of drains and compactions stand back
// behind those of requests where there are too few processors for both. What
// they do is bounded in time by no request, until both tables are full: then
// requests wait, and leave them the processors.
const backgroundNice = 15

// standBack has the calling goroutine, to its end, run on a thread of its own
// with less of a claim to a processor. The thread ends with the goroutine, since
// an unprivileged process cannot take the priority back.
func standBack() {
	runtime.LockOSThread()
	_ = unix.Setpriority(unix.PRIO_PROCESS, unix.Gettid(), backgroundNice) // of this thread alone
}
