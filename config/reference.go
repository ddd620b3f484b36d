package config

import (
	"bufio"
	"cmp"
	"context"
	_ "embed" // of the reference
	"fmt"
	"io"
	"log/slog"
	"slices"
	"strings"
	"text/template"

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

// Notices returns the keys that were set and have no effect on this node.
func (c *Config) Notices() []Setting {
	return slices.DeleteFunc(c.Settings(), func(s Setting) bool { return s.Effect == Active || s.Source.Kind < FromFile })
}

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
	for _, n := range c.Notices() {
		level, message := slog.LevelInfo, "setting only has an effect in a cluster of several nodes"
		if n.Effect == Unavailable {
			level, message = slog.LevelWarn, "setting is not available in this version"
		}
		l.Log(context.Background(), level, message, "key", n.Name, "value", n.Value, "source", n.Source.String())
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

// reference is the reference of all keys, a template: facts writes what the table
// says of a key.
//
//go:embed reference.md
var reference string

// WriteReference writes the documentation of all keys in Markdown.
func WriteReference(w io.Writer) error {
	l := loader{keys: new(Config).keys()}
	facts := func(name string) (string, error) {
		if k := l.find(name); k != nil {
			return k.facts(), nil
		}
		return "", fmt.Errorf("there is no key %s", name)
	}
	t, err := template.New("reference").Funcs(template.FuncMap{"facts": facts}).Parse(reference)
	if err != nil {
		return err
	}
	return t.Execute(w, nil)
}

// facts describes default, range and names of k in Markdown.
func (k *key) facts() string {
	text := fmt.Sprintf("- Default: `%s`\n- Allowed: %s\n- Environment: `%s`\n", cmp.Or(k.fallback, "empty"), k.allowed(), k.env())
	if k.flag != "" {
		text += fmt.Sprintf("- Flag: `--%s`\n", k.flag)
	}
	return text + fmt.Sprintf("- Effect: %s", k.effect)
}
