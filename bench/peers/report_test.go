//go:build linux

package main

import (
	"encoding/json"
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/proa-kv/proa/bench"
	"github.com/proa-kv/proa/bench/rig"
)

// figures returns a sample with made-up figures: a rate, and latencies in
// microseconds.
func figures(rate, p50, p99 float64) rig.Sample {
	return rig.Sample{Rate: rate, P50: p50 * 1e3, P99: p99 * 1e3, P999: 2 * p99 * 1e3, Slowest: 3 * p99 * 1e3, Server: 4e3, Generator: 5e3, Ops: uint64(rate)}
}

// synthetic returns a comparison of two rounds. In the second all are half as
// fast. Proa makes 20 times as many calls as etcd, with p99 as given.
func synthetic(p99 float64) *comparison {
	c := &comparison{
		Lab:     &rig.Lab{Started: time.Unix(0, 0)},
		options: options{Options: rig.Options{Rounds: 2, Step: time.Second}, keys: 1000, value: 128},
		sync:    map[int]rig.Series{}, loop: map[int]rig.Series{}, copies: map[int]rig.Series{}, cells: map[cell]rig.Series{},
	}
	for _, n := range sizes {
		c.sync[n], c.loop[n] = rig.Series{figures(0, 100, 110), figures(0, 300, 310)}, rig.Series{figures(0, 20, 30), figures(0, 60, 70)}
		c.copies[n] = rig.Series{figures(0, 0.12, 0.5), figures(0, 0.14, 0.5)}
	}
	for i, p := range peers {
		program, _, _ := strings.Cut(p.name(), " on ")
		c.servers = append(c.servers, &server{peer: p, version: program + " 1.0", bytes: int64(i+1) << 20})
		c.cells[cell{starts[0], p.name()}] = rig.Series{figures(0, 300e3, 0), figures(0, 200e3, 0), figures(0, 251e3, 0)}
		c.cells[cell{starts[1], p.name()}] = rig.Series{figures(0, 20e3, 0), figures(0, 10e3, 0), figures(0, 15e3, 0)}
		for _, r := range rows {
			if !p.supports(r.nodes) {
				continue
			}
			s := figures(1000, 400, 1000)
			if p == (proa{}) {
				s = figures(20_000, 240, p99)
			}
			half := s
			half.Rate, half.P50, half.P99 = s.Rate/2, 2*s.P50, 2*s.P99
			c.cells[cell{r, p.name()}] = rig.Series{s, half}
		}
	}
	return c
}

func verdicts(c *comparison, targets []target) (v []string) {
	t := c.targetTable("", targets)
	for _, row := range t.Rows {
		v = append(v, row[len(row)-1])
	}
	return v
}

// Each target is held against the right figures.
func TestTargets(t *testing.T) {
	for p99, want := range map[float64][]string{
		100: {"met", "met", "met", "met", "met", "met", "met", "met"},
		110: {"met", "met", "met", "met", "met", "met", "met", "MISSED"},
		150: {"met", "MISSED", "met", "MISSED", "met", "met", "met", "MISSED"},
		170: {"met", "MISSED", "met", "MISSED", "met", "MISSED", "met", "MISSED"},
	} {
		if diff := cmp.Diff(want, verdicts(synthetic(p99), targets())); diff != "" {
			t.Errorf("p99 %v: %s", p99, diff)
		}
	}
	c := synthetic(100)
	for i, r := range []row{rows[1], rows[2], rows[5], rows[6]} {
		k := cell{r, "Proa"}
		for _, tc := range []struct {
			rate float64
			want string
		}{{7999, "MISSED"}, {8000, "met"}, {9999, "met"}, {10_000, "met"}} {
			if i >= 2 && tc.rate < 10_000 {
				tc.want = "MISSED"
			}
			c.cells[k][0].Rate, c.cells[k][1].Rate = tc.rate, tc.rate/2
			if got := verdicts(c, targets())[2*i]; got != tc.want {
				t.Errorf("%v with %v/s beside 1000/s: %s", r, tc.rate, got)
			}
		}
	}
	delete(c.cells, cell{rows[1], "etcd"})
	if got := verdicts(c, targets())[:2]; got[0] != "–" || got[1] != "–" {
		t.Errorf("without etcd: %v", got)
	}
}

