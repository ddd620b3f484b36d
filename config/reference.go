package config

import (
	"bufio"
	"context"
	_ "embed" // of the head of the reference
	"fmt"
	"io"
	"log/slog"
	"strings"

	"go.yaml.in/yaml/v3"
)

// Setting is one key of a loaded configuration.
type Setting struct {
	Name   string
	Value  string // in the form a file takes
	Source Source
	Effect Effect
	Secret bool // Value is not for logs and screens
}

// Settings returns all keys in the order of the reference.
func (c *Config) Settings() []Setting {
	keys := c.keys()
	out := make([]Setting, len(keys))
	for i, k := range keys {
		out[i] = Setting{Name: k.name, Value: k.value.text(), Source: c.sources[k.name], Effect: k.effect, Secret: k.secret}
	}
	return out
}

// Notice says that a key was set and has no effect on this node.
type Notice struct {
	Key    string
	Value  string
	Source Source
	Effect Effect // SeveralNodes or Unavailable
	Doc    string
}

// Notices returns the keys that were set and have no effect on this node.
func (c *Config) Notices() []Notice { return c.notices }

// Warnings returns a sentence for everything that is allowed and unwise.
func (c *Config) Warnings() []string { return c.warnings }

// Report logs what was computed from the machine, what is unwise, and every key
// that was set and has no effect.
func (c *Config) Report(l *slog.Logger) {
	var computed []any
	for _, s := range c.Settings() {
		if s.Source.Kind == FromMachine {
			computed = append(computed, slog.String(s.Name, s.Value))
		}
	}
	l.Info("settings computed for this machine", append(computed,
		slog.Int("processors", c.machine.Processors), slog.String("memory", FormatSize(c.machine.MemoryBytes)))...)
	for _, w := range c.warnings {
		l.Warn("setting is not recommended", "advice", w)
	}
	for _, n := range c.notices {
		level, message := slog.LevelInfo, "setting only has an effect in a cluster of several nodes"
		if n.Effect == Unavailable {
			level, message = slog.LevelWarn, "setting is not available in this version"
		}
		l.Log(context.Background(), level, message, "key", n.Key, "value", n.Value, "source", n.Source.String())
	}
}

// WriteYAML writes the configuration as a file that Load reads back to the
// same values, with the source of each value behind it. Without secrets the file
// has empty values in their places, and says so.
func (c *Config) WriteYAML(w io.Writer, secrets bool) error {
	b := bufio.NewWriter(w)
	section := ""
	for _, k := range c.keys() {
		if k.section() != section {
			section = k.section()
			fmt.Fprintf(b, "%s:\n", section)
		}
		text, note := yamlScalar(k.value), c.sources[k.name].String()
		if k.secret && !secrets && k.value.text() != "" {
			text, note = `""`, note+"; set, and not shown without --show-secrets"
		}
		line := fmt.Sprintf("  %s: %s", strings.TrimPrefix(k.name, section+"."), text)
		if k.effect != Active {
			note += "; " + k.effect.String()
		}
		fmt.Fprintf(b, "%-46s # %s\n", line, note)
	}
	return b.Flush()
}

// yamlScalar writes free text quoted where YAML needs it.
func yamlScalar(v value) string {
	text := v.text()
	switch {
	case !v.free:
		return text
	case text == "":
		return `""`
	}
	b, err := yaml.Marshal(text)
	if err != nil {
		return text
	}
	return strings.TrimSpace(string(b))
}

// sectionTitles says what each section is about, for the reference.
var sectionTitles = map[string]string{
	"node":        "Identity of this node and its data directory.",
	"listen":      "Addresses that the server listens on.",
	"resp":        "The Redis protocol.",
	"network":     "Connections.",
	"raft":        "Consensus and its log.",
	"storage":     "The state machine.",
	"memory":      "Memory limits of the process. Computed sizes are logged at start.",
	"concurrency": "Limits of concurrent work.",
	"monitoring":  "Warning thresholds.",
	"cluster":     "Clusters of several nodes. Use the same values on all nodes.",
	"log":         "The server's own log.",
}

// referenceHead is what the reference says before the keys.
//
//go:embed reference.md
var referenceHead string

// WriteReference writes the documentation of all keys in Markdown.
func WriteReference(w io.Writer) error {
	b := bufio.NewWriter(w)
	b.WriteString(referenceHead)
	section := ""
	for _, k := range new(Config).keys() {
		if k.section() != section {
			section = k.section()
			fmt.Fprintf(b, "\n## %s\n\n%s\n", section, sectionTitles[section])
		}
		writeKey(b, &k)
	}
	return b.Flush()
}

func writeKey(b *bufio.Writer, k *key) {
	fallback := k.fallback
	if fallback == "" {
		fallback = "empty"
	}
	fmt.Fprintf(b, "\n### %s\n\n%s\n\n", k.name, k.doc)
	fmt.Fprintf(b, "- Default: `%s`\n", fallback)
	fmt.Fprintf(b, "- Allowed: %s\n", k.allowed())
	fmt.Fprintf(b, "- Environment: `%s`\n", k.env())
	if k.flag != "" {
		fmt.Fprintf(b, "- Flag: `--%s`\n", k.flag)
	}
	fmt.Fprintf(b, "- Effect: %s\n", k.effect)
}
