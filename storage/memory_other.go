//go:build !unix

package storage

// mapMemory falls back to the Go heap where there is no mmap.
func mapMemory(n int) (memory []byte, release func() error, err error) {
	return heapMemory(n)
}
