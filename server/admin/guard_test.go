package admin

import (
	"context"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/proa-kv/proa/access"
)

// TestGuard asks for every path as everybody.
func TestGuard(t *testing.T) {
	permits := map[string]*access.Permit{"root": access.Everything, "watcher": {Rights: access.Monitor}, "svc": {Reads: access.Everything.Reads, Writes: access.Everything.Writes}}
	s, err := Listen("127.0.0.1:0", Source{
		Status:  func() ([]byte, error) { return []byte("{}"), nil },
		Ready:   func() error { return nil },
		Collect: prometheus.NewGauge(prometheus.GaugeOpts{Name: "proa_test_gauge"}),
		Authorize: func(_ context.Context, user, password, address string) (*access.Permit, error) {
			switch {
			case !strings.HasPrefix(address, "127.0.0.1:"):
				t.Errorf("an address %q", address)
			case user == "slow":
				return nil, &access.SlowDownError{After: 1500 * time.Millisecond}
			case user == "crowd":
				return nil, access.ErrCrowded
			}
			if p := permits[user]; p != nil && password == "good" {
				return p, nil
			}
			return nil, access.ErrWrong
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = s.Shutdown(context.Background()) }()
	type caller struct{ user, password string }
	ask := func(path string, c caller) (*http.Response, string) {
		t.Helper()
		r, _ := http.NewRequest("GET", "http://"+s.Addr().String()+path, nil)
		if c.user != "" {
			r.SetBasicAuth(c.user, c.password)
		}
		answer, err := http.DefaultClient.Do(r)
		if err != nil {
			t.Fatal(err)
		}
		defer answer.Body.Close()
		b, _ := io.ReadAll(answer.Body)
		return answer, string(b)
	}
	root, watcher, svc := caller{"root", "good"}, caller{"watcher", "good"}, caller{"svc", "good"}
	const everybody = access.Rights(0)
	for path, need := range map[string]access.Rights{
		"/": everybody, "/healthz": everybody, "/readyz": everybody, "/status": access.Monitor, "/metrics": access.Monitor,
		"/debug/pprof/": access.Admin, "/debug/pprof/heap": access.Admin, "/debug/pprof/cmdline": access.Admin, "/debug/pprof/symbol": access.Admin,
		"/debug/pprof/profile?seconds=1": access.Admin, "/debug/pprof/trace?seconds=1": access.Admin,
	} {
		for c, want := range map[caller]int{
			root: 200, watcher: map[bool]int{true: 200, false: 403}[need != access.Admin], svc: map[bool]int{true: 200, false: 403}[need == everybody],
			{}: 401, {"root", "bad"}: 401, {"slow", "good"}: 429, {"crowd", "good"}: 503,
		} {
			if need == everybody {
				want = 200
			}
			answer, body := ask(path, c)
			got := answer.StatusCode
			if got != want {
				t.Errorf("%s by %s: %d %q, want %d", path, c.user, got, body, want)
			}
			if asks := answer.Header.Get("WWW-Authenticate") != ""; asks != (got == 401) {
				t.Errorf("%s by %s: %d, and asks for credentials: %v", path, c.user, got, asks)
			}
			if got == 429 && answer.Header.Get("Retry-After") != "2" {
				t.Errorf("%s by %s: retry after %q", path, c.user, answer.Header.Get("Retry-After"))
			}
		}
	}
}
