package config

import (
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"

	"github.com/spf13/pflag"
	"go.yaml.in/yaml/v3"

	"github.com/proa-kv/proa/internal/nearest"
)

const envPrefix = "PROA_"

// Environment variables with the prefix of keys that are not keys.
const (
	EnvFile      = "PROA_CONFIG"     // path of the configuration file
	EnvEndpoints = "PROA_ENDPOINTS"  // servers the commands talk to
	EnvContext   = "PROA_CONTEXT"    // name of the cluster the commands talk to
	EnvJoinToken = "PROA_JOIN_TOKEN" // node.join_token

	// How the commands log in to servers, and talk to them. EnvTLSCert and EnvTLSKey
	// are keys as well.
	EnvUser          = "PROA_USER"
	EnvPassword      = "PROA_PASSWORD"
	EnvPasswordFile  = "PROA_PASSWORD_FILE"
	EnvTLS           = "PROA_TLS"
	EnvTLSCA         = "PROA_TLS_CA"
	EnvTLSCert       = "PROA_TLS_CERT"
	EnvTLSKey        = "PROA_TLS_KEY"
	EnvTLSServerName = "PROA_TLS_SERVER_NAME"

	// EnvNewPassword is the password that commands give to a user.
	EnvNewPassword = "PROA_NEW_PASSWORD"

	// EnvClusterSecret is the secret itself; it is not part of the configuration.
	EnvClusterSecret = "PROA_CLUSTER_SECRET"
)

// envOfCommands are variables that a server may find in its environment.
var envOfCommands = []string{
	EnvFile, EnvEndpoints, EnvContext, EnvUser, EnvPassword, EnvPasswordFile, EnvTLS, EnvTLSCA, EnvTLSServerName, EnvNewPassword, EnvClusterSecret,
}

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
	for i := range l.keys {
		l.assign(&l.keys[i], l.keys[i].fallback, Source{})
	}
	if err := l.file(o.filePath()); err != nil {
		return nil, err
	}
	l.environment(o.Environ())
	l.flags(o.Flags)
	l.compute()
	l.check()
	if len(l.errors) > 0 {
		return nil, l.errors
	}
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

func (l *loader) fail(e *KeyError) {
	l.errors = append(l.errors, e)
	l.broken[e.Key] = true
}

// assign sets k to text. A value to be computed is only marked.
func (l *loader) assign(k *key, text string, s Source) {
	if k.compute != nil && (strings.EqualFold(strings.TrimSpace(text), auto) || k.zero == auto && strings.TrimSpace(text) == "0") {
		l.config.sources[k.name] = Source{Kind: FromMachine}
		return
	}
	if err := k.set(text); err != nil {
		if k.secret {
			text = "" // messages go to logs
		}
		l.fail(&KeyError{Key: k.name, Value: text, Source: s, Allowed: k.allowed(), Reason: err.Error()})
		return
	}
	l.config.sources[k.name] = s
}

// layer is what one source sets: values by key, and where each stands.
type layer struct {
	kind   SourceKind
	values map[string]any
	where  map[string]string
}

func newLayer(kind SourceKind) layer { return layer{kind, map[string]any{}, map[string]string{}} }

func (y layer) set(name string, value any, where string) {
	y.values[name], y.where[name] = value, where
}

// add assigns every key that a layer sets, in the order of their names.
func (l *loader) add(y layer) {
	for _, name := range slices.Sorted(maps.Keys(y.values)) {
		v, s := y.values[name], Source{Kind: y.kind, Where: y.where[name]}
		k := l.find(name)
		if k == nil {
			l.unknown(name, v, s)
		} else if text, ok := scalarText(v); ok {
			l.assign(k, text, s)
		} else {
			l.fail(&KeyError{Key: name, Source: s, Reason: "must be a single value", Allowed: k.allowed()})
		}
	}
}

// unknown reports a key that is not in the table. An empty section is no
// mistake.
func (l *loader) unknown(name string, v any, s Source) {
	isSection := slices.ContainsFunc(l.keys, func(k key) bool { return k.section() == name })
	if m, isMap := v.(map[string]any); isSection && (v == nil || isMap && len(m) == 0) {
		return
	}
	names := make([]string, len(l.keys))
	for i := range l.keys {
		names[i] = l.keys[i].name
	}
	e := &KeyError{Key: name, Source: s, Reason: "unknown key" + didYouMean(name, names)}
	if isSection {
		e.Reason = "is a section and takes keys below it, not a value"
	}
	l.fail(e)
}

