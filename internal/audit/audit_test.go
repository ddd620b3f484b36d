package audit

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/proa-kv/proa/command"
)

var silent = slog.New(slog.DiscardHandler)

// lines are the events in an audit log.
func lines(t *testing.T, b []byte) (events []Event) {
	t.Helper()
	for line := range bytes.Lines(b) {
		var e Event
		if err := json.Unmarshal(line, &e); err != nil {
			t.Fatalf("%q: %v", line, err)
		}
		events = append(events, e)
	}
	return events
}

func TestLines(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var b bytes.Buffer
		l := New(&b, 3, silent)
		l.Log(Event{Kind: Admin, User: "root", Remote: "10.0.0.1:5", Door: "native", Operation: "member.remove", Arguments: map[string]any{"node": 2}, Outcome: OK})
		l.Log(Event{Kind: Denied, User: "a\nb\xff", Remote: "[::1]:7", Door: "redis", Operation: "GET", Outcome: Refused, Reason: strings.Repeat("r", 1000)})
		if err := l.Close(); err != nil {
			t.Fatal(err)
		}
		want := `{"time":"2000-01-01T00:00:00Z","node":3,"kind":"admin","user":"root","remote":"10.0.0.1:5","door":"native","operation":"member.remove","arguments":{"node":2},"outcome":"ok"}
{"time":"2000-01-01T00:00:00Z","node":3,"kind":"denied","user":"a\nb\ufffd","remote":"[::1]:7","door":"redis","operation":"GET","outcome":"refused","reason":"` + strings.Repeat("r", textBytesMax) + `"}
`
		if b.String() != want {
			t.Errorf("%s\nwant\n%s", &b, want)
		}
		l.Log(Event{Kind: Admin}) // does nothing any more
		var none *Log
		none.Log(Event{Kind: Admin})
		if err := none.Close(); err != nil {
			t.Error(err)
		}
	})
}

// TestRepeats: what strangers can cause at will has few lines, and none is forgotten.
func TestRepeats(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var b bytes.Buffer
		l := New(&b, 1, silent)
		const each = 1000
		for range 3 {
			for i := range each {
				l.Log(Event{Kind: Login, User: "admin", Remote: fmt.Sprintf("10.0.0.1:%d", i), Outcome: Refused})
				synctest.Wait()
			}
			time.Sleep(repeatWindow)
		}
		for i := range 2 * repeatsMax { // each from an address of its own
			l.Log(Event{Kind: Denied, User: "u", Remote: fmt.Sprintf("10.%d.%d.%d:1", i>>16, i>>8&255, i&255), Outcome: Refused})
			synctest.Wait()
		}
		l.Log(Event{Kind: Admin, Operation: "member.drain", Outcome: OK})
		if err := l.Close(); err != nil {
			t.Fatal(err)
		}
		count, admin := map[Kind]uint64{}, 0
		events := lines(t, b.Bytes())
		for _, e := range events {
			count[e.Kind] += e.More
			if e.Kind != "suppressed" {
				count[e.Kind]++
			}
			if e.Kind == Admin {
				admin++
			}
		}
		if sum := count[Login] + count[Denied] + count["suppressed"]; sum != 3*each+2*repeatsMax {
			t.Errorf("%d events are accounted for, want %d: %v", sum, 3*each+2*repeatsMax, count)
		}
		if len(events) > 3*repeatsFree+repeatsMax+10 || admin != 1 {
			t.Errorf("%d lines, %d of administration", len(events), admin)
		}
		if len(l.repeats) > repeatsMax {
			t.Errorf("%d are told apart", len(l.repeats))
		}
	})
}

// stuck is a disk that does not go on, and then fails.
type stuck struct {
	mu   sync.Mutex
	fail func(p []byte) (int, error)
	b    bytes.Buffer
}

func (s *stuck) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.fail != nil {
		return s.fail(p)
	}
	return s.b.Write(p)
}

