package resp

import "strings"

// AppendCommandInfo appends the description of a command by COMMAND INFO, with its
// subcommands; nil, which is an unknown command, is a null.
func AppendCommandInfo(dst []byte, proto int, c *Command) []byte {
	if c == nil {
		return AppendNull(dst, proto)
	}
	dst = AppendArray(dst, 10)
	dst = AppendBulk(dst, c.Name)
	dst = AppendInt(dst, int64(c.Arity))
	dst = appendNames(dst, proto, uint16(c.Flags), flagNames)
	dst = AppendInt(dst, int64(c.FirstKey))
	dst = AppendInt(dst, int64(c.LastKey))
	dst = AppendInt(dst, int64(c.Step))
	dst = appendNames(dst, proto, uint16(c.Categories), categoryNames)
	dst = AppendSet(dst, proto, len(c.Tips))
	for _, tip := range c.Tips {
		dst = AppendBulk(dst, tip)
	}
	dst = AppendSet(dst, proto, len(c.KeySpecs))
	for i := range c.KeySpecs {
		dst = c.KeySpecs[i].append(dst, proto)
	}
	// Redis sends an empty set, but an array of subcommands.
	if len(c.Subcommands) == 0 {
		return AppendSet(dst, proto, 0)
	}
	dst = AppendArray(dst, len(c.Subcommands))
	for _, sub := range c.Subcommands {
		dst = AppendCommandInfo(dst, proto, sub)
	}
	return dst
}

// appendNames appends the set of the names of the bits that are set.
func appendNames(dst []byte, proto int, bits uint16, names []string) []byte {
	n := 0
	for i := range names {
		n += int(bits >> i & 1)
	}
	dst = AppendSet(dst, proto, n)
	for i, name := range names {
		if bits>>i&1 != 0 {
			dst = AppendSimple(dst, name)
		}
	}
	return dst
}

func (k *KeySpec) append(dst []byte, proto int) []byte {
	if k.Notes == "" {
		dst = AppendMap(dst, proto, 3)
	} else {
		dst = AppendMap(dst, proto, 4)
		dst = appendPair(dst, "notes", k.Notes)
	}
	dst = AppendBulk(dst, "flags")
	dst = AppendSet(dst, proto, len(k.Flags))
	for _, flag := range k.Flags {
		dst = AppendSimple(dst, flag)
	}
	dst = AppendBulk(dst, "begin_search")
	dst = AppendMap(dst, proto, 2)
	dst = appendPair(dst, "type", "index")
	dst = AppendBulk(dst, "spec")
	dst = AppendMap(dst, proto, 1)
	dst = appendNumber(dst, "index", k.Index)
	dst = AppendBulk(dst, "find_keys")
	dst = AppendMap(dst, proto, 2)
	dst = appendPair(dst, "type", "range")
	dst = AppendBulk(dst, "spec")
	dst = AppendMap(dst, proto, 3)
	dst = appendNumber(dst, "lastkey", k.LastKey)
	dst = appendNumber(dst, "keystep", k.Step)
	return appendNumber(dst, "limit", 0)
}

// AppendCommandDocs appends the description of a command by COMMAND DOCS, with its
// subcommands: its name and a map. Before that comes the header of a map with
// as many entries as commands.
func AppendCommandDocs(dst []byte, proto int, c *Command) []byte {
	dst = AppendBulk(dst, c.Name)
	dst = AppendMap(dst, proto, c.docs())
	dst = appendPair(dst, "summary", c.Summary)
	dst = appendPair(dst, "since", c.Since)
	dst = appendPair(dst, "group", c.Group)
	dst = appendPair(dst, "complexity", c.Complexity)
	if c.Deprecated != "" {
		dst = AppendBulk(dst, "doc_flags")
		dst = AppendSet(dst, proto, 1)
		dst = AppendSimple(dst, "deprecated")
		dst = appendPair(dst, "deprecated_since", c.Deprecated)
		dst = appendPair(dst, "replaced_by", c.ReplacedBy)
	}
	if len(c.Arguments) > 0 {
		dst = AppendBulk(dst, "arguments")
		dst, _ = appendArguments(dst, proto, c.Arguments, 0)
	}
	if len(c.Subcommands) > 0 {
		dst = AppendBulk(dst, "subcommands")
		dst = AppendMap(dst, proto, len(c.Subcommands))
		for _, sub := range c.Subcommands {
			dst = AppendCommandDocs(dst, proto, sub)
		}
	}
	return dst
}

