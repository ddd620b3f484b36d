package resp

import (
	_ "embed"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"sync"
)

// commandsJSON describes all commands. Names, numbers, flags, categories and
// arguments are those of Redis 7.0, since clients go by them; where Redis has
// more subcommands, only those of Proa are listed. CLIENT SETINFO and CLIENT
// NO-TOUCH are newer, and as in Redis 7.2.
//
//go:embed commands.json
var commandsJSON []byte

// ID numbers the commands and their subcommands, in the order of the table,
// from 1. It means nothing outside of this process.
type ID uint8

// Flags of a command, as COMMAND INFO names them.
type Flags uint16

// The flags, in the order of COMMAND INFO.
const (
	FlagWrite       Flags = 1 << iota // may change a key
	FlagReadOnly                      // reads keys and changes none
	FlagDenyOOM                       // may need more memory
	FlagAdmin                         // for the people who run the server
	FlagNoScript                      // not for scripts
	FlagLoading                       // allowed while the server loads its data
	FlagStale                         // allowed on a replica that has lost its leader
	FlagSkipSlowlog                   // not in the slow log
	FlagFast                          // takes constant or logarithmic time
	FlagNoAuth                        // allowed before authentication
	FlagAllowBusy                     // allowed while a script runs
)

var flagNames = []string{
	"write", "readonly", "denyoom", "admin", "noscript", "loading", "stale",
	"skip_slowlog", "fast", "no_auth", "allow_busy",
}

// Categories of a command, as access control lists group them.
type Categories uint16

// The categories, in the order of COMMAND INFO.
const (
	CategoryKeyspace Categories = 1 << iota
	CategoryRead
	CategoryWrite
	CategoryString
	CategoryAdmin
	CategoryFast
	CategorySlow
	CategoryDangerous
	CategoryConnection
	CategoryTransaction
)

var categoryNames = []string{
	"@keyspace", "@read", "@write", "@string", "@admin", "@fast", "@slow",
	"@dangerous", "@connection", "@transaction",
}

// UnmarshalJSON reads a list of the flags' names.
func (f *Flags) UnmarshalJSON(b []byte) error {
	bits, err := bitsOf(b, "", flagNames)
	*f = Flags(bits)
	return err
}

// UnmarshalJSON reads a list of the categories' names, without their @.
func (c *Categories) UnmarshalJSON(b []byte) error {
	bits, err := bitsOf(b, "@", categoryNames)
	*c = Categories(bits)
	return err
}

// bitsOf returns the bits of a JSON list of names, each of which stands behind
// prefix in all.
func bitsOf(b []byte, prefix string, all []string) (bits uint16, err error) {
	var names []string
	if err := json.Unmarshal(b, &names); err != nil {
		return 0, err
	}
	for _, name := range names {
		i := slices.Index(all, prefix+name)
		if i < 0 {
			return 0, fmt.Errorf("unknown name %q", name)
		}
		bits |= 1 << i
	}
	return bits, nil
}

// categories returns those that follow from the flags.
func (f Flags) categories() Categories {
	implied := CategorySlow
	if f&FlagFast != 0 {
		implied = CategoryFast
	}
	if f&FlagWrite != 0 {
		implied |= CategoryWrite
	}
	if f&FlagReadOnly != 0 {
		implied |= CategoryRead
	}
	if f&FlagAdmin != 0 {
		implied |= CategoryAdmin | CategoryDangerous
	}
	return implied
}

// Command describes a command, or the subcommand of one. It must not be
// changed.
type Command struct {
	ID         ID     `json:"-"`
	Name       string // in lower case; of a subcommand with its parent: "client|id"
	Arity      int    // number of arguments with the name, or the negative of the least number
	Flags      Flags
	FirstKey   int        `json:"first_key"` // position of the first key among the arguments, the name's being 0; 0: no keys
	LastKey    int        `json:"last_key"`  // position of the last key, from the end where negative: -1 is the last argument
	Step       int        // distance from one key to the next
	Categories Categories // as a whole; the table leaves out those that follow from Flags

	Tips     []string  // hints to clients that spread requests over a cluster
	KeySpecs []KeySpec `json:"key_specs"` // the keys again, with what happens to them

	Summary    string
	Since      string // the version of Redis that had it first
	Group      string // chapter of the documentation: "string", "generic", …
	Complexity string
	Deprecated string // the version of Redis since which there is something better, or empty
	ReplacedBy string `json:"replaced_by"` // that better thing
	Arguments  []Argument

	Subcommands []*Command
}

// KeySpec says which arguments are keys and what happens to them.
type KeySpec struct {
	Index   int      // position of the first
	LastKey int      `json:"last_key"` // the last, relative to the first, or from the end where negative
	Step    int      // distance from one key to the next
	Flags   []string // RO, RW, OW or RM, and access, update, insert, delete
	Notes   string
}

// Argument describes an argument of a command for COMMAND DOCS. The arguments
// of type "key" belong to the KeySpecs, in this order.
type Argument struct {
	Name       string
	Type       string // string, integer, double, key, pattern, unix-time, pure-token, oneof, block
	Token      string // the literal word that stands before it, or that it is
	Since      string // the version of Redis that had it first, if not from the start
	Deprecated string // the version of Redis since which there is something better, or empty
	Optional   bool
	Multiple   bool
	Repeat     bool       // Token stands before each of several
	Choices    []Argument // one of these, or of type "block" all of them
}

