package audit

import (
	"bytes"
	"fmt"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// TestRepeats: the first few have lines at once, then there is one in ten seconds with
// their number, though nothing more comes, and after a pause all begins anew.
func TestRepeats(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := &disk{}
		l := open(t, Config{Out: b})
		start, read := time.Now(), 0
		var story []string
		look := func() {
			synctest.Wait()
			for _, e := range events(t, b.Bytes()[read:]) {
				story = append(story, fmt.Sprintf("%v: of %v %s more=%d", time.Since(start), e.Time.Sub(start), e.User, e.More))
			}
			read = len(b.Bytes())
		}
		port := 0
		try := func(n int) {
			for range n {
				port++ // another connection each time
				l.Log(Event{Kind: Login, User: "admin", Remote: fmt.Sprint("10.0.0.1:", port), Outcome: Refused})
			}
			look()
		}
		wait := func(d time.Duration) {
			for range d / (100 * time.Millisecond) {
				time.Sleep(100 * time.Millisecond)
				look()
			}
		}
		try(5)
		wait(4 * time.Second)
		try(10)
		wait(15 * time.Second) // 19 s
		try(1)                 // within ten seconds of the summary
		wait(22 * time.Second)
		try(4) // 41 s: anew
		l.Log(Event{Kind: Login, User: "admin", Remote: "10.0.0.1:1", Outcome: OK})
		l.Log(Event{Kind: Denied, User: "admin", Remote: "10.0.0.1:1", Outcome: Refused})
		l.Log(Event{Kind: Login, User: "admin", Remote: "10.0.0.2:1", Outcome: Refused})
		l.Log(Event{Kind: Login, User: "ann", Remote: "10.0.0.1:1", Outcome: Refused})
		look()
		closed(t, l)
		look()
		want := []string{
			"0s: of 0s admin more=0", "0s: of 0s admin more=0", "0s: of 0s admin more=0",
			"10s: of 4s admin more=11",
			"29s: of 19s admin more=0",
			"41s: of 41s admin more=0", "41s: of 41s admin more=0", "41s: of 41s admin more=0",
			"41s: of 41s admin more=0", "41s: of 41s admin more=0", "41s: of 41s admin more=0", "41s: of 41s ann more=0", // others
			"41s: of 41s admin more=0", // what was counted, at the end
		}
		if !slices.Equal(story, want) {
			t.Errorf("\n%s\nwant\n%s", strings.Join(story, "\n"), strings.Join(want, "\n"))
		}
		if l.Suppressed() != 11 {
			t.Errorf("%d suppressed, want 11", l.Suppressed())
		}
	})
}

// TestFlood: from whatever users and addresses strangers come, their lines are bounded in
// each second, no event is forgotten, and an administrator's has its line at once.
func TestFlood(t *testing.T) {
	for _, users := range []int{1, linesMax, repeatsMax, repeatsMax + 1, 3 * repeatsMax} {
		synctest.Test(t, func(t *testing.T) {
			b := &disk{}
			l := open(t, Config{Out: b})
			const seconds, each = 30, 2000
			var sent uint64
			for second := range seconds {
				before := l.Written()
				for i := range each {
					l.Log(Event{Kind: Denied, User: fmt.Sprint((second*each + i) % users), Remote: "10.0.0.1:1", Outcome: Refused})
					sent++
				}
				l.Log(Event{Kind: Admin, Operation: "member.drain", Outcome: OK})
				time.Sleep(time.Second)
				synctest.Wait()
				// A second of the log's own may end in each of these, and one line counts those
				// without one.
				if n := l.Written() - before - 1; n > 2*linesMax+2 {
					t.Errorf("%d users: %d lines in a second", users, n)
				}
				if got := bytes.Count(b.Bytes(), []byte("member.drain")); got != second+1 {
					t.Errorf("%d users: %d lines of administration, want %d", users, got, second+1)
				}
			}
			closed(t, l)
			var own, more, lines uint64
			for _, e := range events(t, b.Bytes()) {
				more += e.More
				if e.Kind == Denied {
					own++
				}
				if e.Kind != Admin {
					lines++
				}
			}
			if own+more != sent || l.Suppressed() != more || l.Written() != lines+seconds {
				t.Errorf("%d users: %d lines, %d more, %d suppressed, want %d events", users, own, more, l.Suppressed(), sent)
			}
			if bound := uint64((linesMax + 1) * (seconds + 1)); lines > bound {
				t.Errorf("%d users: %d lines, want %d at most", users, lines, bound)
			}
			if len(l.repeats.byKey) != min(users, repeatsMax) || l.repeats.recent.Len() != len(l.repeats.byKey) {
				t.Errorf("%d users: %d and %d are told apart", users, len(l.repeats.byKey), l.repeats.recent.Len())
			}
		})
	}
}

