package spawn

import (
	"context"
	"fmt"
	"time"
)

// Await calls try again and again until it returns nil. It gives up with the error of
// trouble, which says what makes waiting useless, or when ctx ends: then its error
// wraps the cause of that and the last error of try that the end did not cause.
func Await(ctx context.Context, interval time.Duration, try func(context.Context) error, trouble func() error) error {
	tick := time.NewTicker(interval)
	defer tick.Stop()
	var last error
	for {
		err := try(ctx)
		if err == nil {
			return nil
		}
		if last == nil || ctx.Err() == nil {
			last = err
		}
		if err := trouble(); err != nil {
			return err
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("%w: %w", context.Cause(ctx), last)
		case <-tick.C:
		}
	}
}
