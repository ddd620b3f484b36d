package bench

import (
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
)

// meter measures what one thread does, and what that costs.
type meter struct {
	thread int
	tally  *tally
	rec    *recorder // of the step under way; nil: nothing is recorded by step
	full   chan<- *recorder
	spare  <-chan *recorder
	cpu0   time.Duration

	serverCPU func() (time.Duration, error) // nil: not measured from here
	server0   time.Duration

	done      atomic.Uint64 // replies so far, for others to read
	doneLocal uint64
}

// start begins the measured part.
func (m *meter) start() (err error) {
	if m.serverCPU != nil {
		m.server0, err = m.serverCPU()
	}
	m.cpu0 = threadCPU()
	return err
}

// stop ends the run. If its measured part has begun, it adds up what the thread and
// the server have used.
func (m *meter) stop(measuring bool) (err error) {
	if measuring {
		m.tally.cpu = threadCPU() - m.cpu0
		if m.serverCPU != nil {
			m.tally.server, err = m.serverCPU()
			m.tally.server -= m.server0
		}
	}
	m.done.Store(m.doneLocal)
	if m.rec != nil {
		m.full <- m.rec // the reader goes on until all have ended
		m.rec = nil
	}
	return err
}

// handOver gives away what was recorded if that was of an earlier step than this
// one. If the recorder cannot be taken now, that step goes on.
func (m *meter) handOver(step int64) {
	m.done.Store(m.doneLocal)
	if m.rec == nil || step == m.rec.step {
		return
	}
	select {
	case m.full <- m.rec:
	default:
		return
	}
	select {
	case m.rec = <-m.spare:
	default:
		m.rec = newRecorder(m.thread)
	}
	m.rec.thread, m.rec.step = m.thread, step
}

// threadCPU returns the CPU time of the calling thread.
func threadCPU() time.Duration {
	var t unix.Timespec
	if unix.ClockGettime(unix.CLOCK_THREAD_CPUTIME_ID, &t) != nil {
		return 0
	}
	return time.Duration(t.Nano())
}
