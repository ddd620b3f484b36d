//go:build !linux

// Command growth measures how cost grows. It needs Linux.
package main

import (
	"fmt"
	"os"
)

func main() {
	fmt.Fprintln(os.Stderr, "growth: the load generator needs Linux")
	os.Exit(1)
}
