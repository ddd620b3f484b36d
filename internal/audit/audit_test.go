package audit

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/proa-kv/proa/command"
	"github.com/proa-kv/proa/internal/leaktest"
)

func TestMain(m *testing.M) { leaktest.Main(m) }

// open opens an audit log of node 1.
func open(t testing.TB, c Config) *Log {
	t.Helper()
	c.Node = 1
	l, err := Open(c)
	if err != nil {
		t.Fatal(err)
	}
	return l
}

// closed closes a log.
func closed(t testing.TB, l *Log) {
	t.Helper()
	if err := l.Close(); err != nil {
		t.Error(err)
	}
}

// events are those in an audit log.
func events(t testing.TB, b []byte) (all []Event) {
	t.Helper()
	for line := range bytes.Lines(b) {
		var e Event
		if err := json.Unmarshal(line, &e); err != nil {
			t.Fatalf("%q: %v", line, err)
		}
		all = append(all, e)
	}
	return all
}

// disk is a writer that waits while it is stuck, and fails while it is full.
type disk struct {
	mu    sync.Mutex
	b     []byte
	stuck chan struct{} // nil: it is not; otherwise it is until this is closed
	full  bool
	room  int // while it is full, for each Write
}

var errFull = errors.New("no space left")

func (d *disk) Write(p []byte) (int, error) {
	d.mu.Lock()
	stuck := d.stuck
	d.mu.Unlock()
	if stuck != nil {
		<-stuck
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if !d.full || len(p) <= d.room {
		d.b = append(d.b, p...)
		return len(p), nil
	}
	d.b = append(d.b, p[:d.room]...)
	return d.room, errFull
}

// set changes what d is.
func (d *disk) set(change func()) {
	d.mu.Lock()
	defer d.mu.Unlock()
	change()
}

// Bytes are those written so far.
func (d *disk) Bytes() []byte {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.b
}

func (d *disk) String() string { return string(d.Bytes()) }

func TestLines(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var b bytes.Buffer
		l := open(t, Config{Out: &b})
		l.Log(Event{Kind: Start})
		l.Log(Event{Kind: Admin, User: "root", Remote: "10.0.0.1:5", Door: "native", Operation: command.AdminMemberRemove,
			Arguments: Arguments(command.AdminMemberRemove, []byte(`{"node":2}`)), Outcome: OK})
		time.Sleep(1500 * time.Microsecond)
		l.Log(Event{Kind: Denied, User: "svc", Remote: "[::1]:7", Door: "redis", Operation: "GET", Key: []byte("k"), Outcome: Refused, Reason: "may not read <k> & more"})
		l.Log(Event{Kind: Login, User: "a\nb\xff\x7f\u009b\u202e\U000e0001é", Outcome: Refused, Reason: strings.Repeat("r", textBytesMax+1)})
		l.Log(Event{Kind: Login, User: strings.Repeat("é", 5<<10), Outcome: Refused})
		l.Log(Event{Kind: Stop})
		closed(t, l)
		const first, second = `{"time":"2000-01-01T00:00:00.000000Z","node":1,`, `{"time":"2000-01-01T00:00:00.001500Z","node":1,`
		want := first + `"kind":"start"}
` + first + `"kind":"admin","user":"root","remote":"10.0.0.1:5","door":"native","operation":"member.remove","arguments":{"node":2},"outcome":"ok"}
` + second + `"kind":"denied","user":"svc","remote":"[::1]:7","door":"redis","operation":"GET","outcome":"refused","reason":"may not read <k> & more"}
` + second + `"kind":"login","user":"a\nb\ufffd\u007f\u009b\u202e\udb40\udc01é","outcome":"refused","reason":"` + strings.Repeat("r", textBytesMax) + `…"}
` + second + `"kind":"login","user":"` + strings.Repeat("é", 32) + `…","outcome":"refused"}
` + second + `"kind":"stop"}
`
		if b.String() != want {
			t.Errorf("%s\nwant\n%s", &b, want)
		}
		if l.Written() != 6 || l.Suppressed() != 0 || l.Failed() != 0 {
			t.Errorf("%d written, %d suppressed, %d failed", l.Written(), l.Suppressed(), l.Failed())
		}
	})
}

