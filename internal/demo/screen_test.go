package demo

import (
	"bytes"
	"regexp"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"

	"github.com/proa-kv/proa/command"
	"github.com/proa-kv/proa/internal/render"
)

func testView() view {
	return view{
		past:  12300 * time.Millisecond,
		load:  figures{writeRate: 12345, readRate: 20000, write50: 820 * time.Microsecond, write99: 3100 * time.Microsecond, acked: 98765},
		nodes: []nodeView{{1, "up", 3, true, "127.0.0.1:1"}, {2, "KILLED", 0, false, "127.0.0.1:2"}, {3, "up", 5, false, "127.0.0.1:3"}},
	}
}

func TestPlainScreen(t *testing.T) {
	var b bytes.Buffer
	s := newScreen(&b, 0, true)
	s.title = "title"
	s.say(0, "begin")
	s.show(testView())
	s.finish(98770, 0, 1)
	want := `title

   0.0s  begin
  12.3s    12345 writes/s p50    0.82 ms p99    3.10 ms    20000 reads/s p50       - ms p99       - ms  leaders 3/KILLED/5
`
	if diff := cmp.Diff(want, b.String()); diff != "" {
		t.Error(diff)
	}
}

// On a terminal each view takes the place of the one before, and events stand
// above it.
func TestTerminalScreen(t *testing.T) {
	var b bytes.Buffer
	s := newScreen(&b, 80, false)
	s.say(0, "begin")
	s.show(testView())
	first := b.String()
	b.Reset()
	s.show(testView())
	if got := b.String(); !strings.HasPrefix(got, "\x1b[13A\r\x1b[J") || strings.Count(got, "\n") != 13 {
		t.Errorf("%q", got)
	}
	if !strings.Contains(first, "  node 1    up        127.0.0.1:1      ■■■◆\x1b[K\n") {
		t.Errorf("%s", first)
	}
	b.Reset()
	s.say(time.Second, "event")
	if got := b.String(); !strings.HasPrefix(got, "\x1b[13A\r\x1b[J   1.0s  event\n\x1b[K\n") {
		t.Errorf("%q", got)
	}
	b.Reset()
	s.finish(98770, 0, 1)
	if got := b.String(); !strings.HasPrefix(got, "\x1b[13A") || !strings.Contains(got, "  98770 writes acknowledged, 0 stale reads, 1 calls failed") {
		t.Errorf("%q", got)
	}
	b.Reset()
	s.say(time.Second, "end")
	if got := b.String(); got != "   1.0s  end\n" {
		t.Errorf("%q", got)
	}
}

func TestNarrowTerminal(t *testing.T) {
	var b bytes.Buffer
	s := newScreen(&b, 40, false)
	for range 100 {
		s.show(testView())
	}
	for line := range strings.SplitSeq(b.String(), "\n") {
		line = strings.TrimSuffix(line, erase)
		if i := strings.LastIndex(line, "\x1b[J"); i >= 0 {
			line = line[i+3:]
		}
		if n := utf8.RuneCountInString(line); n > 40 {
			t.Fatalf("%d columns: %q", n, line)
		}
	}
	if len(s.history) > historyMax {
		t.Errorf("%d rates are kept", len(s.history))
	}
}

func TestColour(t *testing.T) {
	var b bytes.Buffer
	s := newScreen(&b, 80, true)
	s.show(testView())
	if !strings.Contains(b.String(), render.Red+"  node 2    KILLED") || !strings.Contains(b.String(), render.Green+"  node 1    up") {
		t.Errorf("%q", b.String())
	}
}

func TestSparkline(t *testing.T) {
	for _, tt := range []struct {
		rates []float64
		want  string
	}{
		{nil, ""},
		{[]float64{0, 0}, "  "},
		{[]float64{8, 4, 0, 1, 8}, "█▅ ▂█"},
	} {
		if got := sparkline(tt.rates); got != tt.want {
			t.Errorf("sparkline(%v) = %q, want %q", tt.rates, got, tt.want)
		}
	}
}

// TestCurve: the whole run is on the curve, with what happened below it.
func TestCurve(t *testing.T) {
	var b bytes.Buffer
	s := newScreen(&b, 33, false)
	s.total = 10 * time.Second
	at := func(seconds float64) time.Duration { return time.Duration(seconds * float64(time.Second)) }
	for past := 2.0; past <= 12; past += 0.25 {
		v := testView()
		v.past, v.load.writeRate = at(past), 1000
		if past >= 5 && past < 6 {
			v.load.writeRate = 0
		}
		s.show(v)
	}
	s.mark(at(5), 'K', "node 2 killed")
	s.mark(at(5.1), 'S', "all shards serve again, after 100ms")
	s.mark(at(12), 'C', "node 2 has caught up")
	want := []string{
		"  writes/s  █████▅ ▅████████████",
		"                 KS            C",
		"  K   5.0s  node 2 killed",
		"  S   5.1s  all shards serve again, after 100ms",
		"  C  12.0s  node 2 has caught up",
	}
	if diff := cmp.Diff(want, s.curve(at(12))); diff != "" {
		t.Error(diff)
	}
}

// No line is wider than a terminal of 70 columns, events included.
func TestColumns(t *testing.T) {
	var b bytes.Buffer
	s := newScreen(&b, 70, true)
	s.say(time.Second, strings.Repeat("0 reads returned an older value than acknowledged; ", 3))
	s.mark(0, 'K', "node 2 killed")
	s.show(testView())
	for line := range strings.Lines(ansi.ReplaceAllString(b.String(), "")) {
		if n := utf8.RuneCountInString(strings.TrimSuffix(line, "\n")); n > 70 {
			t.Errorf("%d columns: %q", n, line)
		}
	}
}

var ansi = regexp.MustCompile("\x1b\\[[0-9;]*[a-zA-Z]")

func TestNodeViews(t *testing.T) {
	c := &command.ClusterStatus{
		Nodes:  []command.NodeInfo{{ID: 1, State: "up"}, {ID: 2, State: "up"}, {ID: 99, State: "up"}},
		Shards: []command.ShardInfo{{Shard: command.MetaShard, Leader: 1}, {Shard: 0, Leader: 2}, {Shard: 1, Leader: 2}, {Shard: 2}, {Shard: 3, Leader: 99}},
	}
	want := []nodeView{{1, "up", 0, true, "a"}, {2, "up", 2, false, "b"}, {3, "starting", 0, false, "c"}}
	opt := cmp.AllowUnexported(nodeView{})
	if diff := cmp.Diff(want, nodeViews(c, []string{"a", "b", "c"}, 0), opt); diff != "" {
		t.Error(diff)
	}
	want[1] = nodeView{2, "KILLED", 0, false, "b"}
	if diff := cmp.Diff(want, nodeViews(c, []string{"a", "b", "c"}, 2), opt); diff != "" {
		t.Error(diff)
	}
}
