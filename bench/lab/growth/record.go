//go:build linux

package growth

import (
	"encoding/json"
	"fmt"
	"os"
	"slices"

	"github.com/proa-kv/proa/bench/report"
	"github.com/proa-kv/proa/bench/rig"
)

// record holds the figures of a run, from which the pages are made: with the run,
// or later from a file.
type record struct {
	Conditions []string        `json:"conditions"`
	Notes      []string        `json:"notes,omitempty"`
	Curves     []recordedCurve `json:"curves"`
}

type recordedCurve struct {
	Name   string          `json:"name"` // of one of curves
	Points []recordedPoint `json:"points"`
}

// recordedPoint is one point of a curve: the conditions and what was measured.
type recordedPoint struct {
	Connections int        `json:"connections"`
	Shards      int        `json:"shards"`
	ValueBytes  int        `json:"value_bytes"`
	Keys        uint64     `json:"keys"`
	Nodes       int        `json:"nodes"`
	Get         rig.Series `json:"get"`
	Put         rig.Series `json:"put"`
}

// add adds a curve and the samples of its points.
func (r *record) add(c *curve, figures []samples) {
	out := recordedCurve{Name: c.name}
	for i, p := range c.points {
		out.Points = append(out.Points, recordedPoint{p.connections, p.shards, p.value, p.keys, p.nodes, figures[i][0], figures[i][1]})
	}
	r.Curves = append(r.Curves, out)
}

// restore returns the curve of a record and the samples of its points.
func (r *recordedCurve) restore() (c curve, figures []samples, err error) {
	all := curves()
	at := slices.IndexFunc(all, func(c curve) bool { return c.name == r.Name })
	if at < 0 {
		return c, nil, fmt.Errorf("there is no curve %q", r.Name)
	}
	c = all[at]
	c.points = nil
	for _, p := range r.Points {
		c.points = append(c.points, point{connections: p.Connections, shards: p.Shards, value: p.ValueBytes, nodes: p.Nodes, keys: p.Keys})
		if len(p.Get) == 0 || len(p.Put) == 0 {
			return c, nil, fmt.Errorf("curve %s: a point without samples", r.Name)
		}
		figures = append(figures, samples{p.Get, p.Put})
	}
	return c, figures, nil
}

// check returns what is wrong with a record.
func (r *record) check() error {
	for i := range r.Curves {
		if _, _, err := r.Curves[i].restore(); err != nil {
			return err
		}
	}
	if len(r.Curves) == 0 {
		return fmt.Errorf("it holds no curve")
	}
	return nil
}

// outcome is what a run, or its record, has found.
func (r *record) outcome() *rig.Outcome {
	page := r.comparison()
	return &rig.Outcome{Page: page, Section: "growth", Markdown: page.Markdown(2, ""), JSON: r}
}

// comparison is what the pages show of a record without mistakes.
func (r *record) comparison() *report.Comparison {
	const chartsOfCurve = 3
	c := &report.Comparison{Title: "How throughput, latency and CPU time scale", Lines: r.Conditions, Notes: r.Notes, Columns: chartsOfCurve}
	for i := range r.Curves {
		curve, figures, err := r.Curves[i].restore()
		if err != nil {
			continue
		}
		c.Tables = append(c.Tables, curve.table(figures))
		c.Charts = append(c.Charts, curve.charts(figures)...)
		if len(c.Headlines) == 0 {
			c.Headlines = headlines(&curve, figures)
		}
	}
	return c
}

// readRecord reads what -json has written.
func readRecord(path string) (*record, error) {
	b, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	r := new(record)
	if err = json.Unmarshal(b, r); err == nil {
		err = r.check()
	}
	if err != nil {
		return nil, fmt.Errorf("%s is not a record of this program: %w", path, err)
	}
	return r, nil
}
