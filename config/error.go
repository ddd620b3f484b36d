package config

import (
	"fmt"
	"strings"
)

// Source is where a value comes from.
type Source struct {
	Kind  SourceKind
	Where string // "proa.yaml:12", "PROA_NODE_ID", "--node-id"; empty for defaults
}

// SourceKind orders sources: each overrides those before it.
type SourceKind uint8

// The sources of values.
const (
	FromDefault SourceKind = iota
	FromMachine            // computed from the machine the process runs on
	FromFile
	FromEnvironment
	FromFlag
)

// String names the source for people.
func (s Source) String() string {
	words := [...]string{"default", "computed", "file ", "environment ", "flag "}
	return words[s.Kind] + s.Where
}

// KeyError is one thing wrong with a configuration.
type KeyError struct {
	Key     string // the key, as written by the user where it is unknown
	Value   string // what it was set to
	Source  Source
	Allowed string // the range, or empty
	Reason  string
}

// Error returns one line: source, key, value, what is wrong, what is allowed.
func (e *KeyError) Error() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s: %s", e.Source, e.Key)
	if e.Value != "" {
		fmt.Fprintf(&b, " = %s", quoteBlank(e.Value))
	}
	fmt.Fprintf(&b, ": %s", e.Reason)
	if e.Allowed != "" {
		fmt.Fprintf(&b, " (allowed: %s)", e.Allowed)
	}
	return b.String()
}

// quoteBlank quotes text whose end would not be seen otherwise.
func quoteBlank(s string) string {
	if strings.ContainsAny(s, " \t\n\r") {
		return fmt.Sprintf("%q", s)
	}
	return s
}

// Errors are all things wrong with a configuration, in the order of the
// sources and then of the table.
type Errors []*KeyError

// Error returns one line for each.
func (e Errors) Error() string {
	lines := make([]string, len(e))
	for i, k := range e {
		lines[i] = k.Error()
	}
	if len(lines) == 1 {
		return "configuration: " + lines[0]
	}
	return fmt.Sprintf("configuration has %d errors:\n  %s", len(lines), strings.Join(lines, "\n  "))
}

// Unwrap returns the single errors for errors.As.
func (e Errors) Unwrap() []error {
	out := make([]error, len(e))
	for i, k := range e {
		out[i] = k
	}
	return out
}
