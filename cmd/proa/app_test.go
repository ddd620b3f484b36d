package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"runtime"
	"runtime/debug"
	"strings"
	"testing"
	"time"
	"unicode"

	"github.com/google/go-cmp/cmp"

	"github.com/proa-kv/proa/bench"
	"github.com/proa-kv/proa/client"
	"github.com/proa-kv/proa/command"
	"github.com/proa-kv/proa/config"
	"github.com/proa-kv/proa/internal/render"
	"github.com/proa-kv/proa/protocol"
)

func TestExitStatus(t *testing.T) {
	failed := func(cause error, outcome client.Outcome) error {
		return fmt.Errorf("while: %w", &client.Error{Op: "PUT", Err: cause, Outcome: outcome})
	}
	for _, tt := range []struct {
		err  error
		want int
	}{
		{nil, 0},
		{failed(client.ErrNotFound, client.Done), 1},
		{failed(client.ErrConditionFailed, client.NotDone), 1},
		{failed(client.ErrNotInteger, client.NotDone), 1},
		{usagef("what"), 2},
		{failed(client.ErrTooLarge, client.NotDone), 2},
		{failed(client.ErrCrossShard, client.NotDone), 2},
		{failed(client.ErrUnavailable, client.NotDone), 3},
		{failed(client.ErrBusy, client.NotDone), 3},
		{failed(client.ErrDeadlineExceeded, client.NotDone), 3},
		{failed(client.ErrDeadlineExceeded, client.Unknown), 4},
		{failed(client.ErrConnectionLost, client.Unknown), 4},
		{failed(context.Canceled, client.Unknown), 4},
		{failed(client.ErrProtocol, client.NotDone), 3},
		{failed(client.ErrProtocol, client.Done), 4},
		{errors.New("something"), 3},
		{&statusError{1, errSilent}, 1},
	} {
		if got := exitStatus(tt.err); got != tt.want {
			t.Errorf("exitStatus(%v) = %d, want %d", tt.err, got, tt.want)
		}
	}
}

// An error has the name of this program before it, and of nothing that it has come
// through.
func TestOnePrefix(t *testing.T) {
	lost := &client.Error{Op: "PUT", Err: client.ErrConnectionLost, Outcome: client.Unknown}
	for _, tt := range []struct {
		err  error
		want string
	}{
		{&client.Error{Op: "GET", Err: client.ErrNotFound}, "proa: key not found"},
		{&client.Error{Op: "HELLO", Err: client.ErrHandshake, Message: "another port"}, "proa: handshake refused: another port"},
		{fmt.Errorf("f.jsonl, line 3: %w", &client.Error{Op: "PUT", Err: client.ErrBusy}), "proa: f.jsonl, line 3: too busy"},
		{fmt.Errorf("%w: 7 connections", bench.ErrConfig), "proa: invalid options: 7 connections"},
		{errors.New("client: raftlog: the file is damaged"), "proa: the file is damaged"},
		{errors.New("go on with: proa get k"), "proa: go on with: proa get k"},
		{&client.Error{Op: "PUT", Status: protocol.StatusNoQuorum, Err: client.ErrNoQuorum, RetryAfter: 200 * time.Millisecond}, "proa: the shard has no quorum\nA majority of the replicas does not answer; to see which nodes are down: proa status"},
		{&client.Error{Op: "ADMIN", Status: protocol.StatusNoQuorum, Err: client.ErrNoQuorum, Message: client.ErrNoQuorum.Error() + ": meta has no leader"}, "proa: the shard has no quorum: meta has no leader\nA majority of the replicas does not answer; to see which nodes are down: proa status"},
		{&client.Error{Op: "ADMIN", Status: protocol.StatusNoQuorum, Err: client.ErrNoQuorum, Message: "meta has no leader; see \"proa status\""}, "proa: the shard has no quorum: meta has no leader; see \"proa status\""},
		{lost, "proa: outcome unknown: connection lost\nThe write may or may not have taken effect, now or later: read the key before you repeat the command."},
		{&client.Error{Op: "ADMIN", Err: client.ErrConnectionLost, Outcome: client.Unknown}, "proa: outcome unknown: connection lost\nThe change may or may not have begun, and may go on: see proa status before you repeat the command."},
		{&statusError{exitUnknown, errors.New("interrupted; the change goes on")}, "proa: interrupted; the change goes on"},
		{&client.Error{Op: "PUT", Err: client.ErrProtocol, Outcome: client.Done}, "proa: protocol error\nThe server says that the write was carried out, in a reply that this version cannot read: read the key before you repeat the command."},
		{&client.Error{Op: "ADMIN", Status: protocol.StatusRefused, Err: client.ErrRefused, Message: "there is no node 9"}, "proa: there is no node 9"},
		{errors.Join(errors.New("one"), errors.New("two")), "proa: one\ntwo"},
	} {
		if got := describe(tt.err, &app{link: &connection{}}); got != tt.want {
			t.Errorf("%v: %q, want %q", tt.err, got, tt.want)
		}
	}
}

