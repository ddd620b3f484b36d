//go:build !linux && !darwin

package main

import (
	"errors"
	"runtime"

	"github.com/spf13/cobra"
)

// needServerSystem is for commands that run a server or open its files. They say
// that they cannot do it on this system.
func needServerSystem(commands ...*cobra.Command) {
	for _, c := range commands {
		c.Short += " (on Linux and macOS)"
		c.PreRunE = func(cmd *cobra.Command, _ []string) error {
			return notDonef("%s needs Linux, or macOS for development: a server's files cannot be opened on %s; other commands work here with a server elsewhere: proa -e host:port …", cmd.CommandPath(), runtime.GOOS)
		}
	}
}

// raiseFileLimit is for a server.
func raiseFileLimit() (uint64, error) { return 0, errors.ErrUnsupported }