// A clock of its own tells the time, in UTC, wherever the node is.
func TestClock(t *testing.T) {
	var b bytes.Buffer
	l := open(t, Config{Out: &b, Clock: func() time.Time { return time.Date(2026, 1, 2, 0, 0, 0, 999_999_999, time.FixedZone("", 3600)) }})
	l.Log(Event{Kind: Start})
	closed(t, l)
	if want := `{"time":"2026-01-01T23:00:00.999999Z","node":1,"kind":"start"}` + "\n"; b.String() != want {
		t.Errorf("%s\nwant\n%s", &b, want)
	}
}

// Keys are written only where that is asked for, copied, and cut.
func TestKeys(t *testing.T) {
	for _, keys := range []bool{false, true} {
		var b bytes.Buffer
		l := open(t, Config{Out: &b, Keys: keys})
		key := bytes.Repeat([]byte{0xff}, keyBytesMax+1)
		l.Log(Event{Kind: Denied, Key: key})
		clear(key)
		closed(t, l)
		var want []byte
		if keys {
			want = bytes.Repeat([]byte{0xff}, keyBytesMax)
		}
		if all := events(t, b.Bytes()); len(all) != 1 || !bytes.Equal(all[0].Key, want) {
			t.Errorf("keys %v: %s", keys, &b)
		}
	}
}

// clip cuts no character in two, and nothing of what is short enough.
func TestClip(t *testing.T) {
	for _, x := range []struct{ s, want string }{
		{"", ""}, {"1234", "1234"}, {"12345", "1234…"}, {"123é", "123…"}, {"12é4", "12é…"}, {"é€", "é…"}, {"\x80\x80\x80\x80\x80", "…"}, {"😀", "😀"}, {"1😀", "1…"},
	} {
		if got := clip(x.s, 4); got != x.want {
			t.Errorf("%q: %q, want %q", x.s, got, x.want)
		}
	}
}

// A nil log takes everything, and one that is closed counts what still comes.
func TestNilAndClosed(t *testing.T) {
	var none *Log
	none.Log(Event{Kind: Admin})
	if err := errors.Join(none.LogWait(t.Context(), Event{}), none.Reopen(), none.Close()); err != nil || none.Written()+none.Suppressed()+none.Failed() != 0 {
		t.Error(err)
	}
	var b bytes.Buffer
	l := open(t, Config{Out: &b})
	closed(t, l)
	closed(t, l)
	l.Log(Event{Kind: Admin})
	l.Log(Event{Kind: Denied})
	for range othersMax + 1 { // each gives its place back
		if err := l.LogWait(t.Context(), Event{Kind: Admin}); err != ErrClosed {
			t.Fatal(err)
		}
	}
	if err := l.Reopen(); err != ErrClosed || b.Len() != 0 || l.Suppressed() != 2+othersMax+1 {
		t.Errorf("%v, %q, %d suppressed", err, &b, l.Suppressed())
	}
	for _, c := range []Config{{}, {Path: "x", Out: &b}} {
		if _, err := Open(c); err == nil {
			t.Errorf("%v is accepted", c)
		}
	}
}

