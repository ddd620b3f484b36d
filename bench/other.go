//go:build !linux

package bench

import (
	"context"
	"errors"
	"fmt"
)

var errPlatform = fmt.Errorf("bench: the load generator needs Linux: %w", errors.ErrUnsupported)

// Idle is a set of open connections that say nothing.
type Idle struct{}

// OpenIdle opens connections. It needs Linux and fails here.
func OpenIdle(context.Context, Target, int) (*Idle, error) { return nil, errPlatform }

// Check reports whether all connections are still open.
func (*Idle) Check() error { return errPlatform }

// Close closes the connections.
func (*Idle) Close() error { return nil }

func (h *Harness) run(context.Context, float64, bool) (*LoadResult, error) { return nil, errPlatform }
