//go:build !linux

// Package spawn starts processes that end with the one that started them,
// where the system can promise that.
package spawn

import "os/exec"

// Start starts cmd. On this system it may outlive a process that is killed.
func Start(cmd *exec.Cmd) error { return cmd.Start() }