// Whatever a server or an argument says, it is shown as printable text on a line
// that this program began.
func TestForeignTextIsPrintable(t *testing.T) {
	const foreign = "\x1b]0;title\a\u009b31m\r\nproa: all is well\u202e\xff 漢 C:\\dir"
	const shown = `\x1b]0;title\x07\xc2\x9b31m\r\nproa: all is well\xe2\x80\xae\xff 漢 C:\dir`
	said := func(op string, cause error) *client.Error {
		return &client.Error{Op: op, Err: cause, Message: foreign}
	}
	refused := said("", client.ErrHandshake)
	wrong := config.Errors{{Key: "b", Reason: foreign}, {Key: "d", Reason: "no"}}
	for _, tt := range []struct {
		err  error
		want string
	}{
		{said("GET", client.ErrBadRequest), "proa: " + client.ErrBadRequest.Error() + ": " + shown},
		{&client.Error{Op: "ADMIN", Status: protocol.StatusRefused, Err: client.ErrRefused, Message: foreign}, "proa: " + shown},
		{fmt.Errorf("shard %s: %w", foreign, said("GET", client.ErrBusy)), "proa: shard " + shown + ": too busy: " + shown},
		{errors.Join(said("GET", client.ErrBusy), errors.New(foreign)), "proa: too busy: " + shown + "\n" + shown},
		{wrong, "proa: configuration has 2 errors:\n  default: b: " + shown + "\n  default: d: no"},
		{usagef("--output %s: choose", foreign), "proa: --output " + shown + ": choose\nSee: proa --help"},
		{
			&client.Error{Op: "GET", Err: &client.UnavailableError{Endpoints: []client.EndpointError{{Endpoint: "a" + foreign, Err: refused}}}},
			"proa: no server could be reached. Tried:\n  a" + shown + ": handshake refused: " + shown +
				"\nName the client port of a Proa server: proa -e host:7400 …",
		},
	} {
		if diff := cmp.Diff(tt.want, describe(tt.err, &app{link: &connection{}})); diff != "" {
			t.Error(diff)
		}
	}

	var out, errs strings.Builder
	a := &app{Output: render.Output{Out: &out, Err: &errs, Form: render.AsTable}}
	a.Note("warning: %s", "\x1b[2J")
	a.Line().Show("\u009b2J")
	a.showProblem(&problem{Message: "m", Hint: "go on:\n  x \x1b[2J"})
	status := `{"a\u001b":1,"l":["` + "\u009b" + `"],"o":{"b\u009b":"\u001b"},"t\u001b":[{"c\u001b":"d\u001b"}]}`
	if err := a.Object(json.RawMessage(status)); err != nil {
		t.Fatal(err)
	}
	if err := showDone(a, &command.Done{Message: foreign}); err != nil {
		t.Fatal(err)
	}
	for _, text := range []string{out.String(), errs.String()} {
		if strings.ContainsFunc(text, func(r rune) bool { return r != '\n' && !unicode.IsPrint(r) }) {
			t.Errorf("%q", text)
		}
	}
	if want := "warning: \\x1b[2J\n\\xc2\\x9b2J\nproa: m\ngo on:\n  x \\x1b[2J\n"; errs.String() != want {
		t.Errorf("%q", errs.String())
	}
}

func TestBuild(t *testing.T) {
	vcs := func(modified string) []debug.BuildSetting {
		return []debug.BuildSetting{{Key: "vcs.revision", Value: "0123456789abcdef0123"}, {Key: "vcs.modified", Value: modified}}
	}
	platform := ", " + runtime.Version() + ", " + runtime.GOOS + "/" + runtime.GOARCH
	for _, tt := range []struct {
		version    string
		settings   []debug.BuildSetting
		text, line string
	}{
		{"", nil, "devel", "devel"},
		{"(devel)", vcs("true"), "devel-0123456789ab+changes", "devel, revision 0123456789ab with changes"},
		{"(devel)", vcs("false"), "devel-0123456789ab", "devel, revision 0123456789ab"},
		{"v1.2.3", vcs("false"), "v1.2.3", "v1.2.3, revision 0123456789ab"},
	} {
		b := buildOf(&debug.BuildInfo{Main: debug.Module{Version: tt.version}, Settings: tt.settings})
		if b.text() != tt.text || b.line() != tt.line+platform {
			t.Errorf("%+v: %q, %q", tt, b.text(), b.line())
		}
	}
}

// Every error status of the protocol ends in an exit status that fits its
// outcome.
func TestExitStatusFollowsOutcome(t *testing.T) {
	for s := protocol.Status(0); s.Known(); s++ {
		if s.Outcome() != protocol.Unknown {
			continue
		}
		if got := exitStatus(&client.Error{Status: s, Outcome: client.Unknown, Err: errors.New(s.Text())}); got != exitUnknown {
			t.Errorf("%v: exit status %d", s, got)
		}
	}
}

