//go:build linux

package growth

import (
	"bytes"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/proa-kv/proa/bench/rig"
)

// A smoke run of everything, with real servers.
func TestQuick(t *testing.T) {
	if testing.Short() {
		t.Skip("builds and starts servers")
	}
	dir := t.TempDir()
	program := build(t, dir)
	page, html := filepath.Join(dir, "page.md"), filepath.Join(dir, "page.html")
	o, err := parseFlags([]string{"-proa", program, "-dir", dir, "-quick", "-write", page, "-html", html}, io.Discard)
	if err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	if err := run(t.Context(), o, &out, io.Discard); err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{page, html} {
		b, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		for _, c := range curves() {
			if !strings.Contains(string(b), c.title) || !strings.Contains(out.String(), c.title) {
				t.Errorf("%s says nothing of %s", filepath.Base(path), c.name)
			}
		}
		if !strings.Contains(string(b), "smoke run") {
			t.Errorf("%s does not say that its figures mean nothing", filepath.Base(path))
		}
	}
	left, err := filepath.Glob(filepath.Join(dir, "proa-lab-*"))
	if err != nil || len(left) > 0 {
		t.Errorf("left behind: %v, %v", left, err)
	}
}

func TestFlags(t *testing.T) {
	for _, args := range [][]string{{"-rounds", "0"}, {"-step", "0s"}, {"-limit", "-1s"}, {"-only", "colours"}, {"more"}} {
		if _, err := parseFlags(args, io.Discard); err == nil {
			t.Errorf("%q is taken", args)
		}
	}
	o, err := parseFlags([]string{"-only", "nodes"}, io.Discard)
	if err != nil {
		t.Fatal(err)
	}
	if c := curvesOf(&o); len(c) != 1 || c[0].name != "nodes" || len(c[0].points) != 3 {
		t.Errorf("%+v", c)
	}
}

// A curve varies one thing.
func TestCurves(t *testing.T) {
	for _, c := range curves() {
		seen := map[float64]bool{}
		for _, p := range c.points {
			seen[c.x(&p)] = true
			if p.Value*p.Keys > dataMax && p.Value > usual.Value {
				t.Errorf("%s: %d keys with values of %d bytes", c.name, p.Keys, p.Value)
			}
			other := p.conditions
			switch c.name {
			case "connections":
				other.Connections = usual.Connections
			case "shards":
				other.Shards = usual.Shards
			case "value":
				other.Value, other.Keys = usual.Value, usual.Keys
			case "keys":
				other.Keys = usual.Keys
			case "nodes":
				other.Nodes = usual.Nodes
			}
			if other != usual {
				t.Errorf("%s varies more: %+v", c.name, p.conditions)
			}
		}
		if len(seen) != len(c.points) {
			t.Errorf("%s has points in the same place", c.name)
		}
	}
}

// Figures are medians, in the table and in the charts.
func TestFigures(t *testing.T) {
	c := curves()[0]
	c.points = c.points[:2]
	s := func(rate float64) rig.Sample {
		return rig.Sample{Rate: rate, P50: 1e3, P99: 2e6, P999: 3e6, Server: 3e3, Generator: 4e3, Failed: 1}
	}
	c.points[0].Get, c.points[0].Put = rig.Series{s(10), s(30), s(20)}, rig.Series{s(5)}
	c.points[1].Get, c.points[1].Put = rig.Series{s(40)}, rig.Series{s(6), s(7), s(8)}
	table := c.table()
	want := [][]string{
		{"1", "20", "1.0", "2,000", "3,000", "3.00", "5", "1.0", "2,000", "3,000", "3.00", "4"},
		{"4", "40", "1.0", "2,000", "3,000", "3.00", "7", "1.0", "2,000", "3,000", "3.00", "4"},
	}
	for i := range want {
		if got := strings.Join(table.Rows[i], "|"); got != strings.Join(want[i], "|") {
			t.Errorf("row %d: %s", i, got)
		}
	}
	charts := c.charts()
	if p := charts[0].Lines[0].Points; p[0].X != 1 || p[0].Y != 20 || p[1].Y != 40 {
		t.Errorf("rates of GET: %v", p)
	}
	if p := charts[1].Lines[3].Points; p[1].X != 4 || p[1].Y != 2000 {
		t.Errorf("p99 of PUT: %v", p)
	}
	if n := len(charts[1].Lines); n != 6 {
		t.Errorf("%d lines of latency", n)
	}
}

// The pages can be made again from the record of a run. What an old run has not
// measured is left out.
func TestRecord(t *testing.T) {
	dir := t.TempDir()
	m := &measurement{Lab: &rig.Lab{Data: dir}, options: options{Options: rig.Options{Proa: "true", Rounds: 1, Step: time.Second}}, curves: curves()}
	for _, c := range m.curves {
		for k := range c.points {
			s := rig.Series{{Rate: 1000 * float64(k+1), P50: 1e3, P99: 2e6, Server: 3e3, Generator: 4e3}}
			c.points[k].Get, c.points[k].Put = s, s
		}
	}
	first := rig.Options{JSON: filepath.Join(dir, "a.json"), HTML: filepath.Join(dir, "a.html"), Write: filepath.Join(dir, "a.md")}
	var out bytes.Buffer
	if err := m.record().outcome().Publish(&first, &out, io.Discard); err != nil {
		t.Fatal(err)
	}
	again := options{from: first.JSON, Options: rig.Options{HTML: filepath.Join(dir, "b.html"), Write: filepath.Join(dir, "b.md")}}
	if err := run(t.Context(), again, io.Discard, io.Discard); err != nil {
		t.Fatal(err)
	}
	for a, b := range map[string]string{first.HTML: again.HTML, first.Write: again.Write} {
		if x, y := read(t, a), read(t, b); x != y || strings.Contains(x, "p99.9") || !strings.Contains(x, "4,000") {
			t.Errorf("%s and %s are not the same, or not what was measured", a, b)
		}
	}
	if page := read(t, first.HTML); !strings.Contains(page, "<b>4,000</b><span>GETs per second</span>") {
		t.Error("the page does not begin with the figures under the usual conditions")
	}
	for _, text := range []string{"", "{}", `{"curves":[{"name":"colours"}]}`, `{"curves":[{"name":"keys","points":[{}]}]}`} {
		path := filepath.Join(dir, "bad.json")
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := readRecord(path); err == nil || !strings.Contains(err.Error(), "bad.json") {
			t.Errorf("%q: %v", text, err)
		}
	}
}

func read(t *testing.T, path string) string {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// build builds proa into dir.
func build(t *testing.T, dir string) string {
	t.Helper()
	path := filepath.Join(dir, "proa")
	if out, err := exec.Command("go", "build", "-o", path, "../../../cmd/proa").CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	return path
}
