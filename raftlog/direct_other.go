//go:build !linux

package raftlog

import (
	"os"

	"github.com/cockroachdb/pebble/v2/vfs"
)

// openDirect returns nil: there are no direct writes here.
func openDirect(vfs.FS, string) *os.File { return nil }