// didYouMean is the end of a message about a name that is not one of names.
func didYouMean(name string, names []string) string {
	like := nearest.Name(name, names, len(name)/3+1)
	if like == "" {
		return ""
	}
	return fmt.Sprintf("; did you mean %s?", like)
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
	text, err := os.ReadFile(path)
	if err != nil {
		return fmt.Errorf("configuration file %s: %w", path, err)
	}
	var tree map[string]any
	var document yaml.Node // of the same text: it knows the lines
	if err := yaml.Unmarshal(text, &tree); err != nil {
		return fmt.Errorf("configuration file %s: %w", path, err)
	}
	lines := map[string]int{}
	if yaml.Unmarshal(text, &document) == nil && len(document.Content) > 0 {
		collectLines(document.Content[0], "", lines)
	}
	y := newLayer(FromFile)
	flatten(tree, "", func(name string, v any) {
		where := path
		if n, ok := lines[name]; ok {
			where = fmt.Sprintf("%s:%d", path, n)
		}
		y.set(name, v, where)
	})
	l.add(y)
	return nil
}

// flatten calls set with each value below a section, named with the names of all
// sections that it is in. An empty section is a value.
func flatten(section map[string]any, prefix string, set func(name string, v any)) {
	for name, v := range section {
		if inner, ok := v.(map[any]any); ok { // some name is not a string
			named := map[string]any{}
			for k, v := range inner {
				named[fmt.Sprint(k)] = v
			}
			v = named
		}
		if inner, ok := v.(map[string]any); ok && len(inner) > 0 {
			flatten(inner, prefix+name+".", set)
		} else {
			set(prefix+name, v)
		}
	}
}

func collectLines(n *yaml.Node, prefix string, lines map[string]int) {
	if n.Kind != yaml.MappingNode {
		return
	}
	for i := 0; i+1 < len(n.Content); i += 2 {
		name := prefix + n.Content[i].Value
		lines[name] = n.Content[i].Line
		collectLines(n.Content[i+1], name+".", lines)
	}
}

// environment loads PROA_SECTION_KEY variables. Other variables with the
// prefix are errors only where they look like a key: platforms such as
// Kubernetes set variables of this form for a service named proa.
func (l *loader) environment(environ []string) {
	byEnv := map[string]string{EnvJoinToken: "node.join_token"}
	var names, sections []string
	for i := range l.keys {
		k := &l.keys[i]
		byEnv[k.env()] = k.name
		names = append(names, k.env())
		sections = append(sections, envPrefix+strings.ToUpper(k.section())+"_")
	}
	y := newLayer(FromEnvironment)
	for _, entry := range environ {
		variable, text, _ := strings.Cut(entry, "=")
		if name, ok := byEnv[variable]; ok {
			y.set(name, text, variable)
			continue
		}
		if !strings.HasPrefix(variable, envPrefix) || slices.Contains(envOfCommands, variable) {
			continue
		}
		like := didYouMean(variable, names)
		if like != "" || slices.ContainsFunc(sections, func(s string) bool { return strings.HasPrefix(variable, s) }) {
			l.fail(&KeyError{Key: variable, Source: Source{Kind: FromEnvironment, Where: variable}, Reason: "unknown key" + like})
		}
	}
	l.add(y)
}

// flags loads the flags that were given on the command line.
func (l *loader) flags(set *pflag.FlagSet) {
	if set == nil {
		return
	}
	y := newLayer(FromFlag)
	for _, k := range l.keys {
		if f := set.Lookup(k.flag); f != nil && f.Changed {
			y.set(k.name, f.Value.String(), "--"+f.Name)
		}
	}
	settings, _ := set.GetStringArray(flagSet) // none where there is no such flag
	for _, setting := range settings {
		name, text, ok := strings.Cut(setting, "=")
		name = strings.TrimSpace(name)
		if !ok {
			l.fail(&KeyError{Key: name, Source: Source{Kind: FromFlag, Where: "--set"}, Reason: "must have the form --set key=value"})
			continue
		}
		y.set(name, text, "--set")
	}
	l.add(y)
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

const (
	flagConfig = "config"
	flagSet    = "set"
)

// AddFlags adds the flags of the configuration to set: --config, --set, and those
// of the table of keys. They are all read as text; Load checks them.
func AddFlags(set *pflag.FlagSet) {
	set.String(flagConfig, "", "configuration `file` (YAML); also "+EnvFile)
	set.StringArray(flagSet, nil, "set any configuration `key=value`; repeatable")
	for _, k := range new(Config).keys() {
		if k.flag == "" {
			continue
		}
		usage := k.usage
		if k.fallback != "" {
			usage += " (default " + k.fallback + ")"
		}
		if k.value.allowed == trueOrFalse {
			set.Bool(k.flag, false, k.usage)
			continue
		}
		set.String(k.flag, "", usage)
	}
}
