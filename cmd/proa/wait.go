package main

import (
	"bufio"
	"context"
	"fmt"
	"strings"
	"time"
)

// confirm asks a person at the terminal whether to do what cannot be undone. The
// answer must be the whole word yes: a key pressed too early must not do harm. The
// end of ctx is no.
func (a *app) confirm(ctx context.Context, question string) bool {
	answer, ok := a.ask(ctx, question+" To go on, type yes: ")
	return ok && strings.EqualFold(answer, "yes")
}

// ask returns the line that a person answers with, without blanks around it. It
// returns false where there is none, and when ctx ends.
func (a *app) ask(ctx context.Context, prompt string) (answer string, ok bool) {
	fmt.Fprint(a.Err, prompt)
	answer, err := within(ctx, func() (string, error) { return bufio.NewReader(a.in).ReadString('\n') })
	if err != nil {
		fmt.Fprintln(a.Err) // leaves the line of the prompt
		return "", false
	}
	return strings.TrimSpace(answer), true
}

// wait waits for d, or until ctx ends.
func wait(ctx context.Context, d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
	case <-t.C:
	}
}

// within returns what f returns, or ctx's error where that ends before: f goes
// on, and ends with the process.
func within[T any](ctx context.Context, f func() (T, error)) (value T, err error) {
	type result struct {
		value T
		err   error
	}
	done := make(chan result, 1)
	go func() {
		value, err := f()
		done <- result{value, err}
	}()
	select {
	case r := <-done:
		return r.value, r.err
	case <-ctx.Done():
		return value, ctx.Err()
	}
}
