//go:build !linux

package storage

// standBack has the calling goroutine leave processors to others where the
// system knows priorities of threads.
func standBack() {}
