package resp

import (
	"bytes"
	"slices"
	"strings"
	"testing"

	"github.com/proa-kv/proa/internal/resptest"
)

// every returns all commands and subcommands.
func every() []*Command {
	var all []*Command
	for _, c := range Commands() {
		all = append(all, c)
		all = append(all, c.Subcommands...)
	}
	return all
}

func words(line string) [][]byte { return bytes.Fields([]byte(line)) }

func TestLookup(t *testing.T) {
	for _, c := range Commands() {
		for _, name := range []string{c.Name, strings.ToUpper(c.Name), strings.ToUpper(c.Name[:1]) + c.Name[1:]} {
			if Lookup([]byte(name)) != c || LookupFull([]byte(name)) != c {
				t.Errorf("Lookup(%q) does not find it", name)
			}
		}
		for _, name := range []string{c.Name + "x", c.Name[1:], c.Name + "\x00", c.Name[:len(c.Name)-1] + string(c.Name[len(c.Name)-1]^0x80)} {
			if found := Lookup([]byte(name)); found != nil && found.Name != name {
				t.Errorf("Lookup(%q) finds %s", name, found.Name)
			}
		}
		if len(c.Name) > nameBytesMax {
			t.Errorf("%s: nameBytesMax is %d", c.Name, nameBytesMax)
		}
		for _, sub := range c.Subcommands {
			own := strings.TrimPrefix(sub.Name, c.Name+"|")
			if c.Subcommand([]byte(strings.ToUpper(own))) != sub || LookupFull([]byte(sub.Name)) != sub {
				t.Errorf("%s is not found", sub.Name)
			}
		}
	}
	for _, name := range []string{"", "x", "|", "client|", "client|x", "x|id", "get|x", "@get", "client|id|x", strings.Repeat("x", 1<<20), "g\x05t"} {
		if Lookup([]byte(name)) != nil || LookupFull([]byte(name)) != nil {
			t.Errorf("%q is found", name[:min(len(name), 20)])
		}
	}
}

// A lookup looks at a few entries only.
func TestLookupChains(t *testing.T) {
	loading.Do(load)
	chain := 0
	for _, c := range index {
		if c == nil {
			chain = 0
			continue
		}
		if chain++; chain > 4 {
			t.Fatalf("%d entries in a row, up to %s; change indexSize or hash", chain, c.Name)
		}
	}
	if got := testing.AllocsPerRun(100, func() { Lookup([]byte("IncrByFloat")) }); got != 0 {
		t.Errorf("%v allocations", got)
	}
}

// TestTable checks what the table promises of itself.
func TestTable(t *testing.T) {
	ids := map[ID]string{}
	for _, c := range every() {
		if other := ids[c.ID]; other != "" || c.ID == 0 {
			t.Errorf("%s and %s have ID %d", c.Name, other, c.ID)
		}
		ids[c.ID] = c.Name
		if c.Name != strings.ToLower(c.Name) || c.Arity == 0 || c.Summary == "" || c.Since == "" || c.Group == "" || c.Complexity == "" {
			t.Errorf("%s is incomplete", c.Name)
		}
		if (c.Deprecated == "") != (c.ReplacedBy == "") {
			t.Errorf("%s: deprecated for what?", c.Name)
		}
		if fast := c.Flags&FlagFast != 0; fast == (c.Categories&CategorySlow != 0) || fast != (c.Categories&CategoryFast != 0) {
			t.Errorf("%s is fast or slow", c.Name)
		}
		if c.Flags&FlagWrite != 0 && c.Flags&FlagReadOnly != 0 {
			t.Errorf("%s reads only, and writes", c.Name)
		}
		checkKeySpecs(t, c)
	}
	if len(ids) != 111 {
		t.Errorf("%d commands and subcommands are in the table", len(ids))
	}
}

// checkKeySpecs checks that the keys of a command are the same by any of the
// ways the table gives them.
func checkKeySpecs(t *testing.T, c *Command) {
	t.Helper()
	if (c.FirstKey != 0) != (len(c.KeySpecs) > 0) || (c.FirstKey != 0) != (c.Step != 0) {
		t.Errorf("%s: keys from %d, %d key specs, step %d", c.Name, c.FirstKey, len(c.KeySpecs), c.Step)
		return
	}
	args := make([][]byte, 9) // as a last key from the end of an even number of keys and values
	if c.Arity > 0 {
		args = args[:c.Arity]
	}
	var legacy, specified []int
	if first, last, step := c.Keys(args); step > 0 {
		for i := first; i <= last; i += step {
			legacy = append(legacy, i)
		}
	}
	for _, k := range c.KeySpecs {
		last := k.Index + k.LastKey
		if k.LastKey < 0 {
			last = len(args) + k.LastKey
		}
		for i := k.Index; i <= last; i += k.Step {
			specified = append(specified, i)
		}
	}
	if !slices.Equal(legacy, specified) {
		t.Errorf("%s: keys %v, and by key specs %v", c.Name, legacy, specified)
	}
}

func TestKeys(t *testing.T) {
	for line, want := range map[string][3]int{
		"PING":              {0, 0, 0},
		"GET k":             {1, 1, 1},
		"MGET a b c":        {1, 3, 1},
		"MSET a 1 b 2":      {1, 4, 2},
		"COPY a b REPLACE":  {1, 2, 1},
		"OBJECT ENCODING k": {2, 2, 1},
		"SET k v EX 10":     {1, 1, 1},
	} {
		args := words(line)
		c, problem := Resolve(args)
		if problem != "" {
			t.Fatal(problem)
		}
		if first, last, step := c.Keys(args); [3]int{first, last, step} != want {
			t.Errorf("%s: %d, %d, %d, want %v", line, first, last, step, want)
		}
	}
}

