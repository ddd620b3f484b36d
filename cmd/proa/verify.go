package main

import (
	"errors"
	"fmt"
	"os"

	"github.com/spf13/cobra"

	"github.com/proa-kv/proa/config"
	"github.com/proa-kv/proa/internal/render"
	"github.com/proa-kv/proa/raftgroup/datadir"
)

func verifyCommand(a *app) *cobra.Command {
	dir := ""
	cmd := newCommand("verify", cobra.MaximumNArgs(1), func(cmd *cobra.Command, args []string) error {
		dir, err := dataDir(args, dir)
		if err != nil {
			return err
		}
		return verifyDir(a, dir)
	})
	cmd.Flags().StringVar(&dir, "data", "", "data `directory`")
	return cmd
}

// verifyDir checks a data directory. Where it cannot be read, because a server uses
// it for example, there is no result.
func verifyDir(a *app, dir string) error {
	lines := []string{}
	err := datadir.Verify(nil, dir, func(s string) {
		lines = append(lines, s)
		if !a.JSON() {
			fmt.Fprintln(a.Out, render.Printable(s))
		}
	})
	looked := len(lines) > 0
	if a.JSON() && looked {
		if err := a.WriteJSON(map[string]any{"directory": dir, "sound": err == nil, "report": lines}); err != nil {
			return err
		}
	}
	switch {
	case errors.Is(err, datadir.ErrNotDataDir):
		return &usageError{err}
	case errors.Is(err, datadir.ErrInUse):
		return fmt.Errorf("%s was not verified: %w", dir, err)
	case err != nil:
		return fmt.Errorf("verify %s: %w", dir, err)
	case !a.JSON():
		return a.Printf("%s is sound\n", dir)
	}
	return nil
}

// dataDir finds the directory to verify.
func dataDir(args []string, flag string) (string, error) {
	switch {
	case len(args) == 1 && flag != "":
		return "", usagef("DIR and --data cannot be used together")
	case len(args) == 1:
		flag = args[0]
	case flag == "":
		c, err := config.Load(config.Options{})
		if err != nil {
			return "", &usageError{err}
		}
		flag = c.Node.DataDir
	}
	if info, err := os.Stat(flag); err != nil {
		return "", notDonef("%w", err)
	} else if !info.IsDir() {
		return "", notDonef("%s is not a directory", flag)
	}
	return flag, nil
}
