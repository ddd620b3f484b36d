package raftlog

// Position returns how far the log is known to be synced: the number of the last
// such run. It grows with every synced write of any group, over restarts as
// well: Open finds everything up to it, or the log has lost something. It never
// blocks.
func (l *Log) Position() uint64 { return l.position.Load() }
