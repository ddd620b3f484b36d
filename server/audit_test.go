package server

import (
	"bytes"
	"context"
	"encoding/json"
	"slices"
	"strings"
	"testing"

	"github.com/proa-kv/proa/access"
	"github.com/proa-kv/proa/command"
	"github.com/proa-kv/proa/internal/audit"
	"github.com/proa-kv/proa/protocol"
)

// TestAudit: what is refused, over each protocol, and what administrators do stands in the
// audit log, and nothing secret does.
func TestAudit(t *testing.T) {
	var b bytes.Buffer
	trail, err := audit.Open(audit.Config{Out: &b, Node: 7})
	if err != nil {
		t.Fatal(err)
	}
	fc := newFakeCluster(t, Config{Authentication: true, Audit: trail}, 1, 1, 1)
	fc.allow(access.User{Name: "root", Roles: []string{"admin"}}, access.User{Name: "svc", Roles: []string{"readonly"}})
	n := fc.nodes[1]
	n.administers(func(_ context.Context, verb string, _ []byte) ([]byte, error) {
		if verb == command.AdminMemberRemove {
			return nil, command.ErrRefused
		}
		return []byte("{}"), nil
	})
	hello(t, n, "root", "a wrong password")
	hello(t, n, "", "")
	svc, root := loggedIn(t, n, "svc"), loggedIn(t, n, "root")
	want(t, svc.put("secret-key", "secret-value"), protocol.StatusPermission)
	for _, verb := range []string{command.AdminUserSet, command.AdminMemberRemove, command.AdminStatus} {
		m := protocol.Admin{Verb: []byte(verb), Args: []byte(`{"name":"new","node":2,"passwords":["secret-password"]}`)}
		root.call(protocol.OpAdmin, m.AppendTo(nil))
	}
	r := dialRedis(t, n.redisAddr)
	r.call("AUTH", "svc", "secret-guess")
	r.call("AUTH", "svc", testPassword)
	r.do("SET secret-key secret-value")
	r.do("CLIENT LIST")
	if _, err := n.srv.Authorize(t.Context(), "svc", "secret-guess", "10.0.0.1:1"); err == nil {
		t.Error("a wrong password is good")
	}
	if err := trail.Close(); err != nil {
		t.Fatal(err)
	}
	var got []string
	for line := range bytes.Lines(b.Bytes()) {
		var e audit.Event
		if err := json.Unmarshal(line, &e); err != nil {
			t.Fatal(err)
		}
		if e.Node != 7 || e.Remote == "" || (e.Outcome == audit.OK) != (e.Reason == "") {
			t.Errorf("%s", line)
		}
		got = append(got, strings.Join([]string{string(e.Kind), e.User, e.Door, e.Operation, e.Outcome}, " "))
	}
	expected := []string{
		"login root native HELLO refused", "login  native HELLO refused", "denied svc native PUT refused",
		"users root native user.set ok", "admin root native member.remove refused",
		"login svc redis AUTH refused", "denied svc redis PUT refused", "denied svc redis client|list refused", "login svc http  refused",
	}
	if !slices.Equal(got, expected) {
		t.Errorf("%q\nwant\n%q", got, expected)
	}
	if strings.Contains(b.String(), "secret") || strings.Contains(b.String(), testPassword) {
		t.Errorf("%s", &b)
	}
}
