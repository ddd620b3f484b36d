package main

import (
	"context"
	"fmt"
	"net"
	"os"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/proa-kv/proa/client"
	"github.com/proa-kv/proa/config"
	"github.com/proa-kv/proa/internal/contexts"
)

// setUserConfig gives the test a directory of contexts and clears the
// environment of others.
func setUserConfig(t *testing.T, s *contexts.Set) {
	t.Helper()
	dir := t.TempDir()
	for _, variable := range []string{"XDG_CONFIG_HOME", "HOME", "AppData"} {
		t.Setenv(variable, dir)
	}
	t.Setenv(config.EnvEndpoints, "")
	t.Setenv(config.EnvContext, "")
	for _, variable := range securityEnv {
		t.Setenv(variable, "")
	}
	if s != nil {
		if err := updateContexts(func(to *contexts.Set) error { *to = *s; return nil }); err != nil {
			t.Fatal(err)
		}
	}
}

func TestTarget(t *testing.T) {
	ann := contexts.Security{User: "ann", TLS: &contexts.TLS{CA: "/ca.crt"}}
	prod := contexts.Context{Endpoints: []string{"p1", "p2"}, Cluster: 7, Security: ann}
	test := contexts.Context{Endpoints: []string{"t1"}}
	setUserConfig(t, &contexts.Set{Contexts: map[string]contexts.Context{"prod": prod, "test": test}})
	find := func(a *app) (*target, error) { a.link = &connection{}; return a.target() }
	check := func(name string, a *app, want target) {
		t.Helper()
		got, err := find(a)
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if diff := cmp.Diff(&want, got, cmp.AllowUnexported(target{})); diff != "" {
			t.Errorf("%s: %s", name, diff)
		}
	}
	check("nothing", &app{}, target{source: byDefault, endpoints: []string{defaultEndpoint}, known: []string{"prod", "test"}})
	if err := updateContexts(func(s *contexts.Set) error { s.Current = "test"; return nil }); err != nil {
		t.Fatal(err)
	}
	check("current", &app{}, target{source: byContext, endpoints: test.Endpoints, context: "test"})
	t.Setenv(config.EnvContext, "prod")
	check("PROA_CONTEXT", &app{}, target{source: byContext, endpoints: prod.Endpoints, context: "prod", cluster: 7, security: ann})
	t.Setenv(config.EnvEndpoints, "a,b")
	check("PROA_ENDPOINTS", &app{}, target{source: byEnvironment, endpoints: []string{"a", "b"}})
	check("--context", &app{context: "prod"}, target{source: byContext, endpoints: prod.Endpoints, context: "prod", cluster: 7, security: ann})
	check("--endpoints", &app{endpoints: []string{"x"}}, target{source: byFlag, endpoints: []string{"x"}})

	if _, err := find(&app{context: "none"}); exitStatus(err) != exitUsage || !strings.Contains(err.Error(), "prod, test") {
		t.Errorf("%v", err)
	}
	// A damaged file stops only commands that need it.
	path, err := contexts.Path()
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte("{"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := find(&app{endpoints: []string{"x"}}); err != nil {
		t.Error(err)
	}
	t.Setenv(config.EnvEndpoints, "")
	if _, err := find(&app{}); exitStatus(err) != exitUsage || !strings.Contains(err.Error(), path) {
		t.Errorf("%v", err)
	}
}

// Who is told to start a server although there is a cluster founds a second one.
func TestAdviceUnreachable(t *testing.T) {
	refused := fmt.Errorf("dial: %w", errRefused)
	other := &net.DNSError{Err: "no such host", Name: "n1"}
	peerPort := func(use string) error {
		return fmt.Errorf("%w: this is Proa's peer port; Proa clients use %s", client.ErrHandshake, use)
	}
	wrong := &client.WrongClusterError{Endpoint: "n1:7400", Want: 7, Got: 8}
	for _, tt := range []struct {
		name    string
		target  target
		errs    []error
		want    []string
		wantNot string
	}{
		{"nothing named", target{source: byDefault}, []error{refused}, []string{"a new, empty server here: proa serve", "start it again with the options and the data directory", "PROA_ENDPOINTS"}, ""},
		{"something else answers there", target{source: byDefault}, []error{client.ErrHandshake}, []string{"proa -e"}, "proa serve"},
		{"another port of Proa", target{source: byFlag, endpoints: []string{"n1:7401"}}, []error{peerPort("n9:7400")}, []string{"server: proa -e n9:7400 …"}, "proa serve"},
		{"another port of a server at all addresses", target{source: byEnvironment, endpoints: []string{"n1:7401"}}, []error{peerPort("port 7500")}, []string{"export PROA_ENDPOINTS=n1:7500"}, "proa serve"},
		{"another port, in a context", target{source: byContext, context: "prod", endpoints: []string{"n1:7401"}}, []error{peerPort("n9:7400")}, []string{"proa context add prod n9:7400 --replace"}, "proa serve"},
		{"a broken server", target{source: byFlag, endpoints: []string{"n1"}}, []error{fmt.Errorf("%w: reply to an unknown request", client.ErrProtocol)},
			[]string{"no server gave a reply that can be read. Tried:\n  n1:7400: protocol error: reply to", "breaks Proa's protocol"}, "network"},
		{"contexts known", target{source: byDefault, known: []string{"prod", "test"}}, []error{refused}, []string{"prod, test", "proa context use"}, "proa serve"},
		{"one by flag", target{source: byFlag, endpoints: []string{"n1"}}, []error{refused}, []string{"Start this server of the cluster again", "proa -e n1,OTHER:7400"}, "proa serve"},
		{"one by environment", target{source: byEnvironment, endpoints: []string{"n1"}}, []error{refused}, []string{"export PROA_ENDPOINTS=n1,OTHER:7400"}, "proa serve"},
		{"one with a port", target{source: byFlag, endpoints: []string{"n1:7430"}}, []error{refused}, []string{"proa -e n1:7430,OTHER:7430 …"}, "proa serve"},
		{"one was named, others were tried", target{source: byFlag, endpoints: []string{"n1"}}, []error{refused, refused}, nil, "OTHER"},
		{"several", target{source: byFlag, endpoints: []string{"n1", "n2"}}, []error{refused, refused}, []string{"Start the servers of the cluster again"}, "proa serve"},
		{"not only refused", target{source: byFlag, endpoints: []string{"n1", "n2"}}, []error{refused, other}, []string{"Check the address and the network"}, "proa serve"},
		{"a context", target{source: byContext, context: "prod", endpoints: []string{"n1"}}, []error{refused}, []string{"proa context add prod n1 OTHER:7400 --replace"}, "proa serve"},
		{"another cluster", target{source: byContext, context: "prod", cluster: 7, endpoints: []string{"n1", "n2"}}, []error{wrong, refused},
			[]string{"Nothing was sent", "proa context add prod n1 n2 --replace", "proa context show prod"}, "proa serve"},
	} {
		e := &client.UnavailableError{}
		for _, err := range tt.errs {
			e.Endpoints = append(e.Endpoints, client.EndpointError{Endpoint: "n1:7400", Err: err})
		}
		tt.target.endpoints = append([]string(nil), tt.target.endpoints...)
		a := &app{link: &connection{target: &tt.target}}
		got := describe(&client.Error{Op: "HELLO", Err: fmt.Errorf("%w: %w", context.DeadlineExceeded, e)}, a)
		for _, want := range tt.want {
			if !strings.Contains(got, want) {
				t.Errorf("%s: lacks %q:\n%s", tt.name, want, got)
			}
		}
		if tt.wantNot != "" && strings.Contains(got, tt.wantNot) {
			t.Errorf("%s: advises %q:\n%s", tt.name, tt.wantNot, got)
		}
	}
}
