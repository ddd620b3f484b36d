//go:build !linux

// Command failover measures what users of a cluster notice of its changes. It
// needs Linux.
package main

import (
	"fmt"
	"os"
)

func main() {
	fmt.Fprintln(os.Stderr, "failover: the measurement needs Linux: parent-death signals and CPU clocks of processes")
	os.Exit(1)
}
