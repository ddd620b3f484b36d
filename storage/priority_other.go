//go:build !linux

package storage

// lowerPriority does nothing where threads have no priorities of their own.
func lowerPriority() {}
