package etcd

import (
	"fmt"
	"log/slog"
	"strings"

	"github.com/proa-kv/proa/internal/lograte"
)

// raftLogger passes Raft's own messages on. Raft is talkative: what it calls
// information is debugging here. Its warnings and errors are bounded for all
// shards of the node together: one fault concerns hundreds of them at once.
type raftLogger struct {
	l     *slog.Logger
	lines *lograte.Line
}

// raftLinesMax bounds Raft's warnings and errors in one interval.
const raftLinesMax = 16

func (r *raftLogger) Debug(v ...any)            { r.l.Debug("raft", "message", fmt.Sprint(v...)) }
func (r *raftLogger) Debugf(f string, v ...any) { r.l.Debug("raft", "message", fmt.Sprintf(f, v...)) }
func (r *raftLogger) Info(v ...any)             { r.l.Debug("raft", "message", fmt.Sprint(v...)) }
func (r *raftLogger) Infof(f string, v ...any)  { r.l.Debug("raft", "message", fmt.Sprintf(f, v...)) }
func (r *raftLogger) Warning(v ...any) {
	r.lines.Log(r.l, slog.LevelWarn, "raft", "message", fmt.Sprint(v...))
}
func (r *raftLogger) Warningf(f string, v ...any) {
	if strings.Contains(f, "pending configuration changes") { // it campaigns when they are applied, at a start as a rule
		r.Infof(f, v...)
		return
	}
	r.lines.Log(r.l, slog.LevelWarn, "raft", "message", fmt.Sprintf(f, v...))
}
func (r *raftLogger) Error(v ...any) {
	r.lines.Log(r.l, slog.LevelError, "raft", "message", fmt.Sprint(v...))
}
func (r *raftLogger) Errorf(f string, v ...any) {
	r.lines.Log(r.l, slog.LevelError, "raft", "message", fmt.Sprintf(f, v...))
}
func (r *raftLogger) Fatal(v ...any)            { panic(fmt.Sprint(v...)) }
func (r *raftLogger) Fatalf(f string, v ...any) { panic(fmt.Sprintf(f, v...)) }
func (r *raftLogger) Panic(v ...any)            { panic(fmt.Sprint(v...)) }
func (r *raftLogger) Panicf(f string, v ...any) { panic(fmt.Sprintf(f, v...)) }
