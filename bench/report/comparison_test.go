package report

import (
	"bytes"
	"encoding/xml"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/proa-kv/proa/bench"
)

func comparison() *Comparison {
	h := new(bench.KindResult)
	for i := range 1000 {
		h.Record(time.Duration(i+1) * time.Microsecond)
	}
	table := Table{Title: "Targets", Header: []string{"what", "verdict"}, Notes: []string{"A <note>."}}
	table.Add("slow", "MISSED")
	table.Add("fast", "met")
	return &Comparison{
		Title: "One <node>", Lines: []string{"Machine: a & b"}, Notes: []string{"A smoke run."}, Tables: []Table{table},
		Charts: []Chart{LatencyChart("GET, 64 × 1", LatencyLine("Proa", h), LatencyLine("Redis", h)), LatencyChart("not measured", LatencyLine("Proa", new(bench.KindResult)))},
	}
}

// The page is well-formed, needs nothing from elsewhere, escapes what it is
// given, and shows no empty chart.
func TestComparisonPage(t *testing.T) {
	path := filepath.Join(t.TempDir(), "page.html")
	if err := comparison().WriteHTML(path); err != nil {
		t.Fatal(err)
	}
	page, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	for d := xml.NewDecoder(bytes.NewReader(page)); ; {
		if _, err := d.Token(); errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			t.Fatal(err)
		}
	}
	text := string(page)
	for _, want := range []string{
		"<title>One &lt;node&gt;</title>", "<b>Machine:</b> a &amp; b", `<p class="bad">A smoke run.</p>`, "A &lt;note&gt;.",
		`<td class="bad">MISSED</td>`, "<td>met</td>", "<h2>GET, 64 × 1</h2>", "<svg", "Redis",
	} {
		if !strings.Contains(text, want) {
			t.Errorf("the page lacks %q", want)
		}
	}
	for _, no := range []string{"not measured", "http://", "https://", "<script", "url("} {
		if strings.Contains(text, no) {
			t.Errorf("the page has %q", no)
		}
	}
	if n := strings.Count(text, "<svg"); n != 2 { // for wide and for narrow pages
		t.Errorf("%d charts", n)
	}
	if err := comparison().WriteHTML(filepath.Join(path, "below a file")); err == nil {
		t.Error("a file was written below a file")
	}
}

// A line shows each percentile where it belongs, and the slowest at the end.
func TestLatencyLine(t *testing.T) {
	line := comparison().Charts[0].Lines[0]
	if n := len(line.Points); n != 26 { // eight for each decade, both ends, and the slowest
		t.Errorf("%d points", n)
	}
	first, last := line.Points[0], line.Points[len(line.Points)-1]
	if first != (XY{1, 1}) || last.X != 2000 || last.Y < 999 || last.Y > 1001 {
		t.Errorf("from %v to %v", first, last)
	}
	if at := line.Points[16]; at.X < 99.9 || at.X > 100.1 || at.Y < 989 || at.Y > 991 {
		t.Errorf("the 99th percentile is at %v", at)
	}
	if got := LatencyLine("none", new(bench.KindResult), &bench.KindResult{Latency: bench.NewLatencies()}); len(got.Points) > 0 {
		t.Error(got)
	}
	var low, high bench.KindResult
	low.Record(time.Microsecond)
	high.Record(5 * time.Microsecond)
	both := LatencyLine("both", &low, new(bench.KindResult), &high).Points
	if diff := cmp.Diff([]XY{{1, 1}, {4, 5}}, []XY{both[0], both[len(both)-1]}, cmpopts.EquateApprox(1e-3, 0)); diff != "" || low.Ops != 1 || low.Latency.TotalCount() != 1 {
		t.Errorf("%d latencies are left, %s", low.Ops, diff)
	}
	if diff := cmp.Diff([]Line{line}, WithPoints(Line{Name: "none"}, line)); diff != "" {
		t.Error(diff)
	}
}

// The same comparison for a terminal and as Markdown.
func TestComparisonText(t *testing.T) {
	c := Comparison{Lines: []string{"Machine: small: two cores", "no colon"}, Notes: []string{"A note."}, Tables: []Table{{Title: "T", Header: []string{"a"}, Rows: [][]string{{"1"}}}}}
	var out strings.Builder
	if err := c.Print(&out); err != nil {
		t.Fatal(err)
	}
	if want := "Machine: small: two cores\nno colon\n\nT\n\na\n1\n\nA note.\n"; out.String() != want {
		t.Errorf("printed %q", out.String())
	}
	if got, want := c.Markdown(3, "Method."), "- **Machine:** small: two cores\n- no colon\n\n**Note:** A note.\n\nMethod.\n\n### T\n\n| a |\n|---|\n| 1 |\n"; got != want {
		t.Errorf("Markdown is %q", got)
	}
	if strings.Contains(c.Markdown(3, ""), "Method") {
		t.Error("an intro that is not there")
	}
}
