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
	Name   string  `json:"name"` // of one of curves
	Points []point `json:"points"`
}

// restore returns the curve of a record.
func (r *recordedCurve) restore() (c curve, err error) {
	all := curves()
	at := slices.IndexFunc(all, func(c curve) bool { return c.name == r.Name })
	if at < 0 {
		return c, fmt.Errorf("there is no curve %q", r.Name)
	}
	if slices.ContainsFunc(r.Points, func(p point) bool { return len(p.Get) == 0 || len(p.Put) == 0 }) {
		return c, fmt.Errorf("curve %s: a point without samples", r.Name)
	}
	all[at].points = r.Points
	return all[at], nil
}

// check returns what is wrong with a record.
func (r *record) check() error {
	for i := range r.Curves {
		if _, err := r.Curves[i].restore(); err != nil {
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
		curve, err := r.Curves[i].restore()
		if err != nil {
			continue
		}
		c.Tables = append(c.Tables, curve.table())
		c.Charts = append(c.Charts, curve.charts()...)
		if len(c.Headlines) == 0 {
			c.Headlines = curve.headlines()
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
