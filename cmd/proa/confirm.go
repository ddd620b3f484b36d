package main

import (
	"bufio"
	"context"
	"fmt"
	"strings"
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