// TestQueueIsBounded: what strangers cause leaves room to administration while the disk
// does not go on.
func TestQueueIsBounded(t *testing.T) {
	s := &stuck{}
	s.mu.Lock()
	l := New(s, 1, silent)
	for i := range 4 * queueMax {
		l.Log(Event{Kind: Denied, User: fmt.Sprint("u", i), Outcome: Refused})
	}
	for range queueMax {
		l.Log(Event{Kind: Admin, Operation: "shard.move", Outcome: OK})
	}
	s.mu.Unlock()
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	kinds := map[Kind]uint64{}
	for _, e := range lines(t, s.b.Bytes()) {
		kinds[e.Kind] += max(e.More, 1)
	}
	if kinds[Admin] != queueMax || kinds[Denied] > 2*queueMax || kinds[Denied]+kinds["suppressed"] != 4*queueMax {
		t.Errorf("%v", kinds)
	}
}

// TestFailingDisk: the log goes on when the disk does, each event on a line of its own.
func TestFailingDisk(t *testing.T) { synctest.Test(t, testFailingDisk) }

func testFailingDisk(t *testing.T) {
	s := &stuck{}
	l := New(s, 1, silent)
	full := errors.New("no space left")
	s.mu.Lock()
	s.fail = func(p []byte) (int, error) { return s.b.Write(p[:len(p)/2]) }
	fail := s.fail
	s.fail = func(p []byte) (int, error) { n, _ := fail(p); return n, full }
	s.mu.Unlock()
	l.Log(Event{Kind: Admin, Operation: "lost"})
	synctest.Wait()
	if l.Failures() != 1 {
		t.Errorf("%d failures", l.Failures())
	}
	s.mu.Lock()
	s.fail = nil
	s.mu.Unlock()
	l.Log(Event{Kind: Admin, Operation: "written"})
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	_, last, _ := strings.Cut(s.b.String(), "\n")
	if events := lines(t, []byte(last)); len(events) != 1 || events[0].Operation != "written" || l.Written() != 1 {
		t.Errorf("%q", &s.b)
	}
}

func TestFile(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		path := filepath.Join(t.TempDir(), "audit.log")
		l, err := Open(path, 1, silent)
		if err != nil {
			t.Fatal(err)
		}
		l.Log(Event{Kind: Start})
		synctest.Wait()
		if err := os.Rename(path, path+".1"); err != nil {
			t.Fatal(err)
		}
		time.Sleep(rotationCheck)
		l.Log(Event{Kind: Stop})
		if err := l.Close(); err != nil {
			t.Fatal(err)
		}
		for name, kind := range map[string]Kind{path + ".1": Start, path: Stop} {
			b, err := os.ReadFile(name)
			if err != nil {
				t.Fatal(err)
			}
			if events := lines(t, b); len(events) != 1 || events[0].Kind != kind {
				t.Errorf("%s: %s", name, b)
			}
			if fi, err := os.Stat(name); err != nil || fi.Mode().Perm() != 0o600 {
				t.Errorf("%s: %v", name, fi.Mode())
			}
		}
		if _, err := Open(filepath.Join(t.TempDir(), "none", "audit.log"), 1, silent); err == nil {
			t.Error("a directory that is not there is accepted")
		}
		if _, err := Open(t.TempDir(), 1, silent); err == nil {
			t.Error("a directory is accepted")
		}
	})
}

// FuzzLines: whatever strangers say of themselves, an event is one line.
func FuzzLines(f *testing.F) {
	f.Add("user", "10.0.0.1:5", "GET", "a reason", `{"name":"x"}`)
	f.Add("\n\x00\xff", "\r\n", "\u2028", "\"", "{}")
	f.Fuzz(func(t *testing.T, user, remote, operation, reason, args string) {
		var b bytes.Buffer
		l := New(&b, 1, silent)
		l.Log(Event{Kind: Denied, User: user, Remote: remote, Operation: operation, Reason: reason, Arguments: Arguments(command.AdminUserSet, []byte(args))})
		if err := l.Close(); err != nil {
			t.Fatal(err)
		}
		if n := bytes.Count(b.Bytes(), []byte("\n")); n != 1 || b.Len() > 64<<10 {
			t.Errorf("%d lines of %d bytes", n, b.Len())
		}
		lines(t, b.Bytes())
	})
}

func BenchmarkRepeated(b *testing.B) {
	l := New(&bytes.Buffer{}, 1, silent)
	b.ReportAllocs()
	for b.Loop() {
		l.Log(Event{Kind: Denied, User: "svc", Remote: "10.0.0.1:5", Operation: "GET", Outcome: Refused})
	}
}
