//go:build !linux

// Command lab measures Proa. It needs Linux.
package main

import (
	"fmt"
	"os"
)

func main() {
	fmt.Fprintln(os.Stderr, "lab: measurements need Linux: epoll, fdatasync and /proc")
	os.Exit(1)
}
