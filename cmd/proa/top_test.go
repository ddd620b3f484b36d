package main

import (
	"bytes"
	"context"
	"fmt"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/proa-kv/proa/command"
	"github.com/proa-kv/proa/internal/render"
)

func ptr[T any](v T) *T { return &v }

// topCluster is a picture of the cluster of tests, with node 3 away.
func topCluster() *topPicture {
	s := cluster()
	lose(s, 5000)
	p := &topPicture{Time: time.Date(2026, 1, 2, 14, 3, 22, 0, time.UTC), Cluster: s.Cluster, Health: command.Degraded, status: s}
	for i, n := range s.Nodes {
		r := topRow{ID: n.ID, State: n.State}
		if !n.Outdated() {
			r.Leaders, r.Replicas, r.Fsync = &s.Nodes[i].Leaders, &s.Nodes[i].Replicas, &s.Nodes[i].FsyncMicros
			r.Reads, r.Writes, r.RTT, r.CPU = ptr(123456.0*float64(i)), ptr(54321.2), ptr(1234.0/float64(i+1)), ptr(187.4*float64(i))
			r.Memory, r.Conns = ptr(float64(int64(i)<<30+300<<20)), ptr(1234)
		}
		p.Nodes = append(p.Nodes, r)
	}
	return p
}

// TestTopPicture: figures of a node that is away are dashes and not in the sums;
// 80 columns are enough.
func TestTopPicture(t *testing.T) {
	var text strings.Builder
	for _, l := range []render.Look{{}, {Columns: 80, Colour: true}} {
		var b bytes.Buffer
		top := &top{app: &app{Output: render.Output{Out: &b, Form: render.AsTable}}, order: "cpu", interval: time.Second, look: l}
		if err := top.draw(&b, topCluster(), l); err != nil {
			t.Fatal(err)
		}
		for line := range strings.Lines(ansi.ReplaceAllString(b.String(), "")) {
			if n := len([]rune(line)) - 1; l.Columns > 0 && n > l.Columns {
				t.Errorf("%d columns: %s", n, line)
			}
		}
		fmt.Fprintf(&text, "-- %d columns --\n%s", l.Columns, strings.ReplaceAll(b.String(), "\x1b", "␛"))
	}
	golden(t, filepath.Join("testdata", "status", "top.txt"), text.String())
}

func TestTopOrder(t *testing.T) {
	for order, want := range map[string]string{"node": "1 2 3", "reads": "2 1 3", "writes": "1 2 3", "rtt": "1 2 3", "cpu": "2 1 3", "mem": "2 1 3", "fsync": "1 2 3"} {
		p := topCluster()
		sortRows(p.Nodes, order)
		var ids []uint64
		for _, r := range p.Nodes {
			ids = append(ids, r.ID)
		}
		if got := strings.Trim(fmt.Sprint(ids), "[]"); got != want {
			t.Errorf("%s: %s, want %s", order, got, want)
		}
	}
}

func TestTopRates(t *testing.T) {
	var r topRow
	before, now := map[string]uint64{"GET": 10, "PING": 5}, map[string]uint64{"GET": 30, "SCAN": 2, "PUT": 7, "TXN": 1, "PING": 500, "STATUS": 9}
	r.rates(&before, &now, 2*time.Second)
	if diff := cmp.Diff([]float64{11, 4}, []float64{*r.Reads, *r.Writes}); diff != "" {
		t.Error(diff)
	}
}

// TestTopWaits: without a server it says so and asks again; a node that cannot be
// reached at its address has a line all the same.
func TestTopWaits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithTimeout(t.Context(), 2500*time.Millisecond)
		defer cancel()
		s := cluster()
		for i := range s.Nodes {
			s.Nodes[i].Client = ""
		}
		asked := 0
		f := &fakeAdministrator{answer: func(string, []byte) (any, error) {
			if asked++; asked == 1 {
				return nil, context.DeadlineExceeded
			}
			return s, nil
		}}
		var out, errs bytes.Buffer
		a := &app{link: &connection{administrator: f}, Output: render.Output{Out: &out, Err: &errs}}
		if status := a.run(ctx, []string{"top"}); status != 0 || errs.Len() == 0 || strings.Count(out.String(), "healthy") != 2 || !strings.Contains(out.String(), "\n1     up     1/4    -       -        -    127 µs  -    -    -\n") {
			t.Errorf("status %d, %s\n%s", status, &errs, &out)
		}
	})
	for line, says := range map[string]string{"top --sort size": "choose node", "top --interval 1ms": "at least 100ms", "top --count -1": "negative", "top -o raw": "choose table or jsonl"} {
		if status, _, errs := runCluster(answering(cluster()), strings.Fields(line)...); status != exitUsage || !strings.Contains(errs, says) {
			t.Errorf("%s: status %d, %s", line, status, errs)
		}
	}
}

// TestFrame: a terminal that is too low shows the beginning.
func TestFrame(t *testing.T) {
	got := render.Look{Columns: 30, Rows: 3}.Frame("a\nb\nc\nd\n")
	want := "\x1b[Ha\x1b[K\r\nb\x1b[K\r\n2 more lines: make the termina\x1b[K\x1b[J"
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}