// While the disk is stuck, what strangers cause is bounded and leaves the room of
// administration alone, and the other way around. All that had no room is counted.
func TestRoom(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := &disk{stuck: make(chan struct{})}
		l := open(t, Config{Out: d})
		l.Log(Event{Kind: Start})
		synctest.Wait() // it is being written, and has its place
		for range othersMax - 2 {
			l.Log(Event{Kind: Admin, Outcome: OK})
		}
		for i := range strangersMax {
			l.Log(Event{Kind: Denied, User: fmt.Sprint(i)})
			time.Sleep(interval / linesMax)
		}
		if l.Suppressed() != 0 {
			t.Errorf("%d suppressed before there were too many", l.Suppressed())
		}
		l.Log(Event{Kind: Denied, User: "one more"})
		l.Log(Event{Kind: Users, Operation: "last"})
		if l.Suppressed() != 1 {
			t.Errorf("%d suppressed, want 1", l.Suppressed())
		}
		l.Log(Event{Kind: Users, Operation: "one more"})
		if l.Suppressed() != 2 {
			t.Errorf("%d suppressed, want 2", l.Suppressed())
		}
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		if err := l.LogWait(ctx, Event{Kind: Admin}); !errors.Is(err, context.Canceled) || l.Suppressed() != 3 {
			t.Errorf("%v, %d suppressed, want 3", err, l.Suppressed())
		}
		waited := make(chan error)
		go func() { waited <- l.LogWait(t.Context(), Event{Kind: Users, Operation: "waits"}) }()
		synctest.Wait()
		select {
		case err := <-waited:
			t.Error("LogWait did not wait:", err)
		default:
		}
		close(d.stuck)
		if err := <-waited; err != nil {
			t.Error(err)
		}
		closed(t, l)
		kinds, operations := map[Kind]uint64{}, map[string]int{}
		for _, e := range events(t, d.Bytes()) {
			kinds[e.Kind] += max(e.More, 1)
			operations[e.Operation]++
		}
		if kinds[Admin] != othersMax-2 || kinds[Denied] != strangersMax || kinds[Suppressed] != 3 || operations["last"] != 1 || operations["waits"] != 1 || operations["one more"] != 0 {
			t.Errorf("%v, %v", kinds, operations)
		}
	})
}

// LogWait returns when the line is written, with the error if it is not, or when its
// context ends; even then the event is written if there is room.
func TestLogWait(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := &disk{}
		l := open(t, Config{Out: d})
		if err := l.LogWait(t.Context(), Event{Kind: Admin}); err != nil || len(d.Bytes()) == 0 {
			t.Errorf("%v, %q", err, d)
		}
		d.set(func() { d.full = true })
		if err := l.LogWait(t.Context(), Event{Kind: Admin}); !errors.Is(err, errFull) {
			t.Error(err)
		}
		synctest.Wait()
		stuck := make(chan struct{})
		d.set(func() { d.full, d.stuck = false, stuck })
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if err := l.LogWait(ctx, Event{Kind: Users, Operation: "slow"}); !errors.Is(err, context.DeadlineExceeded) {
			t.Error(err)
		}
		if err := l.LogWait(ctx, Event{Kind: Users, Operation: "late"}); !errors.Is(err, context.DeadlineExceeded) {
			t.Error(err)
		}
		close(stuck)
		closed(t, l)
		if !strings.Contains(d.String(), `"slow"`) || !strings.Contains(d.String(), `"late"`) {
			t.Errorf("%s", d)
		}
	})
}

// Wherever in a line the disk is full, the next event has a line of its own, and the log
// says that one is missing.
func TestFullDisk(t *testing.T) {
	for room := range 60 {
		synctest.Test(t, func(t *testing.T) { testFullDisk(t, room) })
	}
}

func testFullDisk(t *testing.T, room int) {
	var told bytes.Buffer
	d := &disk{full: true, room: room}
	l := open(t, Config{Out: d, Logger: slog.New(slog.NewTextHandler(&told, nil))})
	for range 3 {
		l.Log(Event{Kind: Admin, Operation: "lost", Arguments: map[string]any{"more": "bytes than there is room for"}})
		synctest.Wait()
	}
	failed := l.Failed()
	d.set(func() { d.full = false })
	l.Log(Event{Kind: Admin, Operation: "written"})
	closed(t, l)
	count := map[string]uint64{}
	for line := range bytes.Lines(d.Bytes()) {
		var e Event
		if json.Unmarshal(line, &e) == nil {
			count[string(e.Kind)+e.Operation] += max(e.More, 1)
		} else if len(line) > room+1 {
			t.Errorf("room for %d bytes: the line %q", room, line)
		}
	}
	if len(count) != 2 || count["adminwritten"] != 1 || count["suppressed"] != 3 || l.Written() != 2 {
		t.Errorf("room for %d bytes: %v, %d written: %s", room, count, l.Written(), d)
	}
	// Three events, and the first line that says what is missing.
	if failed != 4 || strings.Count(told.String(), "no space left") != 1 {
		t.Errorf("%d failures, of which is said %s", failed, &told)
	}
}