// Commands returns all commands, without subcommands, in the order of the
// table. The slice must not be changed.
func Commands() []*Command {
	loading.Do(load)
	return commands
}

// Lookup finds a command by name, in letters of either case. It returns nil for
// one that does not exist, and allocates nothing.
func Lookup(name []byte) *Command {
	loading.Do(load)
	for i := hash(name) % indexSize; index[i] != nil; i = (i + 1) % indexSize {
		if equalFold(index[i].Name, name) {
			return index[i]
		}
	}
	return nil
}

// LookupFull finds a command or, where the name has a bar in it, a subcommand:
// "get", "client|id".
func LookupFull(name []byte) *Command {
	if bar := slices.Index(name, '|'); bar >= 0 {
		if parent := Lookup(name[:bar]); parent != nil {
			return parent.Subcommand(name[bar+1:])
		}
		return nil
	}
	return Lookup(name)
}

// Subcommand finds a subcommand by its own name, in letters of either case. It
// returns nil for one that does not exist.
func (c *Command) Subcommand(name []byte) *Command {
	for _, sub := range c.Subcommands {
		if equalFold(sub.Name[len(c.Name)+1:], name) {
			return sub
		}
	}
	return nil
}

// Resolve finds the command, or the subcommand, that a request calls and checks
// that it has as many arguments as that takes. Where it cannot be called,
// problem is the text of the error to answer. args has at least the name.
func Resolve(args [][]byte) (c *Command, problem string) {
	c = Lookup(args[0])
	if c == nil {
		return nil, UnknownCommand(args)
	}
	if c.Subcommands != nil && len(args) > 1 {
		if c = c.Subcommand(args[1]); c == nil {
			return nil, UnknownSubcommand(args)
		}
	}
	if !c.CheckArity(len(args)) {
		return nil, WrongArity(c.Name)
	}
	return c, ""
}

// CheckArity says whether the command takes n arguments, its name counted.
func (c *Command) CheckArity(n int) bool {
	if c.Arity < 0 {
		return n >= -c.Arity
	}
	return n == c.Arity
}

// Keys returns where the keys stand among the arguments of a request that
// passed CheckArity: at first, first+step, … up to last. step is 0 where there
// are none.
func (c *Command) Keys(args [][]byte) (first, last, step int) {
	if c.FirstKey == 0 {
		return 0, 0, 0
	}
	last = c.LastKey
	if last < 0 {
		last += len(args)
	}
	return c.FirstKey, last, c.Step
}

// KeyAndFlags is a key of a command, and what the command does with it.
type KeyAndFlags struct {
	Key   []byte
	Flags []string // as in KeySpec
}

// KeysAndFlags returns the keys among the arguments, the name's being the first.
// The keys are views of args.
func (c *Command) KeysAndFlags(args [][]byte) (list []KeyAndFlags) {
	for _, spec := range c.KeySpecs {
		last := spec.Index + spec.LastKey
		if spec.LastKey < 0 {
			last = len(args) + spec.LastKey
		}
		flags := spec.Flags
		if c.Name == "set" { // whose flags vary
			flags = []string{"OW", "update"} // nothing of the value is returned
			if hasWord(args[3:], "get") {
				flags = []string{"RW", "access", "update"}
			}
		}
		for i := spec.Index; i <= last && i < len(args); i += spec.Step {
			list = append(list, KeyAndFlags{args[i], flags})
		}
	}
	return list
}

func hasWord(args [][]byte, word string) bool {
	return slices.ContainsFunc(args, func(a []byte) bool { return strings.EqualFold(string(a), word) })
}

// InCategory reports whether the command belongs to a category, named without
// its @.
func (c *Command) InCategory(name []byte) bool {
	for i, category := range categoryNames {
		if strings.EqualFold(category[1:], string(name)) {
			return c.Categories&(1<<i) != 0
		}
	}
	return false
}

// indexSize is a power of two, large enough that chains stay short.
const indexSize = 512

var (
	loading  sync.Once
	commands []*Command
	index    [indexSize]*Command // a hash table of them with open addressing
)

// load parses the table, at the first need.
func load() {
	if err := json.Unmarshal(commandsJSON, &commands); err != nil {
		panic("resp: commands.json: " + err.Error())
	}
	id := ID(0)
	complete := func(c *Command) {
		id++
		c.ID = id
		c.Categories |= c.Flags.categories()
	}
	for _, c := range commands {
		complete(c)
		for _, sub := range c.Subcommands {
			complete(sub)
		}
		i := hash([]byte(c.Name)) % indexSize
		for index[i] != nil {
			i = (i + 1) % indexSize
		}
		index[i] = c
	}
}

// hash is the same for letters of either case.
func hash(name []byte) uint32 {
	h := uint32(len(name))
	for _, c := range name[:min(len(name), nameBytesMax)] {
		h = h*31 + uint32(c|0x20)
	}
	return h ^ h>>9
}

// nameBytesMax is the length of the longest name of a command.
const nameBytesMax = 11

// equalFold compares with a name in lower case.
func equalFold(lowerName string, name []byte) bool {
	if len(lowerName) != len(name) {
		return false
	}
	for i, c := range name {
		if lower(c) != lowerName[i] {
			return false
		}
	}
	return true
}
