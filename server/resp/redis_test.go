package resp

import (
	"bytes"
	"io"
	"math/rand/v2"
	"net"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/proa-kv/proa/internal/resptest"
)

// These tests hold the package against a real Redis. They are skipped where
// none is installed; where it is not of version 7.0 only what all versions have
// in common is compared.

func startRedis(t *testing.T) (socket string, c *resptest.Conn) {
	t.Helper()
	socket = resptest.StartRedis(t)
	c, err := resptest.Dial("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return socket, c
}

func do(t *testing.T, c *resptest.Conn, args ...string) resptest.Value {
	t.Helper()
	v, err := c.Do(args...)
	if err != nil {
		t.Fatalf("%q: %v", args, err)
	}
	return v
}

func needVersion70(t *testing.T, c *resptest.Conn) {
	t.Helper()
	if info := do(t, c, "INFO", "server").Text; !strings.Contains(info, "redis_version:7.0.") {
		t.Skip("the table is that of Redis 7.0, and this is another version")
	}
}

// newer are not in Redis 7.0.
var newer = map[string]bool{"client|setinfo": true, "client|no-touch": true}

func TestCommandInfoIsThatOfRedis(t *testing.T) {
	_, c := startRedis(t)
	needVersion70(t, c)
	for _, proto := range []int{RESP2, RESP3} {
		do(t, c, "HELLO", string(rune('0'+proto)))
		do(t, c, "COMMAND", "INFO", "no-such-command")
		// Only the unknown command is asked for: one element, a null.
		if got := AppendCommandInfo(AppendArray(nil, 1), proto, nil); !bytes.Equal(got, c.Raw()) {
			t.Errorf("RESP%d, unknown command: %q, Redis: %q", proto, got, c.Raw())
		}
		for _, command := range every() {
			if newer[command.Name] {
				continue
			}
			v := do(t, c, "COMMAND", "INFO", command.Name)
			ours := AppendCommandInfo(AppendArray(nil, 1), proto, command)
			if command.Subcommands == nil && !noted(command) {
				if !bytes.Equal(ours, c.Raw()) {
					t.Errorf("RESP%d, %s:\n%q\nRedis:\n%q", proto, command.Name, ours, c.Raw())
				}
				continue
			}
			got, err := resptest.NewReader(bytes.NewReader(ours)).Read()
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(common(v), common(got)); diff != "" {
				t.Errorf("RESP%d, %s (-Redis +ours): %s", proto, command.Name, diff)
			}
		}
	}
}

// noted says whether there are notes on keys, which are in our own words.
func noted(c *Command) bool {
	return slices.ContainsFunc(c.KeySpecs, func(k KeySpec) bool { return k.Notes != "" })
}

// common leaves of a reply of COMMAND INFO about one command what does not
// depend on notes, and not on subcommands: Redis has more of them, in no order.
func common(info resptest.Value) string {
	fields := info.Elements[0].Elements
	fields[9].Elements = nil
	for _, spec := range fields[8].Elements {
		if spec.Elements[0].Text == "notes" {
			spec.Elements[1].Text = ""
		}
	}
	return info.String()
}

func TestCommandDocsAreThoseOfRedis(t *testing.T) {
	_, c := startRedis(t)
	needVersion70(t, c)
	for _, proto := range []int{RESP2, RESP3} {
		do(t, c, "HELLO", string(rune('0'+proto)))
		for _, command := range every() {
			if newer[command.Name] {
				continue
			}
			v := do(t, c, "COMMAND", "DOCS", command.Name)
			got, err := resptest.NewReader(bytes.NewReader(
				AppendCommandDocs(AppendMap(nil, proto, 1), proto, command))).Read()
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(facts(v), facts(got)); diff != "" {
				t.Errorf("RESP%d, %s (-Redis +ours): %s", proto, command.Name, diff)
			}
		}
	}
}

// facts leaves of a reply of COMMAND DOCS about one command what is no prose,
// and is not about subcommands.
func facts(docs resptest.Value) string {
	entries := docs.Elements[1]
	kept := resptest.Value{Kind: entries.Kind}
	for i := 0; i+1 < len(entries.Elements); i += 2 {
		switch entries.Elements[i].Text {
		case "summary", "complexity", "history", "replaced_by", "subcommands":
		default:
			kept.Elements = append(kept.Elements, entries.Elements[i:i+2]...)
		}
	}
	return docs.Elements[0].String() + " " + kept.String()
}

// answer is a server of two commands, PING and ECHO, made of this package.
func answer(stream []byte) (out []byte) {
	// Redis of this version lets a request announce more arguments.
	p := Parser{MultibulkMax: 1<<31 - 1, BulkBytesMax: 512 << 20, RequestBytesMax: 1 << 40}
	for {
		taken, _, err := p.Next(stream)
		switch {
		case err != nil:
			return AppendError(out, "ERR "+err.Error())
		case taken == 0:
			return out
		case len(p.Args) > 0:
			c, problem := Resolve(p.Args)
			switch {
			case problem != "":
				out = AppendError(out, problem)
			case c.Name == "ping" && len(p.Args) == 1:
				out = AppendSimple(out, "PONG")
			default:
				out = AppendBulk(out, p.Args[1])
			}
		}
		stream = stream[taken:]
	}
}

// abuses are streams whose answers depend on the parser alone.
var abuses = []string{
	"PING\r\n", "PING\n", "\r\n\n  \r\nPING\r\n", "  PING  \t\r\n", "pInG\r\n", "ECHO a\rb\r\n", "PING\vx\n",
	"*1\r\n$4\r\nPING\r\n", "*0\r\nPING\n", "*-1\r\nPING\n", "*-100\r\nPING\n", "*2\r\n$4\r\nECHO\r\n$0\r\n\r\nPING\n",
	"*1\rx$4\ryPINGzzPING\n", "*2\r\n$4\r\nECHO\r\n$2\r\nabxxPING\n",
	"*2\r\n$4\r\nECHO\r\n$2\r\nabcdPING\n", "*2\r\n$4\r\nECHO\r\n$1\r\nabcd\r\n*1\r\n$4\r\nPING\r\n",
	"*\r\n", "*a\r\n", "*+1\r\n", "*01\r\n", "*-0\r\n", "* 1\r\n", "*1 \r\n", "*1\n\r\n", "*2147483648\r\n",
	"*2147483647\r\n", "*99999999999999999999\r\n", "*-9223372036854775808\r\nPING\n", "*-9223372036854775809\r\n",
	"*1\r\n$\r\n", "*1\r\n$-1\r\n", "*1\r\n$+4\r\nPING\r\n", "*1\r\n$04\r\nPING\r\n", "*1\r\n$4a\r\nPING\r\n",
	"*1\r\n$536870913\r\n", "*1\r\n$536870912\r\n", "*1\r\n$9223372036854775807\r\n", "*3\r\n$3\r\nSET\r\n$1\r\nx\r\nfooz\r\n",
	"*1\r\nPING\r\n", "*1\r\n\r\r\n", "*1\r\n\n\r\n", "*1\r\n*1\r\n", "*1\r\n:4\r\n", "*1\r\n\xff\r\n", "$4\r\nPING\r\n", "+OK\r\n", "*1\r\nx",
	"PING\r\n*1\r\n$4\r\nPING\r\n*1\r\nfoo\r\nPING\r\n", "PING 'x\r\nPING\r\n",
	`ECHO "a b"` + "\n", `ECHO 'a b'` + "\n", `ECHO "\x41\xZZ\n\r\t\b\a\q\\\""` + "\n", `ECHO '\'\n\\ '` + "\n", `ECHO '\\'` + "\n",
	`ECHO "a"b` + "\n", `ECHO 'a'b` + "\n", `ECHO a"b c"` + "\n", `ECHO a'b c'` + "\n", `ECHO "\x00\r\n"` + "\n", `ECHO "a` + "\n",
	`ECHO "a"` + "\v\n", `ECHO a\ b` + "\n", `ECHO ""` + "\n", `"PING"` + "\n", `ECHO "\x4"` + "\n", `ECHO "a\` + "\n", "ECHO \"a\"\r\n",
	"FOO\r\n", "FOO a b c\r\n", "FOO \"a\\r\\nb\" \"c\\x00d\"\r\n", "CLIENT FOO\r\n", "client foo bar\r\n", "CLIENT\r\n", "Client id x\r\n",
	"ECHO\r\n", "ECHO a b\r\n", "GET\r\n", "\"\"\r\n", "config get\r\n", "OBJECT ENCODING\r\n",
	"FOO " + strings.Repeat("x", 124) + " y\r\n", "FOO " + strings.Repeat("x", 125) + " y\r\n", "FOO " + strings.Repeat("x", 126) + " y z\r\n",
	"FOO " + strings.Repeat("x ", 100) + "\r\n", strings.Repeat("F", 200) + "\r\n", "CLIENT " + strings.Repeat("x", 200) + "\r\n",
	strings.Repeat("x", 100_000), "*" + strings.Repeat("1", 100_000), "*1\r\n$" + strings.Repeat("1", 100_000), "*1\r\nx" + strings.Repeat("1", 100_000),
}

func TestAbusesAreAnsweredAsByRedis(t *testing.T) {
	socket, c := startRedis(t)
	needVersion70(t, c)
	for _, stream := range abuses {
		conn, err := net.Dial("unix", socket)
		if err != nil {
			t.Fatal(err)
		}
		// Redis may close before it has read everything.
		go func() {
			io.WriteString(conn, stream)
			conn.(*net.UnixConn).CloseWrite()
		}()
		// And then what it says may be followed by a reset.
		want, _ := io.ReadAll(conn)
		conn.Close()
		if got := answer([]byte(stream)); !bytes.Equal(got, want) {
			t.Errorf("%.60q: %q, Redis: %q", stream, got, want)
		}
	}
}

func TestMatchIsThatOfRedis(t *testing.T) {
	_, c := startRedis(t)
	needVersion70(t, c)
	rnd := rand.New(rand.NewPCG(1, 2))
	text := func(alphabet string, n int) string {
		b := make([]byte, n)
		for i := range b {
			b[i] = alphabet[rnd.IntN(len(alphabet))]
		}
		return string(b)
	}
	keys := map[string]bool{"": true}
	for range 300 {
		keys[text(`aabbcAB-]^[\*?_`, 1+rnd.IntN(5))] = true
	}
	for key := range keys {
		do(t, c, "SET", key, "")
	}
	for range 2000 {
		pattern := text(`aabbcAB--]]^[[\**?_`, 1+rnd.IntN(9))
		if pattern == "*" {
			continue // which KEYS does not match at all
		}
		matched := map[string]bool{}
		for _, v := range do(t, c, "KEYS", pattern).Elements {
			matched[v.Text] = true
		}
		for key := range keys {
			if got := Match([]byte(pattern), []byte(key), false); got != matched[key] {
				t.Fatalf("Match(%q, %q) = %v, Redis: %v", pattern, key, got, matched[key])
			}
		}
	}
}

func TestErrorTextsAreThoseOfRedis(t *testing.T) {
	_, c := startRedis(t)
	needVersion70(t, c)
	do(t, c, "SET", "k", "10")
	do(t, c, "SET", "min", "-9223372036854775808")
	for line, want := range map[string]string{
		"SET k v FOO":                   ErrSyntax,
		"SCAN 0 COUNT 0":                ErrSyntax,
		"INCRBY k x":                    ErrNotInteger,
		"SELECT x":                      ErrNotInteger,
		"INCRBYFLOAT k x":               ErrNotFloat,
		"INCRBY k 9223372036854775807":  ErrOverflow,
		"DECRBY k -9223372036854775808": ErrDecrementOverflow,
		"INCRBYFLOAT k inf":             ErrNotFinite,
		"RENAME none b":                 ErrNoSuchKey,
		"COPY k k":                      ErrSameObject,
		"SETRANGE k 536870912 x":        ErrStringTooLong,
		"SETRANGE k -1 x":               ErrOffset,
		"SCAN x":                        ErrInvalidCursor,
		"SELECT 16":                     ErrDBIndex,
		"WAIT 0 x":                      ErrTimeoutNotInteger,
		"WAIT 0 -1":                     ErrTimeoutNegative,
		"EXPIRE k 10 NX XX":             ErrExpireNX,
		"EXPIRE k 10 GT LT":             ErrExpireGTLT,
		"EXPIRE k 10 FOO":               UnsupportedOption([]byte("FOO")),
		"EXPIRE k 9223372036854775807":  InvalidExpire("expire"),
		"SET k v EX 0":                  InvalidExpire("set"),
		"EXEC":                          ErrExecWithoutMulti,
		"DISCARD":                       ErrDiscardWithoutMulti,
		"HELLO 4":                       ErrNoProto,
		"HELLO x":                       ErrProtoNumber,
		"HELLO 3 FOO":                   HelloOption([]byte("FOO")),
		"AUTH x":                        ErrNoPassword,
		"AUTH x y":                      ErrWrongPass,
		"CLIENT KILL 1.2.3.4:5":         ErrNoSuchClient,
		"CLIENT KILL ID x":              ErrKillID,
		"CLIENT LIST ID x":              ErrClientID,
		"CLIENT LIST TYPE x":            UnknownClientType([]byte("x")),
		"CLUSTER SLOTS":                 ErrClusterDisabled,
		"COMMAND GETKEYS foo a":         ErrCommandNotFound,
		"COMMAND GETKEYS ECHO x":        ErrCommandNoKeys,
		"COMMAND GETKEYS GET a b":       ErrCommandArguments,
		"CONFIG SET foo bar":            UnknownConfig([]byte("foo")),
		"CONFIG SET databases 3":        ConfigFailed("databases", "can't set immutable config"),
		"CLIENT SETNAME a\nb":           ErrClientName,
	} {
		if v := do(t, c, strings.Split(line, " ")...); v.Kind != '-' || v.Text != want {
			t.Errorf("%s: %v, want %q", line, v, want)
		}
	}
	for _, step := range []struct{ line, want string }{
		{"MULTI", ""}, {"MULTI", ErrNestedMulti}, {"WATCH k", ErrWatchInsideMulti}, {"FOO", ""}, {"EXEC", ErrExecAbort},
		{"CONFIG SET requirepass x", ""}, {"RESET", ""}, {"PING", ErrNoAuth}, {"HELLO", ErrNoAuthHello},
	} {
		if v := do(t, c, strings.Fields(step.line)...); step.want != "" && v.Text != step.want {
			t.Errorf("%s: %v, want %q", step.line, v, step.want)
		}
	}
}

// Before authentication Redis takes less.
func TestLimitsBeforeAuthenticationAreThoseOfRedis(t *testing.T) {
	socket := resptest.StartRedis(t, "--requirepass", "x")
	for _, stream := range []string{"*10\r\n", "*11\r\n", "*1\r\n$16384\r\n", "*1\r\n$16385\r\n"} {
		conn, err := net.Dial("unix", socket)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := io.WriteString(conn, stream); err != nil {
			t.Fatal(err)
		}
		conn.(*net.UnixConn).CloseWrite()
		want, _ := io.ReadAll(conn)
		conn.Close()
		p := Parser{Unauthenticated: true}
		var got []byte
		if _, _, err := p.Next([]byte(stream)); err != nil {
			got = AppendError(nil, "ERR "+err.Error())
		}
		if !bytes.Equal(got, want) {
			t.Errorf("%q: %q, Redis: %q", stream, got, want)
		}
	}
}
