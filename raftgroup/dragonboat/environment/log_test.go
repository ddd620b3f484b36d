package environment

import (
	"bytes"
	"fmt"
	"log/slog"
	"strings"
	"testing"

	"github.com/lni/dragonboat/v4/logger"

	"github.com/proa-kv/proa/internal/lograte"
)

// logged returns what is logged while f runs, without times.
func logged(t *testing.T, level slog.Level, f func()) string {
	var b bytes.Buffer
	SetLogger(slog.New(slog.NewTextHandler(&b, &slog.HandlerOptions{Level: level, ReplaceAttr: func(_ []string, a slog.Attr) slog.Attr {
		if a.Key == slog.TimeKey {
			return slog.Attr{}
		}
		return a
	}})))
	defer SetLogger(slog.New(slog.DiscardHandler))
	lines = lograte.Line{Burst: linesMax}
	f()
	return b.String()
}

// speak says something at each level.
func speak(l logger.ILogger) {
	l.SetLevel(logger.CRITICAL)
	l.Debugf("d %d", 1)
	l.Infof("i %d", 2)
	l.Warningf("w %d", 3)
	l.Errorf("e %d", 4)
}

func TestLog(t *testing.T) {
	for level, want := range map[slog.Level]string{
		slog.LevelDebug: `level=DEBUG msg=dragonboat package=rsm message="d 1"
level=DEBUG msg=dragonboat package=rsm message="i 2"
level=WARN msg=dragonboat package=rsm message="w 3"
level=ERROR msg=dragonboat package=rsm message="e 4"
`,
		slog.LevelInfo: `level=WARN msg=dragonboat package=rsm message="w 3"
level=ERROR msg=dragonboat package=rsm message="e 4"
`,
		slog.LevelError: `level=ERROR msg=dragonboat package=rsm message="e 4"
`,
	} {
		if got := logged(t, level, func() { speak(logger.GetLogger("rsm")) }); got != want {
			t.Errorf("%v:\n%swant:\n%s", level, got, want)
		}
	}
}

// TestPanic: a panic is one still, and in the log.
func TestPanic(t *testing.T) {
	got := logged(t, slog.LevelInfo, func() {
		defer func() {
			if r := recover(); r != "index 7" {
				t.Errorf("recovered %v", r)
			}
		}()
		for range 2 * linesMax {
			logger.GetLogger("raft").Errorf("e")
		}
		logger.GetLogger("raft").Panicf("index %d", 7)
	})
	if !strings.HasSuffix(got, `level=ERROR msg=dragonboat package=raft panic="index 7"`+"\n") {
		t.Errorf("logged %s", got)
	}
}

// TestRoutine: what belongs to elections, to nodes that are down and to closing is no
// alarm.
func TestRoutine(t *testing.T) {
	for _, c := range []struct {
		name, format string
		routine      bool
	}{
		{"raft", "%s became candidate", true},
		{"raft", "%s received %s with higher term (%d) from %s", true},
		{"raft", "%s dropped proposal, no leader", true},
		{"raft", "%s has lost quorum", false},
		{"raft", "%s snapshot failed, %s is now in wait state", false},
		{"config", "mutual TLS disabled, communication is insecure", true},
		{"config", "ElectionRTT is not a magnitude larger than HeartbeatRTT", true},
		{"transport", "%s became unreachable, affected %d nodes", true},
		{"transport", "Nodehost %s failed to get a connection to %s, %v", true},
		{"transport", "breaker %s to %s failed, connect and process failed: %s", true},
		{"transport", "dropped an invalid snapshot %s", true},
		{"transport", "max slot count reached, dropped a chunk %s", false},
		{"dragonboat", "%s aborted recovery", true},
		{"rsm", "%s rej remove the only node %s", false},
	} {
		got := logged(t, slog.LevelInfo, func() { logger.GetLogger(c.name).Warningf(c.format) })
		if (got == "") != c.routine {
			t.Errorf("%s: %q is logged as %q", c.name, c.format, got)
		}
		if got := logged(t, slog.LevelDebug, func() { logger.GetLogger(c.name).Warningf(c.format) }); got == "" {
			t.Errorf("%s: %q is lost", c.name, c.format)
		}
	}
}

// TestLogRate: however many shards complain, the log is bounded.
func TestLogRate(t *testing.T) {
	got := logged(t, slog.LevelInfo, func() {
		for i := range 10 * linesMax {
			logger.GetLogger(fmt.Sprint("package", i%3)).Warningf("w")
		}
	})
	if n := strings.Count(got, "\n"); n != linesMax {
		t.Errorf("%d lines", n)
	}
}

// TestLogCosts: what is not logged is not formatted.
func TestLogCosts(t *testing.T) {
	_ = logged(t, slog.LevelInfo, func() {
		l := packageLog{slog.String("package", "raft")}
		args := []any{costly{t}}
		if n := testing.AllocsPerRun(100, func() { l.debug("%v", args) }); n != 0 {
			t.Errorf("%v allocations", n)
		}
	})
}

type costly struct{ t *testing.T }

func (c costly) String() string {
	c.t.Error("formatted")
	return ""
}
