//go:build !linux

// Command peers compares Proa with other databases. It needs Linux.
package main

import (
	"fmt"
	"os"
)

func main() {
	fmt.Fprintln(os.Stderr, "peers: the comparison needs Linux: epoll, fdatasync and /proc")
	os.Exit(1)
}
