package server

import (
	"bytes"
	"os"
	"runtime/metrics"
	"strconv"
)

// usedMemory returns how much of the machine's memory the process has, in bytes.
// What is only reserved, such as tables that are not filled yet, does not count,
// where the system has procfs.
func usedMemory() int64 {
	b, _ := os.ReadFile("/proc/self/statm") // in pages: size, resident, …
	if fields := bytes.Fields(b); len(fields) > 1 {
		if pages, err := strconv.ParseInt(string(fields[1]), 10, 64); err == nil {
			return pages * int64(os.Getpagesize())
		}
	}
	return heldMemory()
}

// heldMemory is how much memory the Go runtime holds, in bytes, touched or not.
// The row cache lies outside of it.
func heldMemory() int64 {
	samples := []metrics.Sample{{Name: "/memory/classes/total:bytes"}, {Name: "/memory/classes/heap/released:bytes"}}
	metrics.Read(samples)
	return int64(samples[0].Value.Uint64() - samples[1].Value.Uint64())
}
