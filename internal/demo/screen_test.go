package demo

import (
	"bytes"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"

	"github.com/proa-kv/proa/command"
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
	s.finish()
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
	if got := b.String(); !strings.HasPrefix(got, "\x1b[9A\r\x1b[J") || strings.Count(got, "\n") != 9 {
		t.Errorf("%q", got)
	}
	if !strings.Contains(first, "  node 1    up        127.0.0.1:1      ■■■◆\x1b[K\n") {
		t.Errorf("%s", first)
	}
	b.Reset()
	s.say(time.Second, "event")
	if got := b.String(); !strings.HasPrefix(got, "\x1b[9A\r\x1b[J   1.0s  event\n\x1b[K\n") {
		t.Errorf("%q", got)
	}
	s.finish()
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
	if !strings.Contains(b.String(), red+"  node 2    KILLED") || !strings.Contains(b.String(), green+"  node 1    up") {
		t.Errorf("%q", b.String())
	}
}

func TestSparkline(t *testing.T) {
	for _, tt := range []struct {
		rates []float64
		width int
		want  string
	}{
		{nil, 10, ""},
		{[]float64{0, 0}, 10, "  "},
		{[]float64{8, 4, 0, 1, 8}, 10, "█▅ ▂█"},
		{[]float64{100, 1, 2}, 2, "▅█"},
	} {
		if got := sparkline(tt.rates, tt.width); got != tt.want {
			t.Errorf("sparkline(%v, %d) = %q, want %q", tt.rates, tt.width, got, tt.want)
		}
	}
}

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
