package storage

import (
	"testing"

	"golang.org/x/sys/unix"
)

// nice returns the niceness of the calling thread.
func nice(t *testing.T) int {
	t.Helper()
	priority, err := unix.Getpriority(unix.PRIO_PROCESS, unix.Gettid())
	if err != nil {
		t.Fatal(err)
	}
	return 20 - priority // as the system call answers
}

func TestLowerPriority(t *testing.T) {
	before := nice(t)
	if before > backgroundNice {
		t.Skipf("the test itself runs with nice %d", before)
	}
	within := make(chan int)
	for range 10 { // each on its own thread, which nobody inherits
		go func() {
			lowerPriority()
			within <- nice(t)
		}()
		if n := <-within; n != backgroundNice {
			t.Errorf("in the background: nice %d", n)
		}
		go func() { within <- nice(t) }()
		if n := <-within; n != before {
			t.Errorf("beside it: nice %d, before %d", n, before)
		}
	}
}