// docs counts the entries in the map of COMMAND DOCS.
func (c *Command) docs() int {
	n := 4
	if c.Deprecated != "" {
		n += 3
	}
	if len(c.Arguments) > 0 {
		n++
	}
	if len(c.Subcommands) > 0 {
		n++
	}
	return n
}

// appendArguments appends the array of arguments. keys is how many of those
// before were keys, and grows by those among them.
func appendArguments(dst []byte, proto int, args []Argument, keys int) ([]byte, int) {
	dst = AppendArray(dst, len(args))
	for i := range args {
		dst, keys = args[i].append(dst, proto, keys)
	}
	return dst, keys
}

func (a *Argument) append(dst []byte, proto, keys int) ([]byte, int) {
	dst = AppendMap(dst, proto, a.docs())
	dst = appendPair(dst, "name", a.Name)
	dst = appendPair(dst, "type", a.Type)
	if a.isKey() {
		dst = appendNumber(dst, "key_spec_index", keys)
		keys++
	}
	for _, pair := range []struct{ key, value string }{
		{"token", a.Token}, {"since", a.Since}, {"deprecated_since", a.Deprecated},
	} {
		if pair.value != "" {
			dst = appendPair(dst, pair.key, pair.value)
		}
	}
	if flags := a.flags(); flags != 0 {
		dst = AppendBulk(dst, "flags")
		dst = appendNames(dst, proto, flags, argumentFlagNames)
	}
	if len(a.Choices) > 0 {
		dst = AppendBulk(dst, "arguments")
		dst, keys = appendArguments(dst, proto, a.Choices, keys)
	}
	return dst, keys
}

// docs counts the entries in the map of an argument.
func (a *Argument) docs() int {
	n := 2
	for _, present := range []bool{
		a.isKey(), a.Token != "", a.Since != "", a.Deprecated != "", a.flags() != 0, len(a.Choices) > 0,
	} {
		if present {
			n++
		}
	}
	return n
}

func (a *Argument) isKey() bool { return a.Type == "key" }

var argumentFlagNames = []string{"optional", "multiple", "multiple_token"}

// flags has a bit for each of argumentFlagNames.
func (a *Argument) flags() (bits uint16) {
	for i, set := range []bool{a.Optional, a.Multiple, a.Repeat} {
		if set {
			bits |= 1 << i
		}
	}
	return bits
}

func appendPair(dst []byte, key, value string) []byte {
	dst = AppendBulk(dst, key)
	return AppendBulk(dst, value)
}

func appendNumber(dst []byte, key string, n int) []byte {
	dst = AppendBulk(dst, key)
	return AppendInt(dst, int64(n))
}

// AppendHelp appends the answer to the HELP subcommand of a command: its
// subcommands, each with what it does.
func AppendHelp(dst []byte, c *Command) []byte {
	lines := []string{strings.ToUpper(c.Name) + " <subcommand> [<arg> [value] [opt] ...]. Subcommands are:"}
	for _, sub := range c.Subcommands {
		line := strings.ToUpper(sub.Name[len(c.Name)+1:])
		for i := range sub.Arguments {
			line += " " + sub.Arguments[i].syntax()
		}
		lines = append(lines, line, "    "+sub.Summary)
	}
	dst = AppendArray(dst, len(lines))
	for _, line := range lines {
		dst = AppendSimple(dst, line)
	}
	return dst
}

// syntax is how people write the argument: [TYPE <a|b>], <key> [<key> ...].
func (a *Argument) syntax() string {
	var s string
	switch {
	case a.Type == "pure-token":
		s = a.Token
	case len(a.Choices) > 0:
		parts := make([]string, len(a.Choices))
		for i := range a.Choices {
			parts[i] = a.Choices[i].syntax()
		}
		s = strings.Join(parts, " ")
		if a.Type == "oneof" {
			s = "<" + strings.Join(parts, "|") + ">"
		}
	default:
		s = "<" + a.Name + ">"
	}
	if a.Token != "" && a.Type != "pure-token" {
		s = a.Token + " " + s
	}
	if a.Multiple {
		s += " [" + s + " ...]"
	}
	if a.Optional {
		s = "[" + s + "]"
	}
	return s
}
