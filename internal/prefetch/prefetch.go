//go:build amd64 || arm64

// Package prefetch asks the processor for memory before it is needed.
package prefetch

import "unsafe"

// Line asks for the cache line at p, without waiting for it. Code that visits
// many places in no order gains most of the time that it would wait for one line
// after the other. Nothing is read: p may point to memory that another goroutine
// is writing, or to none at all.
//
//go:noescape
func Line(p unsafe.Pointer)
