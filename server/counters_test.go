package server

import (
	"encoding/json"
	"testing"

	"github.com/proa-kv/proa/protocol"
)

// STATUS tells the CPU time of the process, which never shrinks.
func TestStatusTellsCPU(t *testing.T) {
	d := newFakeCluster(t, Config{}, 1, 1, 1).nodes[1].client()
	var last int64
	for range 3 {
		f := d.call(protocol.OpStatus, nil)
		want(t, f, protocol.StatusOK)
		var s struct {
			Server struct {
				CPU int64 `json:"cpu_us"`
			} `json:"server"`
		}
		if err := json.Unmarshal(f.Body, &s); err != nil {
			t.Fatal(err)
		}
		if s.Server.CPU <= 0 || s.Server.CPU < last {
			t.Errorf("%d µs after %d", s.Server.CPU, last)
		}
		last = s.Server.CPU
	}
}
