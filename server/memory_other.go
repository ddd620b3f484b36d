//go:build !linux

package server

// usedMemory returns how much memory the process has, in bytes: what of it is
// only reserved is not known here.
func usedMemory() int64 { return heldMemory() }
