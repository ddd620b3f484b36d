//go:build !linux

package testcluster

import "net"

// canIdentify says whether owner works on this system.
const canIdentify = false

func owner(*net.TCPConn, []int) (i int, ok bool) { return 0, false }
