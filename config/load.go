package config

import (
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"

	"github.com/knadh/koanf/parsers/yaml"
	"github.com/knadh/koanf/providers/env/v2"
	"github.com/knadh/koanf/providers/file"
	"github.com/knadh/koanf/providers/posflag"
	"github.com/knadh/koanf/v2"
	"github.com/spf13/pflag"
	yamlnode "go.yaml.in/yaml/v3"
)

const (
	delimiter = "."
	envPrefix = "PROA_"
)

// Environment variables with the prefix of keys that are not keys.
const (
	EnvFile      = "PROA_CONFIG"     // path of the configuration file
	EnvEndpoints = "PROA_ENDPOINTS"  // servers the commands talk to
	EnvContext   = "PROA_CONTEXT"    // name of the cluster the commands talk to
	EnvJoinToken = "PROA_JOIN_TOKEN" // node.join_token
)

// Options say where Load looks. The zero value reads the process's
// environment, on this machine, with no file unless PROA_CONFIG names one.
type Options struct {
	// File is the YAML file. Where it is empty, the flag --config and then
	// the variable PROA_CONFIG are asked.
	File string
	// Flags is a parsed set prepared by AddFlags, or nil.
	Flags *pflag.FlagSet
	// Environ returns the environment as os.Environ does, which nil stands for.
	Environ func() []string
	// Machine is what computed values depend on; nil stands for ThisMachine.
	Machine *Machine
}

// Load reads all sources and returns the complete, checked configuration. If
// anything is wrong, the error is of type Errors and lists all of it, or says
// why the file cannot be read.
func Load(o Options) (*Config, error) {
	if o.Environ == nil {
		o.Environ = os.Environ
	}
	c := &Config{sources: map[string]Source{}}
	if o.Machine != nil {
		c.machine = *o.Machine
	} else {
		c.machine = ThisMachine()
	}
	l := loader{config: c, keys: c.keys(), broken: map[string]bool{}}
	l.defaults()
	if err := l.file(o.filePath()); err != nil {
		return nil, err
	}
	if err := l.environment(o.Environ); err != nil {
		return nil, err
	}
	if err := l.flags(o.Flags); err != nil {
		return nil, err
	}
	l.compute()
	l.check()
	if len(l.errors) > 0 {
		return nil, l.errors
	}
	l.notice()
	l.warn()
	return c, nil
}

// filePath returns the path of the configuration file, or "".
func (o *Options) filePath() string {
	if o.File != "" {
		return o.File
	}
	if o.Flags != nil {
		if f := o.Flags.Lookup(flagConfig); f != nil && f.Changed {
			return f.Value.String()
		}
	}
	for _, v := range o.Environ() {
		if path, ok := strings.CutPrefix(v, EnvFile+"="); ok {
			return path
		}
	}
	return ""
}

// loader carries the sources into one Config, collecting what is wrong.
type loader struct {
	config *Config
	keys   []key
	errors Errors
	broken map[string]bool // keys with an error of their own
}

func (l *loader) find(name string) *key {
	i := slices.IndexFunc(l.keys, func(k key) bool { return k.name == name })
	if i < 0 {
		return nil
	}
	return &l.keys[i]
}

func (l *loader) names() []string {
	names := make([]string, len(l.keys))
	for i := range l.keys {
		names[i] = l.keys[i].name
	}
	return names
}

func (l *loader) fail(e *KeyError) {
	l.errors = append(l.errors, e)
	l.broken[e.Key] = true
}

// defaults sets every key to its default.
func (l *loader) defaults() {
	for i := range l.keys {
		k := &l.keys[i]
		l.assign(k, k.fallback, Source{})
	}
}

// assign sets k to text. A value to be computed is only marked.
func (l *loader) assign(k *key, text string, s Source) {
	if k.compute != nil && (strings.EqualFold(strings.TrimSpace(text), auto) || k.zero == auto && strings.TrimSpace(text) == "0") {
		l.config.sources[k.name] = Source{Kind: FromMachine}
		return
	}
	if k.zero != "" && strings.EqualFold(strings.TrimSpace(text), k.zero) {
		text = "0" // never, off, unlimited: the word that stands for it
	}
	if err := k.value.Set(text); err != nil {
		if k.secret() {
			text = "" // messages go to logs
		}
		l.fail(&KeyError{Key: k.name, Value: text, Source: s, Allowed: k.allowed(), Reason: err.Error()})
		return
	}
	l.config.sources[k.name] = s
}

// layer assigns every key that one source sets.
func (l *loader) layer(k *koanf.Koanf, source func(key string) Source) {
	values := k.All()
	for _, name := range slices.Sorted(maps.Keys(values)) {
		s := source(name)
		known := l.find(name)
		if known == nil {
			l.unknown(name, values[name], s)
			continue
		}
		text, ok := scalarText(values[name])
		if !ok {
			l.fail(&KeyError{Key: name, Source: s, Reason: "must be a single value", Allowed: known.allowed()})
			continue
		}
		l.assign(known, text, s)
	}
}

// unknown reports a key that is not in the table. An empty section is no
// mistake.
func (l *loader) unknown(name string, v any, s Source) {
	isSection := slices.ContainsFunc(l.keys, func(k key) bool { return k.section() == name })
	if m, isMap := v.(map[string]any); isSection && (v == nil || isMap && len(m) == 0) {
		return
	}
	e := &KeyError{Key: name, Source: s, Reason: "unknown key"}
	if isSection {
		e.Reason = "is a section and takes keys below it, not a value"
	} else if like, ok := nearest(name, l.names()); ok {
		e.Reason += fmt.Sprintf("; did you mean %s?", like)
	}
	l.fail(e)
}