// Each engine's target is held against the right figures. In the figures that are made
// up all but Proa on its default engines are alike.
func TestEngineTargets(t *testing.T) {
	c := synthetic(100)
	if diff := cmp.Diff([]string{"MISSED", "MISSED", "MISSED", "MISSED"}, verdicts(c, engineTargets())); diff != "" {
		t.Error(diff)
	}
	for i, tc := range []struct {
		row
		met, missed rig.Sample
	}{
		{rows[0], figures(1, 1.6*240, 0), figures(1, 1.6*240+1, 0)}, {rows[1], figures(14_000, 0, 0), figures(13_999, 0, 0)},
		{rows[2], figures(15_000, 0, 0), figures(14_999, 0, 0)}, {rows[5], figures(4000, 0, 0), figures(3999, 0, 0)},
	} {
		k := cell{tc.row, "Proa on dragonboat"}
		c.cells[k] = rig.Series{tc.met}
		if got := verdicts(c, engineTargets())[i]; got != "met" {
			t.Errorf("%v on its target: %s", tc.row, got)
		}
		c.cells[k] = rig.Series{tc.missed}
		if got := verdicts(c, engineTargets())[i]; got != "MISSED" {
			t.Errorf("%v beside its target: %s", tc.row, got)
		}
	}
}

func TestStartTable(t *testing.T) {
	c := synthetic(100)
	delete(c.cells, cell{starts[0], "etcd"})
	for _, rest := range []struct {
		cell
		share float64
	}{{cell{resting(1), "Proa"}, 0.002}, {cell{resting(3), "Proa"}, 0.056}, {cell{resting(3), "Proa on dragonboat"}, 1.5}} {
		c.cells[rest.cell] = rig.Series{{Server: rest.share / 2}, {Server: rest.share}, {Server: 2 * rest.share}}
	}
	want := [][]string{
		{"Proa", "1.0", "251 (200–300)", "15 (10–20)", "0.2", "5.6"}, {"Proa on netpoll", "2.0", "251 (200–300)", "15 (10–20)", "", ""},
		{"Proa on dragonboat", "3.0", "251 (200–300)", "15 (10–20)", "", "150.0"}, {"Proa on netpoll and dragonboat", "4.0", "251 (200–300)", "15 (10–20)", "", ""},
		{"Redis", "6.0", "251 (200–300)", "15 (10–20)", "", ""},
	}
	if diff := cmp.Diff(want, c.startTable().Rows); diff != "" {
		t.Error(diff)
	}
	d := c.documentStarts()
	if len(d) != 5 || d[4].Server != "Redis" || d[4].ProgramBytes != 6<<20 || d[4].First[1] != 200e6 || d[4].Again[2] != 15e6 || d[0].RestOne[1] != 0.002 || d[2].RestThree[2] != 3 {
		t.Errorf("%+v", d)
	}
}

// The floor is one echo; for a write an fsync more, and in a cluster an echo.
func TestFloor(t *testing.T) {
	c := synthetic(100)
	for r, want := range map[row][]float64{
		{bench.Get, 1, 256, 16}: {20e3, 60e3}, {bench.Get, 3, 256, 16}: {20e3, 60e3},
		{bench.Put, 1, 1, 1}: {120e3, 360e3}, {bench.Put, 3, 1, 1}: {140e3, 420e3},
	} {
		if diff := cmp.Diff(want, c.floor(r)); diff != "" {
			t.Errorf("%v: %s", r, diff)
		}
	}
}

