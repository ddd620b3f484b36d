package server

import (
	"bytes"
	"os"
	"strconv"
)

// usedMemory returns how much of the machine's memory the process has, in bytes.
// What is only reserved, such as tables that are not filled yet, does not count.
func usedMemory() int64 {
	b, err := os.ReadFile("/proc/self/statm") // in pages: size, resident, …
	if err != nil {
		return heldMemory()
	}
	fields := bytes.Fields(b)
	if len(fields) < 2 {
		return heldMemory()
	}
	pages, err := strconv.ParseInt(string(fields[1]), 10, 64)
	if err != nil {
		return heldMemory()
	}
	return pages * int64(os.Getpagesize())
}
