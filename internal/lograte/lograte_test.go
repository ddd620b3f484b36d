package lograte_test

import (
	"bytes"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/proa-kv/proa/internal/lograte"
)

// output is a logger and what it has written, without times.
func output() (*slog.Logger, *bytes.Buffer) {
	b := new(bytes.Buffer)
	return slog.New(slog.NewTextHandler(b, &slog.HandlerOptions{ReplaceAttr: func(_ []string, a slog.Attr) slog.Attr {
		if a.Key == slog.TimeKey {
			return slog.Attr{}
		}
		return a
	}})), b
}

func TestLine(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		log, b := output()
		l := lograte.Line{Interval: time.Minute, Burst: 2}
		for i := range 10 {
			l.Warn(log, "junk", "n", i)
		}
		time.Sleep(59 * time.Second)
		l.Warn(log, "junk", "n", 10)
		time.Sleep(time.Second)
		l.Warn(log, "junk", "n", 11)
		l.Warn(log, "junk", "n", 12)
		l.Warn(log, "junk", "n", 13)
		l.Reset()
		l.Log(log, slog.LevelError, "junk", "n", 14)
		const want = `level=WARN msg=junk n=0
level=WARN msg=junk n=1
level=WARN msg=junk n=11 suppressed=9
level=WARN msg=junk n=12
level=ERROR msg=junk n=14 suppressed=1
`
		if b.String() != want {
			t.Errorf("got\n%swant\n%s", b, want)
		}
	})
}

// A level that is not written costs nothing of the interval.
func TestLevelThatIsOff(t *testing.T) {
	log, b := output()
	var l lograte.Line
	l.Log(log, slog.LevelDebug, "unseen")
	l.Warn(log, "seen")
	if got := b.String(); got != "level=WARN msg=seen\n" {
		t.Errorf("got %q", got)
	}
}

func TestConcurrentUse(t *testing.T) {
	log, b := output()
	var l lograte.Line
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for range 1000 {
				l.Warn(log, "junk")
			}
		})
	}
	wg.Wait()
	// More than one only if the machine stood still for ten seconds.
	if n := strings.Count(b.String(), "\n"); n == 0 || n > 100 {
		t.Errorf("%d lines of 8000", n)
	}
}
