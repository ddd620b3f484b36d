//go:build linux || darwin

package main

import (
	"syscall"

	"github.com/spf13/cobra"
)

// needServerSystem is for commands that run a server or open its files.
func needServerSystem(...*cobra.Command) {}

// raiseFileLimit raises the soft limit of open files to the hard one and
// returns it.
func raiseFileLimit() (uint64, error) {
	var r syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &r); err != nil {
		return 0, err
	}
	if r.Cur < r.Max {
		raised := r
		raised.Cur = r.Max
		if err := syscall.Setrlimit(syscall.RLIMIT_NOFILE, &raised); err != nil {
			return uint64(r.Cur), err
		}
		r = raised
	}
	return uint64(r.Cur), nil
}
