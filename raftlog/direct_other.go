//go:build !linux

package raftlog

import "github.com/cockroachdb/pebble/v2/vfs"

// directFile does not exist here.
type directFile struct{}

func openDirect(vfs.FS, string) *directFile { return nil }

func (*directFile) writeAt([]byte, int64) (int, error) { return 0, errNotDirect }
func (*directFile) close() error                       { return nil }

func aligned([]byte) bool { return true }
