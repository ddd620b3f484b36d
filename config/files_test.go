package config

import (
	"strings"
	"testing"
)

// TestFileBudget: whatever the limit, the parts fit into it, clients never get
// what others need, and nothing is refused that could work.
func TestFileBudget(t *testing.T) {
	for _, tt := range []struct {
		name     string
		settings []string
		limit    uint64
		clients  int // -1: refused
	}{
		{"not known", nil, 0, 10_000},
		{"high", nil, 1 << 20, 10_000},
		{"unlimited", nil, 1<<64 - 1, 10_000},
		{"low", nil, 1024, 450},
		{"low, alone", []string{"listen.peer=off"}, 1024, 650},
		{"low, with TLS", []string{"tls.cert=c", "tls.key=k"}, 1024, 320},
		{"high, with TLS", []string{"tls.cert=c", "tls.key=k"}, 1 << 20, 10_000},
		{"low and few are wanted", []string{"concurrency.max_connections=50"}, 1024, 50},
		{"very low", nil, 256, 40},
		{"too low", nil, 128, -1},
		{"too low for the log", []string{"raft.log_segment_size=1MiB", "raft.log_size_max=16GiB"}, 1024, -1},
	} {
		t.Run(tt.name, func(t *testing.T) {
			args := []string{"--admin-listen=127.0.0.1:7402"}
			for _, s := range tt.settings {
				args = append(args, "--set", s)
			}
			c := mustLoad(t, sources{args: args})
			b, err := c.FileBudget(tt.limit)
			if tt.clients < 0 {
				if err == nil || !strings.Contains(err.Error(), "ulimit -n") {
					t.Fatalf("got %+v, %v; want a refusal that says what to do", b, err)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if b.Clients < tt.clients || tt.limit == 0 && b.Clients != tt.clients {
				t.Errorf("%d connections for clients, want %d: %+v", b.Clients, tt.clients, b)
			}
			if sum := b.taken() + b.Clients; tt.limit != 0 && uint64(sum) > tt.limit {
				t.Errorf("%d files are given out of %d: %+v", sum, tt.limit, b)
			}
			if b.State < 64 {
				t.Errorf("%d files for the state: %+v", b.State, b)
			}
			if n := b.Needed(10_000); n < b.taken() && tt.limit < 1<<20 {
				t.Errorf("needs %d: %+v", n, b)
			}
		})
	}
}
