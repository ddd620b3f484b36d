package main

import (
	"context"
	"fmt"
	"math"
	"slices"
	"time"

	"github.com/spf13/cobra"

	"github.com/proa-kv/proa/client"
	"github.com/proa-kv/proa/internal/render"
)

func pingCommand(a *app) *cobra.Command {
	var count int
	var interval time.Duration
	cmd := newCommand("ping", cobra.NoArgs, func(cmd *cobra.Command, _ []string) error {
		if count < 0 || interval < 0 {
			return usagef("--count and --interval must not be negative")
		}
		return pingServer(cmd.Context(), a, count, interval)
	})
	cmd.Flags().IntVarP(&count, "count", "c", 4, "`number` of requests; 0 means until interrupted")
	cmd.Flags().DurationVarP(&interval, "interval", "i", time.Second, "`time` between requests")
	return cmd
}

// pingLinesMax is how many round trips are printed one by one where there is
// no interval between them.
const pingLinesMax = 10

func pingServer(ctx context.Context, a *app, count int, interval time.Duration) error {
	c, err := a.connect(ctx)
	if err != nil {
		return err
	}
	var s roundTrips
	var failure error
	for seq := 1; (count == 0 || seq <= count) && ctx.Err() == nil; seq++ {
		rtt, err := c.Ping(ctx, client.WithTimeout(a.timeout))
		if err != nil && ctx.Err() != nil {
			break // interrupted, not unanswered
		}
		s.sent++
		if err != nil {
			failure = err
			p := explain(err, a)
			p.Message = fmt.Sprintf("seq=%d: %s", seq, p.Message)
			a.showProblem(p)
		} else {
			s.times = append(s.times, rtt)
			if a.Form == render.AsTable && (interval > 0 || seq <= pingLinesMax) {
				if err := a.Printf("reply seq=%d time=%s\n", seq, formatRTT(rtt)); err != nil {
					return err
				}
			}
		}
		if interval > 0 && seq != count {
			wait(ctx, interval)
		}
	}
	if err := showRoundTrips(a, &s); err != nil {
		return err
	}
	if failure != nil {
		return &statusError{exitServer, errSilent}
	}
	return nil
}

// roundTrips are the figures of a ping.
type roundTrips struct {
	sent  int
	times []time.Duration
}

// quantile returns the time at or below which a share q of the round trips
// lies (nearest rank). times must be sorted and not empty.
func quantile(times []time.Duration, q float64) time.Duration {
	rank := int(math.Ceil(q * float64(len(times))))
	return times[max(rank-1, 0)]
}

func showRoundTrips(a *app, s *roundTrips) error {
	slices.Sort(s.times)
	n := len(s.times)
	if a.JSON() {
		out := map[string]any{"sent": s.sent, "received": n}
		if n > 0 {
			for name, d := range s.figures() {
				out[name+"_us"] = float64(d) / float64(time.Microsecond)
			}
		}
		return a.WriteJSON(out)
	}
	if err := a.Printf("%d sent, %d answered\n", s.sent, n); err != nil || n == 0 {
		return err
	}
	f := s.figures()
	return a.Printf("round trip min %s, mean %s, median %s, p99 %s, max %s, deviation %s\n",
		formatRTT(f["min"]), formatRTT(f["mean"]), formatRTT(f["p50"]), formatRTT(f["p99"]), formatRTT(f["max"]), formatRTT(f["stddev"]))
}

func (s *roundTrips) figures() map[string]time.Duration {
	var sum, squares float64
	for _, d := range s.times {
		sum += float64(d)
	}
	mean := sum / float64(len(s.times))
	for _, d := range s.times {
		squares += (float64(d) - mean) * (float64(d) - mean)
	}
	return map[string]time.Duration{
		"min": s.times[0], "max": s.times[len(s.times)-1], "mean": time.Duration(mean),
		"p50": quantile(s.times, 0.5), "p99": quantile(s.times, 0.99),
		"stddev": time.Duration(math.Sqrt(squares / float64(len(s.times)))),
	}
}

func formatRTT(d time.Duration) string {
	return fmt.Sprintf("%.3f ms", float64(d)/float64(time.Millisecond))
}