func TestDevFull(t *testing.T) {
	full, err := os.OpenFile("/dev/full", os.O_WRONLY, 0)
	if err != nil {
		t.Skip(err)
	}
	defer full.Close()
	l := open(t, Config{Out: full})
	for range 3 {
		if err := l.LogWait(t.Context(), Event{Kind: Admin}); err == nil {
			t.Error("written to a full disk")
		}
	}
	closed(t, l)
	if l.Failed() < 3 || l.Written() != 0 {
		t.Errorf("%d failed, %d written", l.Failed(), l.Written())
	}
}

// What JSON has no form for is a failure, and no line.
func TestNoJSON(t *testing.T) {
	var b bytes.Buffer
	l := open(t, Config{Out: &b})
	if err := l.LogWait(t.Context(), Event{Kind: Admin, Arguments: map[string]any{"f": func() {}}}); err == nil || l.Failed() != 1 {
		t.Errorf("%v, %d failed", err, l.Failed())
	}
	closed(t, l)
	if all := events(t, b.Bytes()); len(all) != 1 || all[0].Kind != Suppressed || all[0].More != 1 {
		t.Errorf("%s", &b)
	}
}

// FuzzLines: whatever strangers say of themselves, an event is one line, that any reader of
// JSON takes and any terminal can show.
func FuzzLines(f *testing.F) {
	f.Add("user", "10.0.0.1:5", "GET", "a reason", []byte("key"), `{"name":"x"}`)
	f.Add("\n\x00\xff", "\r\n", "\u2028\x7f\u0085", "\"", []byte{}, "{}")
	f.Add(strings.Repeat("\x1b", 10<<10), strings.Repeat("\U000e0001", 10<<10), strings.Repeat("\xf0", 10<<10), strings.Repeat("\\", 10<<10), bytes.Repeat([]byte{0}, 10<<10), `{"name":"`+strings.Repeat("\u202e", 10<<10)+`"}`)
	f.Fuzz(func(t *testing.T, user, remote, operation, reason string, key []byte, args string) {
		e := Event{Kind: Denied, User: user, Remote: remote, Operation: operation, Reason: reason, Key: key, Arguments: Arguments(command.AdminUserSet, []byte(args))}
		e.cut(true)
		b, err := e.line()
		if err != nil {
			t.Fatal(err)
		}
		line, ended := bytes.CutSuffix(b, []byte("\n"))
		if !ended || !json.Valid(line) || !utf8.Valid(line) || bytes.ContainsFunc(line, func(r rune) bool { return !unicode.IsPrint(r) }) {
			t.Errorf("%q", b)
		}
		if len(line) > 64<<10 {
			t.Errorf("%d bytes", len(line))
		}
		if got := events(t, line)[0].User; len(user) <= userBytesMax && utf8.ValidString(user) && got != user {
			t.Errorf("%q, want %q", got, user)
		}
	})
}

// What is counted costs a thread that polls next to nothing.
func BenchmarkSuppressed(b *testing.B) {
	l := open(b, Config{Out: &bytes.Buffer{}})
	defer closed(b, l)
	b.ReportAllocs()
	for b.Loop() {
		l.Log(Event{Kind: Denied, User: "svc", Remote: "10.0.0.1:5", Door: "native", Operation: "GET", Outcome: Refused, Reason: "the user svc may not read this key"})
	}
}

// So does what comes from another user each time.
func BenchmarkStrangers(b *testing.B) {
	l := open(b, Config{Out: &bytes.Buffer{}})
	defer closed(b, l)
	users := make([]string, 4*repeatsMax)
	for i := range users {
		users[i] = fmt.Sprint("user", i)
	}
	b.ReportAllocs()
	for i := 0; b.Loop(); i++ {
		l.Log(Event{Kind: Login, User: users[i%len(users)], Remote: "10.0.0.1:5", Door: "native", Operation: "HELLO", Outcome: Refused, Reason: "wrong user or password"})
	}
}
