//go:build !linux

// Command onenode compares one Proa node with Redis. It needs Linux.
package main

import (
	"fmt"
	"os"
)

func main() {
	fmt.Fprintln(os.Stderr, "onenode: the comparison needs Linux: epoll, fdatasync and /proc")
	os.Exit(1)
}