// A word that begins as a negative number is no flag, but the value of one that
// takes a value, or an argument.
func TestNegativeNumbers(t *testing.T) {
	for in, want := range map[string]string{
		"incr k -5":                  "incr -- k -5",
		"-o json incr k -5":          "incr -o json -- k -5",
		"incr k -- -5":               "incr k -- -5",
		"incr -5":                    "incr -- -5",
		"incr k -3 -4":               "incr -- k -3 -4",
		"incr k --by -5":             "incr k --by -5",
		"incr --by -5 -7 -o raw":     "incr --by -5 -o raw -- -7",
		"incr k --by=-5":             "incr k --by=-5",
		"put incr -5":                "put -- incr -5",
		"put k -.5 --ttl 5s":         "put --ttl 5s -- k -.5",
		"put k -5abc -x":             "put -x -- k -5abc",
		"put -- -k -v":               "put -- -k -v",
		"put k -v":                   "put k -v",
		"expire k -5s":               "expire -- k -5s",
		"scan -n 5 incr":             "scan -n 5 incr",
		"scan -n -5":                 "scan -n -5",
		"scan -kn -5 -3":             "scan -kn -5 -- -3",
		"scan -rk -n5 -3":            "scan -rk -n5 -- -3",
		"member drain -3 --undo":     "member drain --undo -- -3",
		"put --if-version 3 k -1 --": "put --if-version 3 -- k -1",
		"nonsense -5":                "nonsense -5",
		"-5":                         "-5",
	} {
		if got := strings.Join(negativeNumbers(newRoot(&app{}), strings.Fields(in)), " "); got != want {
			t.Errorf("%s becomes %s, want %s", in, got, want)
		}
	}
}

func TestRoundTrips(t *testing.T) {
	s := roundTrips{sent: 5}
	for _, ms := range []int{1, 2, 3, 4} {
		s.times = append(s.times, time.Duration(ms)*time.Millisecond)
	}
	got := s.figures()
	want := map[string]time.Duration{
		"min": time.Millisecond, "max": 4 * time.Millisecond, "mean": 2500 * time.Microsecond,
		"p50": 2 * time.Millisecond, "p99": 4 * time.Millisecond, "stddev": 1118033,
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

func TestOpenWord(t *testing.T) {
	for _, tt := range []struct {
		line  string
		words []string
		word  string
	}{
		{"", nil, ""},
		{"ge", nil, "ge"},
		{"get ", []string{"get"}, ""},
		{"get us", []string{"get"}, "us"},
		{`get two\ wo`, []string{"get"}, `two\ wo`},
		{`get a\`, []string{"get"}, `a\`},
		{`put "a b" c`, []string{"put", "a b"}, "c"},
		{`put "a b`, nil, ""},
	} {
		words, word := openWord(tt.line)
		if !cmp.Equal(words, tt.words) || word != tt.word {
			t.Errorf("openWord(%q) = %q, %q", tt.line, words, word)
		}
	}
}

func TestShellCompletion(t *testing.T) {
	s := &shell{app: &app{shell: false, link: &connection{}, timeout: time.Millisecond, Output: render.Output{Form: render.AsTable}}}
	for line, want := range map[string][]string{
		"pi":             {"ng "},
		"ou":             {"tput "},
		"output j":       {"son ", "sonl "},
		"put k v --if-a": {"bsent "},
		"help sca":       {"n "},
		"nonsense ":      nil,
		"ser":            nil, // no command of a shell
	} {
		var got []string
		candidates, _ := s.Do([]rune(line), len(line))
		for _, c := range candidates {
			got = append(got, string(c))
		}
		if !cmp.Equal(got, want) {
			t.Errorf("%q: %q, want %q", line, got, want)
		}
	}
}

func TestLineReader(t *testing.T) {
	long := strings.Repeat("x", 1<<20)
	l := newLineReader(strings.NewReader("a\n\n" + long + "\nlast"))
	var ends []int64
	for _, want := range []string{"a", "", long, "last"} {
		got, err := l.next()
		if err != nil || string(got) != want {
			t.Fatalf("next() = %.10q, %v, want %.10q", got, err, want)
		}
		ends = append(ends, l.offset)
	}
	if diff := cmp.Diff([]int64{2, 3, 3 + 1<<20 + 1, 3 + 1<<20 + 5}, ends); diff != "" {
		t.Error(diff)
	}
	if _, err := l.next(); err == nil {
		t.Error("a line behind the end")
	}
}

func TestParseOperation(t *testing.T) {
	for _, line := range []string{"", "  ", "# put k v"} {
		if _, ok, err := parseOperation(line, true); ok || err != nil {
			t.Errorf("%q: %v, %v", line, ok, err)
		}
	}
	for _, line := range []string{
		"put k v --ttl 1h --if-absent", "PUT k v", "del k --if-version 3", "incr k", "incr k -5", "incr k --by 3", "expire k 1m", "persist k",
	} {
		if _, ok, err := parseOperation(line, false); !ok || err != nil {
			t.Errorf("%q: %v, %v", line, ok, err)
		}
	}
	for _, line := range []string{
		"put k", "put k v w", "put k v --nonsense", "del", "incr k x", "expire k", "expire k soon", "get k", "scan", "put 'k",
		"put k v --if-absent --if-version 3",
	} {
		if _, ok, err := parseOperation(line, false); ok || err == nil {
			t.Errorf("%q is accepted", line)
		}
	}
}
