//go:build !linux

package testcluster

import "os/exec"

// spawn starts cmd.
func spawn(cmd *exec.Cmd) error { return cmd.Start() }
