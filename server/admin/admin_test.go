package admin

import (
	"context"
	"errors"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

func TestRoutes(t *testing.T) {
	var notReady error
	gauge := prometheus.NewGauge(prometheus.GaugeOpts{Name: "proa_test_gauge"})
	gauge.Set(7)
	s, err := Listen("127.0.0.1:0", Source{
		Status:  func() ([]byte, error) { return []byte(`{"node":1}`), nil },
		Ready:   func() error { return notReady },
		Collect: gauge,
	})
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
		defer cancel()
		if err := s.Shutdown(ctx); err != nil {
			t.Error(err)
		}
	}()
	get := func(path string) (int, string) {
		t.Helper()
		r, err := http.Get("http://" + s.Addr().String() + path)
		if err != nil {
			t.Fatal(err)
		}
		defer r.Body.Close()
		b, err := io.ReadAll(r.Body)
		if err != nil {
			t.Fatal(err)
		}
		return r.StatusCode, string(b)
	}
	for path, want := range map[string]string{
		"/":             "/metrics",
		"/healthz":      "ok",
		"/readyz":       "ok",
		"/status":       `{"node":1}`,
		"/metrics":      "proa_test_gauge 7",
		"/debug/pprof/": "goroutine",
	} {
		if code, body := get(path); code != http.StatusOK || !strings.Contains(body, want) {
			t.Errorf("%s: %d, %.100q does not contain %q", path, code, body, want)
		}
	}
	if code, _ := get("/nothing"); code != http.StatusNotFound {
		t.Errorf("an unknown path: %d", code)
	}
	notReady = errors.New("shard 3 does not serve")
	if code, body := get("/readyz"); code != http.StatusServiceUnavailable || !strings.Contains(body, "shard 3") {
		t.Errorf("not ready: %d %q", code, body)
	}
	if code, _ := get("/healthz"); code != http.StatusOK {
		t.Errorf("alive but not ready: %d", code)
	}
	if _, err := Listen(s.Addr().String(), Source{}); err == nil || !strings.Contains(err.Error(), "--admin-listen") {
		t.Errorf("a port that is taken: %v", err)
	}
}
