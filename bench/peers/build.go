//go:build linux

package main

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"strings"
)

// build compiles a main package of the module in directory dir, the way a
// release is built: static, without paths of this machine.
func build(ctx context.Context, dir, output, pkg string) error {
	cmd := exec.CommandContext(ctx, "go", "build", "-C", dir, "-trimpath", "-buildvcs=false", "-o", output, pkg)
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("building %s: %w: %s (run this in its own directory, bench/peers, or name the programs with -proa and -etcd)", pkg, err, strings.TrimSpace(string(out)))
	}
	return nil
}
