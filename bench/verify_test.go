package bench

import (
	"strings"
	"testing"
)

// Which values a row may hold in the end, by what is known of its writes. Each
// write is sent at one time and acknowledged at another, or never.
func TestTrails(t *testing.T) {
	type write struct {
		thread     int
		version    uint64
		sent, done int64 // done 0: of unknown outcome
	}
	for name, tc := range map[string]struct {
		preloaded bool
		writes    []write
		right     []uint64
		wrong     []uint64
		absent    bool // the row may be missing
	}{
		"preloaded only":        {true, nil, []uint64{0}, []uint64{1}, false},
		"never written":         {false, nil, nil, []uint64{0, 1}, true},
		"written once":          {true, []write{{0, 1, 10, 20}}, []uint64{1}, []uint64{0, 2}, false},
		"one after the other":   {true, []write{{0, 1, 10, 20}, {0, 2, 21, 30}}, []uint64{2}, []uint64{0, 1}, false},
		"at the same time":      {true, []write{{0, 1, 10, 30}, {0, 2, 20, 40}}, []uint64{1, 2}, []uint64{0}, false},
		"answers cross":         {true, []write{{0, 2, 20, 30}, {0, 1, 10, 40}}, []uint64{1, 2}, []uint64{0}, false},
		"late answer to an old": {true, []write{{0, 1, 10, 20}, {0, 2, 25, 50}, {0, 3, 21, 60}}, []uint64{2, 3}, []uint64{0, 1}, false},
		"unknown":               {true, []write{{0, 1, 10, 0}}, []uint64{0, 1}, []uint64{2}, false},
		"unknown, then written": {true, []write{{0, 1, 10, 0}, {0, 2, 20, 30}}, []uint64{1, 2}, []uint64{0}, false},
		"unknown insert":        {false, []write{{0, 1, 10, 0}}, []uint64{1}, []uint64{0}, true},
		"two threads":           {true, []write{{0, 1, 10, 20}, {1, 2, 30, 40}}, []uint64{2}, []uint64{0, 1}, false},
		"two threads, other":    {true, []write{{1, 1, 10, 20}, {0, 2, 30, 40}}, []uint64{2}, []uint64{0, 1}, false},
		"two threads at once":   {true, []write{{0, 1, 10, 35}, {1, 2, 30, 40}}, []uint64{1, 2}, []uint64{0}, false},
	} {
		w, _ := FindWorkload("put")
		h := &Harness{load: Load{Workload: w, Keys: 10}, preloaded: tc.preloaded, trackers: []tracker{{}, {}}}
		h.rows = newRows(&h.load.Workload, 1)
		const row = 5
		for _, x := range tc.writes {
			a := Operation{Kind: KindUpdate, Row: row, Version: x.version}
			h.trackers[x.thread].record(&a, 1, x.sent, x.done, x.done != 0)
		}
		for _, v := range tc.right {
			if problem := h.checkRow(row, h.rows.AppendValue(nil, row, v), true); problem != "" {
				t.Errorf("%s: version %d %s", name, v, problem)
			}
		}
		for _, v := range tc.wrong {
			if h.checkRow(row, h.rows.AppendValue(nil, row, v), true) == "" {
				t.Errorf("%s: version %d is accepted", name, v)
			}
		}
		if got := h.checkRow(row, nil, false) == ""; got != tc.absent {
			t.Errorf("%s: may be absent: %v", name, got)
		}
	}
}

func TestJudgeNamesWhatIsWrong(t *testing.T) {
	w, _ := FindWorkload("put")
	h := &Harness{load: Load{Workload: w, Keys: 10}, preloaded: true, trackers: []tracker{{}}}
	h.rows = newRows(&h.load.Workload, 1)
	for _, tc := range []struct {
		value []byte
		want  string
	}{
		{h.rows.AppendValue(nil, 6, 0), "value of row 6"},
		{h.rows.AppendValue(nil, 5, 9), "version 9"},
		{[]byte("something else"), "never written"},
		{nil, "never written"},
	} {
		if got := h.checkRow(5, tc.value, true); !strings.Contains(got, tc.want) {
			t.Errorf("%q, want %q", got, tc.want)
		}
	}
}

func TestCounters(t *testing.T) {
	w, _ := FindWorkload("incr")
	h := &Harness{load: Load{Workload: w, Keys: 10}, preloaded: true, trackers: []tracker{{}, {}}}
	h.rows = newRows(&h.load.Workload, 1)
	a := Operation{Kind: KindIncr, Row: 3}
	h.trackers[0].record(&a, 1, 1, 2, true)
	h.trackers[1].record(&a, 1, 1, 2, true)
	h.trackers[1].record(&a, 1, 1, 0, false)
	for value, ok := range map[string]bool{"1": false, "2": true, "3": true, "4": false, "x": false, "-2": false} {
		if got := h.checkRow(3, []byte(value), true) == ""; got != ok {
			t.Errorf("%s: right %v, want %v", value, got, ok)
		}
	}
	if h.checkRow(4, []byte("0"), true) != "" || h.checkRow(4, []byte("1"), true) == "" {
		t.Error("a counter that was not touched")
	}
}

// Each row of a batch has a version of its own.
func TestBatchesAreFollowed(t *testing.T) {
	tr := tracker{}
	a := Operation{Kind: KindBatch, Version: 10, batch: []uint64{1, 2}}
	tr.record(&a, 3, 5, 6, true)
	if tr[1].writes[0].version != 10 || tr[2].writes[0].version != 13 {
		t.Errorf("%+v %+v", tr[1], tr[2])
	}
}
