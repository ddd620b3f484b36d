package bench

import (
	"errors"
	"maps"
	"strings"
	"testing"

	"github.com/proa-kv/proa/client"
	"github.com/proa-kv/proa/protocol"
)

// Every key of every workload is known as one of this package, and others are
// not.
func TestMadeHere(t *testing.T) {
	for _, w := range Workloads() {
		for _, sizes := range []string{"", "30..40"} {
			if sizes != "" {
				w.KeyBytes, _ = ParseSizes(sizes)
			}
			r := newRows(&w, 1)
			for row := range uint64(100) {
				k := r.AppendKey(nil, row*row*row*row)
				if !isRowKey(k) || !strings.HasPrefix(string(k), Prefix) || string(k) <= markerKey {
					t.Errorf("%s: %q", w.Name, k)
				}
			}
		}
	}
	for _, k := range []string{
		"", Prefix, markerKey, "key:000000000007", "_bench/k0000000", "_bench/k0000000w", "_bench/k00000000x", "_bench/k0000000.", "_bench/k00000000.x", "_bench/user1", "_bench/x00000000",
	} {
		if isRowKey([]byte(k)) {
			t.Errorf("%q is taken for a row of a load", k)
		}
	}
}

// A load begins only where no others have rows, and of those nothing is deleted.
func TestClaim(t *testing.T) {
	const mine, theirs = "_bench/k00000003", "_bench/hello"
	ours := `{"written_by":"proa bench"}`
	for name, tc := range map[string]struct {
		rows    map[string]string
		own     uint64
		foreign uint64
		example string
	}{
		"nothing":               {map[string]string{"key:000000000007": "theirs", "_bench": "theirs", "_bench0": "theirs"}, 0, 0, ""},
		"earlier rows":          {map[string]string{markerKey: ours, mine: "x", "_bench/c00000003": "1", "_bench/user0000000000000": "y"}, 3, 0, ""},
		"a marker only":         {map[string]string{markerKey: ours}, 0, 0, ""},
		"rows without a marker": {map[string]string{mine: "x", theirs: "y"}, 0, 2, theirs},
		"no lease":              {map[string]string{markerKey: ours, leaseRows + "x": "x"}, 0, 1, leaseRows + "x"},
		"another key":           {map[string]string{markerKey: ours, mine: "x", theirs: "y", "_bench/z": "z"}, 0, 2, theirs},
		"a marker of others":    {map[string]string{markerKey: "mine", mine: "x"}, 0, 2, markerKey},
	} {
		s := &fake{}
		h := mustOpen(t, loadOf(t, s, "get"))
		s.mu.Lock()
		maps.Copy(s.data, tc.rows)
		s.mu.Unlock()
		c, err := h.client(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { c.Close() })
		lease, err := h.Claim(t.Context())
		if err == nil {
			lease.End(t.Context())
		}
		e, refused := errors.AsType[*ForeignRowsError](err)
		if refused != (tc.foreign > 0) || refused && (e.Rows != tc.foreign || string(e.Example) != tc.example) || !refused && err != nil {
			t.Errorf("%s: %v", name, err)
		}
		if refused {
			n, err := DeleteRows(t.Context(), c)
			if _, still := errors.AsType[*ForeignRowsError](err); !still || n != 0 || !maps.Equal(s.rows(), tc.rows) {
				t.Errorf("%s: deleted %d, %v; left %v", name, n, err, s.rows())
			}
			continue
		}
		mustDelete(t, name, c, tc.own)
		mustDelete(t, name+", again", c, 0)
		for k := range s.rows() {
			if strings.HasPrefix(k, Prefix) || tc.rows[k] == "" {
				t.Errorf("%s: %s is left", name, k)
			}
		}
	}
}

// Rows that a load has claimed and written are its own afterwards, of all sorts.
func TestRowsOfLoads(t *testing.T) {
	s := &fake{}
	l := loadOf(t, s, "put")
	var c *client.Client
	for i, name := range []string{"put", "incr", "ycsb-d"} {
		l.Workload, _ = FindWorkload(name)
		h := mustOpen(t, l)
		lease := mustClaim(t, h)
		mustLoad(t, h)
		lease.End(t.Context())
		c, _ = h.client(t.Context())
		t.Cleanup(func() { c.Close() })
		if n, err := CountRows(t.Context(), c); err != nil || n != uint64(i+1)*l.Keys {
			t.Errorf("%d rows after %s, %v", n, name, err)
		}
	}
	mustDelete(t, "all", c, 3*l.Keys)
	if rows := s.rows(); len(rows) > 0 {
		t.Errorf("%d rows are left", len(rows))
	}
}

// While a load is under way the rows of all loads can be deleted, and what the load
// writes afterwards is its own nevertheless, also after somebody has deleted
// everything under Prefix.
func TestDeleteUnderWay(t *testing.T) {
	s := &fake{}
	l := loadOf(t, s, "put")
	long, short := mustOpen(t, l), mustOpen(t, l)
	c, err := long.client(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	lease, other := mustClaim(t, long), mustClaim(t, short)
	mustLoad(t, long)
	other.End(t.Context())
	mustDelete(t, "under way", c, l.Keys)
	mustLoad(t, long)
	if n, err := CountRows(t.Context(), c); err != nil || n != l.Keys {
		t.Errorf("%d rows after a cleanup under way, %v", n, err)
	}
	for _, again := range []struct {
		name string
		do   func()
	}{
		{"renewed", func() { _ = lease.renew(t.Context()) }},
		{"ended", func() { lease.End(t.Context()) }},
	} {
		s.mu.Lock()
		clear(s.data)
		s.mu.Unlock()
		mustLoad(t, long)
		again.do()
		if n, err := CountRows(t.Context(), c); err != nil || n != l.Keys {
			t.Errorf("%d rows after everything was deleted and the lease %s, %v", n, again.name, err)
		}
	}
	mustDelete(t, "afterwards", c, l.Keys)
}

// A load that begins while others delete keeps its marker: the marker is deleted
// only as it was before.
func TestDeleteMarkerOnce(t *testing.T) {
	s := &fake{}
	l := loadOf(t, s, "put")
	h := mustOpen(t, l)
	mustClaim(t, h).End(t.Context())
	c, err := h.client(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	conditional := false
	s.mu.Lock()
	s.answer = func(r request) []byte {
		if r.op != "DELETE" || r.key != markerKey {
			return nil
		}
		var m protocol.Delete
		conditional = m.Decode(r.body) == nil && m.Flags&protocol.WriteIfVersion != 0 && m.Version == 7
		return proaReply(r.id, protocol.StatusConditionFailed, written())
	}
	s.mu.Unlock()
	mustDelete(t, "a marker written meanwhile", c, 0)
	if !conditional {
		t.Error("the marker was deleted in whatever version")
	}
}

func mustClaim(t *testing.T, h *Harness) *Lease {
	t.Helper()
	l, err := h.Claim(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return l
}

func mustDelete(t *testing.T, name string, c *client.Client, want uint64) {
	t.Helper()
	if n, err := DeleteRows(t.Context(), c); err != nil || n != want {
		t.Errorf("%s: deleted %d rows, %v; want %d", name, n, err, want)
	}
}
