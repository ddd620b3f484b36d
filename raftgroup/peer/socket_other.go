//go:build !linux

package peer

import (
	"syscall"
	"time"
)

// setUserTimeout is Linux's; elsewhere keep-alive and write deadlines find a
// dead peer, later.
func setUserTimeout(syscall.RawConn, time.Duration) error { return nil }
