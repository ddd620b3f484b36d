package environment

import (
	"context"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"sync/atomic"

	"github.com/lni/dragonboat/v4/logger"

	"github.com/proa-kv/proa/internal/lograte"
)

// linesMax bounds dragonboat's warnings and errors in one interval.
const linesMax = 16

var (
	setFactory sync.Once
	output     atomic.Pointer[slog.Logger]

	// lines bounds warnings and errors of all shards together: one fault concerns
	// hundreds of them at once.
	lines = lograte.Line{Burst: linesMax}
)

// SetLogger has dragonboat write its log to l: the one of all NodeHosts of the process,
// because dragonboat has no other. It must be called before the first NodeHost is made;
// what the process has logged before went elsewhere. Another call has the log go to
// another logger from then on.
func SetLogger(l *slog.Logger) {
	output.Store(l)
	setFactory.Do(func() {
		logger.SetLoggerFactory(func(name string) logger.ILogger { return packageLog{slog.String("package", name)} })
	})
}

// packageLog is the log of one of dragonboat's packages.
//
// dragonboat is talkative: what it calls information is debugging here, and so are the
// warnings of what happens at each start, at each election, and wherever a node is down,
// which the node's own connections tell.
type packageLog struct{ name slog.Attr }

var _ logger.ILogger = packageLog{}

// SetLevel implements logger.ILogger. The level is the slog.Logger's.
func (packageLog) SetLevel(logger.LogLevel) {}

// Debugf implements logger.ILogger.
func (p packageLog) Debugf(format string, args ...any) { p.debug(format, args) }

// Infof implements logger.ILogger.
func (p packageLog) Infof(format string, args ...any) { p.debug(format, args) }

// Warningf implements logger.ILogger.
func (p packageLog) Warningf(format string, args ...any) { p.alarm(slog.LevelWarn, format, args) }

// Errorf implements logger.ILogger.
func (p packageLog) Errorf(format string, args ...any) { p.alarm(slog.LevelError, format, args) }

// Panicf implements logger.ILogger.
func (p packageLog) Panicf(format string, args ...any) {
	message := fmt.Sprintf(format, args...)
	output.Load().Error("dragonboat", p.name, slog.String("panic", message))
	panic(message)
}

func (p packageLog) debug(format string, args []any) {
	if l := output.Load(); l.Enabled(context.Background(), slog.LevelDebug) {
		l.LogAttrs(context.Background(), slog.LevelDebug, "dragonboat", p.name, slog.String("message", fmt.Sprintf(format, args...)))
	}
}

func (p packageLog) alarm(level slog.Level, format string, args []any) {
	if p.isRoutine(format) {
		p.debug(format, args)
		return
	}
	lines.Log(output.Load(), level, "dragonboat", p.name, "message", fmt.Sprintf(format, args...))
}

// telling are the warnings of the package raft that are not about how an election goes, or
// about messages and proposals that may always be lost.
var telling = []string{"has lost quorum", "snapshot failed"}

// routine are warnings and errors of the other packages that tell an operator nothing.
var routine = []string{
	"not a magnitude larger than HeartbeatRTT",  // see engine.Ticks
	"mutual TLS disabled",                       // the connections are not dragonboat's
	"ignored a %s message sent to",              // for the replica before this one
	"became unreachable", "failed to get a con", // a node is down
	"failed to connect to", "circuit breaker", "breaker %s",
	"failed to get snapshot conn", "send batch failed",
	"not tracked chunk", "ignored a chunk", "ignored a invalid chunk", "dropped an invalid snapshot", // whoever takes them in says why
	"rate limited dropped", "dropped an incoming message", // messages may always be lost
	"aborted OpenOnDisk", "aborted recovery", "save snapshot aborted", "shard stopped", // the node is closed
	"LocalTick msgs in one batch", // the machine is busy
}

func (p packageLog) isRoutine(format string) bool {
	known, among := routine, true
	if p.name.Value.String() == "raft" {
		known, among = telling, false
	}
	for _, s := range known {
		if strings.Contains(format, s) {
			return among
		}
	}
	return !among
}
