//go:build !linux

package storage

// adviseHuge has nothing to advise where the system does not ask.
func adviseHuge([]byte) {}
