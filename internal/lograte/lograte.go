// Package lograte limits the rate of log messages that clients and peers can
// trigger.
package lograte

import (
	"cmp"
	"context"
	"log/slog"
	"sync"
	"time"
)

// IntervalDefault is the interval of a Line that names none.
const IntervalDefault = 10 * time.Second

// Line is one kind of log line that somebody outside can cause, as often as
// they like: Burst of them are written in each Interval, and the next one that
// is written says how many were suppressed. The zero Line is ready. It is safe
// for concurrent use and must not be copied after its first use.
type Line struct {
	Interval time.Duration // 0: IntervalDefault
	Burst    int           // lines in one interval; 0: 1

	mu         sync.Mutex
	until      time.Time // end of the present interval
	written    int       // in it
	suppressed int       // since the last one written
}

// Allow reports whether a line may be written now, and how many were suppressed
// since the last one. It is for lines whose arguments are costly to come by;
// others call Log.
func (l *Line) Allow(now time.Time) (ok bool, suppressed int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if !now.Before(l.until) {
		l.until = now.Add(cmp.Or(l.Interval, IntervalDefault))
		l.written = 0
	}
	if l.written >= cmp.Or(l.Burst, 1) {
		l.suppressed++
		return false, 0
	}
	l.written++
	suppressed, l.suppressed = l.suppressed, 0
	return true, suppressed
}

// Log writes a line of slog's arguments, with the number of suppressed ones
// where there are any.
func (l *Line) Log(log *slog.Logger, level slog.Level, message string, args ...any) {
	if !log.Enabled(context.Background(), level) {
		return
	}
	ok, suppressed := l.Allow(time.Now())
	if !ok {
		return
	}
	if suppressed > 0 {
		args = append(args[:len(args):len(args)], "suppressed", suppressed)
	}
	log.Log(context.Background(), level, message, args...)
}

// Warn is Log at the level of a warning.
func (l *Line) Warn(log *slog.Logger, message string, args ...any) {
	l.Log(log, slog.LevelWarn, message, args...)
}

// Reset lets the next line through: what it has to say is new.
func (l *Line) Reset() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.until = time.Time{}
}