// scalarText returns the text of a single value as it may stand in a file.
// A list of single values is joined by commas.
func scalarText(v any) (string, bool) {
	switch v := v.(type) {
	case nil, map[string]any:
		return "", false
	case string:
		return v, true
	case []any:
		parts := make([]string, len(v))
		for i, e := range v {
			text, ok := scalarText(e)
			if !ok {
				return "", false
			}
			parts[i] = text
		}
		return strings.Join(parts, ","), true
	}
	return fmt.Sprint(v), true
}

// file loads the YAML file at path, if any.
func (l *loader) file(path string) error {
	if path == "" {
		return nil
	}
	k := koanf.New(delimiter)
	if err := k.Load(file.Provider(path), yaml.Parser()); err != nil {
		return fmt.Errorf("configuration file %s: %w", path, err)
	}
	lines := lineNumbers(path)
	l.layer(k, func(name string) Source {
		where := path
		if n, ok := lines[name]; ok {
			where = fmt.Sprintf("%s:%d", path, n)
		}
		return Source{Kind: FromFile, Where: where}
	})
	return nil
}

// lineNumbers maps the keys of a YAML file to their lines. They only improve
// messages, so a file that cannot be read gives none.
func lineNumbers(path string) map[string]int {
	b, err := os.ReadFile(path)
	if err != nil {
		return nil
	}
	var document yamlnode.Node
	if yamlnode.Unmarshal(b, &document) != nil || len(document.Content) == 0 {
		return nil
	}
	lines := map[string]int{}
	collectLines(document.Content[0], "", lines)
	return lines
}

func collectLines(n *yamlnode.Node, prefix string, lines map[string]int) {
	if n.Kind != yamlnode.MappingNode {
		return
	}
	for i := 0; i+1 < len(n.Content); i += 2 {
		name := prefix + n.Content[i].Value
		lines[name] = n.Content[i].Line
		collectLines(n.Content[i+1], name+delimiter, lines)
	}
}

// environment loads PROA_SECTION_KEY variables. Other variables with the
// prefix are errors only where they look like a key: platforms such as
// Kubernetes set variables of this form for a service named proa.
func (l *loader) environment(environ func() []string) error {
	byEnv := map[string]string{}
	var names, sections []string
	for i := range l.keys {
		k := &l.keys[i]
		byEnv[k.env()] = k.name
		names = append(names, k.env())
		sections = append(sections, envPrefix+strings.ToUpper(k.section())+"_")
	}
	byEnv[EnvJoinToken] = "node.join_token"
	var strangers []string
	where := map[string]string{} // the variable that a key was set by
	k := koanf.New(delimiter)
	err := k.Load(env.Provider(delimiter, env.Opt{
		Prefix:      envPrefix,
		EnvironFunc: environ,
		TransformFunc: func(variable, text string) (string, any) {
			name, ok := byEnv[variable]
			if !ok && variable != EnvFile && variable != EnvEndpoints && variable != EnvContext {
				strangers = append(strangers, variable)
			}
			where[name] = variable
			return name, text
		},
	}), nil)
	if err != nil {
		return fmt.Errorf("environment: %w", err)
	}
	for _, v := range strangers {
		like, close := nearest(v, names)
		inSection := slices.ContainsFunc(sections, func(s string) bool { return strings.HasPrefix(v, s) })
		if !close && !inSection {
			continue
		}
		e := &KeyError{Key: v, Source: Source{Kind: FromEnvironment, Where: v}, Reason: "unknown key"}
		if close {
			e.Reason += fmt.Sprintf("; did you mean %s?", like)
		}
		l.fail(e)
	}
	l.layer(k, func(name string) Source {
		return Source{Kind: FromEnvironment, Where: where[name]}
	})
	return nil
}

// flags loads the flags that were given on the command line.
func (l *loader) flags(set *pflag.FlagSet) error {
	if set == nil {
		return nil
	}
	k := koanf.New(delimiter)
	where := map[string]string{}
	provider := posflag.ProviderWithFlag(set, delimiter, nil, func(f *pflag.Flag) (string, any) {
		name := flagKeys[f.Name]
		if name != "" && f.Changed {
			where[name] = "--" + f.Name
		}
		return name, f.Value.String()
	})
	if err := k.Load(provider, nil); err != nil {
		return fmt.Errorf("flags: %w", err)
	}
	if f := set.Lookup(flagSet); f != nil && f.Changed {
		settings, _ := set.GetStringArray(flagSet)
		for _, setting := range settings {
			name, text, ok := strings.Cut(setting, "=")
			name = strings.TrimSpace(name)
			if !ok {
				l.fail(&KeyError{Key: name, Source: Source{Kind: FromFlag, Where: "--set"}, Reason: "must have the form --set key=value"})
				continue
			}
			if err := k.Set(name, text); err != nil {
				return fmt.Errorf("flags: %w", err)
			}
			where[name] = "--set"
		}
	}
	l.layer(k, func(name string) Source { return Source{Kind: FromFlag, Where: where[name]} })
	return nil
}

// compute fills in what depends on the machine.
func (l *loader) compute() {
	for i := range l.keys {
		k := &l.keys[i]
		if l.config.sources[k.name].Kind == FromMachine {
			k.compute(l.config)
		}
	}
}

// notice collects the keys that are set and have no effect.
func (l *loader) notice() {
	for i := range l.keys {
		k := &l.keys[i]
		s := l.config.sources[k.name]
		if k.effect != Active && s.Kind >= FromFile {
			l.config.notices = append(l.config.notices, Notice{
				Key: k.name, Value: k.value.String(), Source: s, Effect: k.effect, Doc: k.doc,
			})
		}
	}
}