func TestRowTable(t *testing.T) {
	c := synthetic(100)
	k := cell{rows[6], "etcd"}
	c.cells[k][1].Failures, c.cells[k][1].Failed = map[string]uint64{"too many requests": 100, "gone": 25}, 125
	table := c.rowTable(rows[6])
	want := [][]string{
		{"Proa", "15,000", "", "360", "10.0", "150", "", "200", "4.00", "5.00", "linearizable: the leader answers under its lease"},
		{"Proa on dragonboat", "750", "20.000 (20.00–20.00)", "600", "16.7", "1,500", "0.100 (0.10–0.10)", "2,000", "4.00", "5.00", "linearizable: the leader answers under its lease"},
		{"Proa on netpoll and dragonboat", "750", "20.000 (20.00–20.00)", "600", "16.7", "1,500", "0.100 (0.10–0.10)", "2,000", "4.00", "5.00", "linearizable: the leader answers under its lease"},
		{"etcd", "750", "20.000 (20.00–20.00)", "600", "16.7", "1,500", "0.100 (0.10–0.10)", "2,000", "4.00", "5.00", "NOT LIKE FOR LIKE: linearizable: a ReadIndex round, not a lease"},
	}
	if diff := cmp.Diff(want, table.Rows); diff != "" {
		t.Error(diff)
	}
	if diff := cmp.Diff([]string{"etcd failed 5.88 % of the calls, which are in no figure: gone (25), too many requests (100)."}, table.Notes); diff != "" {
		t.Error(diff)
	}
	for _, r := range rows {
		for _, p := range peers {
			if _, ok := p.(redis); ok != p.meaning(r.op, r.nodes).unlike && !(ok || r.op == bench.Get && r.nodes > 1) {
				t.Errorf("%v of %s is marked as it is not", r, p.name())
			}
		}
	}
}

func TestMarkdown(t *testing.T) {
	c := synthetic(100)
	c.servers[slices.IndexFunc(c.servers, func(s *server) bool { return s.name() == "Redis" })].absent = "not here"
	c.failed = []error{errors.New("Proa, 3 nodes: a reason, with /a/path")}
	text := c.outcome().Markdown
	for _, want := range []string{
		"## Beside etcd and Redis", "Proa 1.0; etcd 1.0; generator", "### Targets beside etcd", "### Targets of dragonboat", "### Program, start, rest", "### PUT, 3 nodes, 256 callers, 16 connections",
		"make compare, which runs peers -rounds 2 -duration 1s -keys 1000 -benchmark-keys 0 -value 128", "**Note:** Redis was not measured.",
		"**Note:** Proa, 3 nodes, could not be measured.", "| fdatasync, beside 3 nodes | 200 |", "| memory copy, beside 3 nodes | 0.13 | 0.50 | 1.00 |", "for 1s each, 2 rounds in all", "among 1,000, values have 128 bytes",
	} {
		if !strings.Contains(text, want) {
			t.Errorf("the page lacks %q", want)
		}
	}
	if strings.Contains(text, "/a/path") || strings.Contains(text, "%!") {
		t.Errorf("the page names a path, or its text is broken: %s", text)
	}
}

func TestJSON(t *testing.T) {
	b, err := json.Marshal(synthetic(100).outcome().JSON)
	if err != nil {
		t.Fatal(err)
	}
	var d document
	if err := json.Unmarshal(b, &d); err != nil {
		t.Fatal(err)
	}
	if len(d.Rows) != 4*6+3*4 || len(d.Starts) != 6 || len(d.Floors) != 2 || d.Versions["etcd"] != "etcd 1.0" || d.Options != (documentOptions{2, 1, 1000, 128}) {
		t.Errorf("%+v", d)
	}
	last := d.Rows[len(d.Rows)-1]
	if last.Server != "etcd" || last.Operation != "GET" || last.LikeProa || last.Rate.Median != 20 || last.P99.Median != 0.1 || last.Median.Rate != 750 || len(last.Rounds) != 2 || last.Rounds[1].Rate != 500 {
		t.Errorf("%+v", last)
	}
	if first := d.Rows[0]; first.Server != "Proa" || first.Rate != nil || !first.LikeProa {
		t.Errorf("%+v", first)
	}
}