func TestResolve(t *testing.T) {
	for line, want := range map[string]string{
		"get k":            "get",
		"CLIENT ID":        "client|id",
		"Command":          "command",
		"command info get": "command|info",
		"get":              "ERR wrong number of arguments for 'get' command",
		"GET a b":          "ERR wrong number of arguments for 'get' command",
		"mget":             "ERR wrong number of arguments for 'mget' command",
		"CLIENT":           "ERR wrong number of arguments for 'client' command",
		"CLIENT ID 3":      "ERR wrong number of arguments for 'client|id' command",
		"client set":       "ERR unknown subcommand 'set'. Try CLIENT HELP.",
		"lpush a b":        "ERR unknown command 'lpush', with args beginning with: 'a' 'b' ",
	} {
		c, problem := Resolve(words(line))
		if c != nil && c.Name != want || c == nil && problem != want {
			t.Errorf("%s: %v, %q", line, c, problem)
		}
	}
}

func TestUnknownCommand(t *testing.T) {
	x := func(n int) string { return strings.Repeat("x", n) }
	for _, c := range []struct {
		args []string
		want string
	}{
		{[]string{"foo"}, "'foo', with args beginning with: "},
		{[]string{"Foo", "", "b c"}, "'Foo', with args beginning with: '' 'b c' "},
		{[]string{"f\r\noo\x00x", "a\nb\x00c"}, "'f  oo', with args beginning with: 'a b' "},
		{[]string{x(128)}, "'" + x(128) + "', with args beginning with: "},
		{[]string{x(129)}, "'" + x(128) + "', with args beginning with: "},
		{[]string{"f", x(124), "y"}, "'f', with args beginning with: '" + x(124) + "' 'y' "},
		{[]string{"f", x(125), "y"}, "'f', with args beginning with: '" + x(125) + "' "},
		{[]string{"f", x(300), "y"}, "'f', with args beginning with: '" + x(128) + "' "},
		{[]string{"f", x(100), x(300), "y"}, "'f', with args beginning with: '" + x(100) + "' '" + x(25) + "' "},
	} {
		args := make([][]byte, len(c.args))
		for i, a := range c.args {
			args[i] = []byte(a)
		}
		if got := UnknownCommand(args); got != "ERR unknown command "+c.want {
			t.Errorf("%q: %q", c.args, got)
		}
	}
}

func TestErrorTexts(t *testing.T) {
	for got, want := range map[string]string{
		UnknownSubcommand([][]byte{[]byte("cluster"), []byte("a\nb" + strings.Repeat("x", 200))}): "ERR unknown subcommand 'a b" + strings.Repeat("x", 125) + "'. Try CLUSTER HELP.",
		InvalidExpire("set"):               "ERR invalid expire time in 'set' command",
		UnsupportedOption([]byte("A\rB")):  "ERR Unsupported option A B",
		HelloOption([]byte("FOO")):         "ERR Syntax error in HELLO option 'FOO'",
		Moved(16383, "127.0.0.1:7403"):     "MOVED 16383 127.0.0.1:7403",
		UnknownClientType([]byte("x")):     "ERR Unknown client type 'x'",
		UnknownConfig([]byte("x\r")):       "ERR Unknown option or number of arguments for CONFIG SET - 'x '",
		ConfigFailed("port", "immutable."): "ERR CONFIG SET failed (possibly related to argument 'port') - immutable.",
	} {
		if got != want {
			t.Errorf("%q, want %q", got, want)
		}
	}
}

// Whatever is described is one whole reply, of either protocol.
func TestDescriptionsAreReplies(t *testing.T) {
	for _, proto := range []int{RESP2, RESP3} {
		for _, c := range every() {
			for _, b := range [][]byte{
				AppendCommandInfo(nil, proto, c),
				AppendCommandDocs(AppendMap(nil, proto, 1), proto, c),
				AppendHelp(nil, c),
			} {
				r := resptest.NewReader(bytes.NewReader(b))
				if v, err := r.Read(); err != nil || len(r.Raw()) != len(b) {
					t.Errorf("%s, RESP%d: %v, %v\n%q", c.Name, proto, v, err, b)
				}
			}
		}
	}
}

func TestHelp(t *testing.T) {
	v, err := resptest.NewReader(bytes.NewReader(AppendHelp(nil, Lookup([]byte("client"))))).Read()
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{
		"+CLIENT <subcommand> [<arg> [value] [opt] ...]. Subcommands are:",
		"+ID",
		"+SETNAME <connection-name>",
		"+NO-EVICT <ON|OFF>",
		"+SETINFO <LIB-NAME <libname>|LIB-VER <libver>>",
		"+LIST [TYPE <NORMAL|MASTER|REPLICA|PUBSUB>] [ID <client-id> [<client-id> ...]]",
		"+    Lists the subcommands.",
	} {
		if !strings.Contains(v.String()+" ", want+" ") && !strings.Contains(v.String(), want+"]") {
			t.Errorf("%q is missing in %v", want, v)
		}
	}
}

func BenchmarkLookup(b *testing.B) {
	name := []byte("IncrByFloat")
	for b.Loop() {
		if Lookup(name) == nil {
			b.Fatal("not found")
		}
	}
}
