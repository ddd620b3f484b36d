//go:build amd64 || arm64

package storage

import "unsafe"

// prefetch asks for the cache line at p, without waiting for it. A pass over
// many rows meets them in no order, and waiting for one line after the other
// is most of what it would do. Nothing is read: p may point to memory that
// another goroutine is writing, or to none at all.
//
//go:noescape
func prefetch(p unsafe.Pointer)