// TestLinesOfASecond: the bound of all strangers together, at its edge. Who came too late
// for a line has one later.
func TestLinesOfASecond(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := &disk{}
		l := open(t, Config{Out: b})
		for i := range linesMax + 1 {
			l.Log(Event{Kind: Denied, User: fmt.Sprint(i)})
		}
		time.Sleep(time.Second - 1)
		l.Log(Event{Kind: Denied, User: "too early"})
		time.Sleep(time.Nanosecond)
		l.Log(Event{Kind: Denied, User: "in time"})
		synctest.Wait()
		if got := l.Written(); got != linesMax+1 {
			t.Errorf("%d lines, want %d", got, linesMax+1)
		}
		time.Sleep(repeatWindow + interval)
		synctest.Wait()
		all := events(t, b.Bytes())
		if len(all) != linesMax+3 || all[linesMax].User != "in time" || all[linesMax+1].User != fmt.Sprint(linesMax) || all[linesMax+2].User != "too early" {
			t.Errorf("%d lines, the last of %v", len(all), all[min(len(all), linesMax):])
		}
		closed(t, l)
	})
}

// TestForgotten: what has not come for longest is forgotten first, and counted as lost.
func TestForgotten(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := &disk{}
		l := open(t, Config{Out: b})
		try := func(user string, n int) {
			for range n {
				l.Log(Event{Kind: Denied, User: user})
			}
		}
		try("kept", repeatsFree+5)
		try("old", repeatsFree+7)
		for i := range repeatsMax - 2 {
			try(fmt.Sprint(i), 1)
		}
		try("kept", 1)
		synctest.Wait()
		if strings.Contains(b.String(), "suppressed") {
			t.Error("something was forgotten while there was room")
		}
		try("new", 1) // in the place of "old"
		synctest.Wait()
		all := events(t, b.Bytes())
		if last := all[len(all)-1]; last.Kind != Suppressed || last.More != 7 {
			t.Errorf("%v", last)
		}
		time.Sleep(repeatWindow + interval)
		synctest.Wait()
		for _, e := range events(t, b.Bytes()) {
			if e.User == "old" && e.More != 0 || e.User == "kept" && e.More != 0 && e.More != 5 {
				t.Errorf("%v", e)
			}
		}
		if !strings.Contains(b.String(), `"kept","more":5`) {
			t.Error("what was kept has no line")
		}
		closed(t, l)
	})
}

// The line that counts what is lost comes at once, and then once a second at most: it is
// no way to fill the disk either.
func TestSuppressedLines(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := &disk{}
		l := open(t, Config{Out: b})
		lose := func() {
			l.mu.Lock()
			l.lose(1)
			l.mu.Unlock()
			synctest.Wait()
		}
		want := func(lines int) {
			t.Helper()
			if got := len(events(t, b.Bytes())); got != lines {
				t.Errorf("%d lines, want %d", got, lines)
			}
		}
		lose()
		want(1)
		for range 9 {
			time.Sleep(100 * time.Millisecond)
			lose()
			l.Log(Event{Kind: Admin})
		}
		synctest.Wait()
		want(10)
		time.Sleep(interval)
		synctest.Wait()
		want(11)
		if all := events(t, b.Bytes()); all[0].More != 1 || all[10].More != 9 {
			t.Errorf("%v", all)
		}
		closed(t, l)
	})
}
