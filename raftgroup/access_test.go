package raftgroup

import (
	"context"
	"encoding/json"
	"errors"
	"strings"
	"testing"

	"github.com/proa-kv/proa/access"
	"github.com/proa-kv/proa/command"
	"github.com/proa-kv/proa/raftgroup/placement"
)

// TestUsers has an operator add, change and remove users and roles: every node knows of it,
// also after a restart, and no change leaves the cluster without an administrator.
func TestUsers(t *testing.T) { onEngines(t, testUsers) }

func testUsers(t *testing.T, e placement.Engine) {
	c := newClusterOf(t, e, 3, 2)
	c.until("leaders", c.led)
	c.until("the map", func() bool { return c.settled(3) })
	ask := func(verb string, args any) (command.Done, error) {
		t.Helper()
		b, err := json.Marshal(args)
		if err != nil {
			t.Fatal(err)
		}
		answer, err := c.admin(verb, string(b))
		var done command.Done
		if err == nil {
			err = json.Unmarshal(answer, &done)
		}
		return done, err
	}
	must := func(verb string, args any, want string) {
		t.Helper()
		if done, err := ask(verb, args); err != nil || done.Message != want {
			t.Fatalf("%s: %q, %v", verb, done.Message, err)
		}
	}
	refused := func(verb string, args any, class error, want string) {
		t.Helper()
		if _, err := ask(verb, args); !errors.Is(err, class) || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", verb, err)
		}
	}
	edit := func(e access.UserEdit, passwords ...string) command.UserArgs {
		return command.UserArgs{UserEdit: e, Passwords: passwords}
	}
	must(command.AdminUserSet, edit(access.UserEdit{Name: "root", Mode: access.First, AddRoles: []string{"admin"}}, "the first password"), "user root added")
	refused(command.AdminUserSet, edit(access.UserEdit{Name: "other", Mode: access.First, AddRoles: []string{"admin"}}, "another password"), command.ErrRefused, "an administrator already")
	must(command.AdminRoleSet, access.RoleEdit{Name: "app", Mode: access.Add, Grants: []access.Grant{{Prefix: []byte("app/"), Rights: access.ReadWrite}}}, "role app added")
	must(command.AdminUserSet, edit(access.UserEdit{Name: "svc", AddRoles: []string{"app"}}, "a service's password"), "user svc added")
	refused(command.AdminUserSet, edit(access.UserEdit{Name: "svc", Mode: access.Add}), command.ErrRefused, "a user svc already")
	refused(command.AdminUserSet, edit(access.UserEdit{Name: "x", Mode: access.Only}), command.ErrRefused, "no user")
	refused(command.AdminUserSet, edit(access.UserEdit{Name: "svc"}, "short"), command.ErrInvalid, "shorter than 8")
	refused(command.AdminUserSet, edit(access.UserEdit{Name: "svc"}, strings.Repeat("p", 257)), command.ErrInvalid, "longer than 256")
	refused(command.AdminUserSet, edit(access.UserEdit{Name: "svc", Hashes: []string{access.Hash("a password")}}), command.ErrInvalid, "hashed by the server")
	refused(command.AdminUserSet, command.UserArgs{UserEdit: access.UserEdit{Name: "svc"}, DropPasswords: []string{"not the password"}}, command.ErrInvalid, "does not have this password")
	refused(command.AdminRoleRemove, command.NameArgs{Name: "app"}, command.ErrRefused, "that of svc")
	refused(command.AdminUserRemove, command.NameArgs{Name: "root"}, command.ErrRefused, "nobody would be left")
	refused(command.AdminUserRemove, command.NameArgs{Name: "a b"}, command.ErrInvalid, "letters")

	everywhere := func(what string, ok func(p *access.Policy) bool) {
		t.Helper()
		c.until(what, func() bool {
			for _, n := range c.nodes {
				if !ok(n.Access()) {
					return false
				}
			}
			return true
		})
	}
	may := func(p *access.Policy, user, key string, need access.Rights) bool {
		a := p.Account(user)
		return a != nil && a.May([]byte(key), need)
	}
	everywhere("the rights on all nodes", func(p *access.Policy) bool {
		return may(p, "svc", "app/1", access.ReadWrite) && !may(p, "svc", "other", access.Read) && p.Account("root").Can(access.Admin)
	})
	must(command.AdminRoleSet, access.RoleEdit{Name: "app", Mode: access.Only, Grants: []access.Grant{{Prefix: []byte("app/"), Rights: access.Read}}}, "role app changed")
	everywhere("fewer rights on all nodes", func(p *access.Policy) bool { return !may(p, "svc", "app/1", access.Write) })

	c.end(2)
	must(command.AdminUserSet, edit(access.UserEdit{Name: "late", Certificate: new(bool), AddRoles: []string{"readonly"}}), "user late added")
	c.start(2)
	everywhere("a user on the node that was down", func(p *access.Policy) bool { return may(p, "late", "k", access.Read) })

	answer, err := c.admin(command.AdminUserList, "")
	var list command.UserList
	if err := errors.Join(err, json.Unmarshal(answer, &list)); err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, u := range list.Users {
		names = append(names, u.Name)
		if u.Name == "root" && (u.Passwords != 1 || u.Holds&access.Admin == 0) {
			t.Errorf("%+v", u)
		}
	}
	if got := strings.Join(names, " "); got != "late root svc" || len(list.Roles) != len(access.BuiltIn)+1 {
		t.Errorf("users %s, %d roles", got, len(list.Roles))
	}
	if strings.Contains(string(answer), "argon2") {
		t.Errorf("the list has hashes: %s", answer)
	}
	must(command.AdminUserRemove, command.NameArgs{Name: "svc"}, "user svc removed; its connections are closed")
	must(command.AdminRoleRemove, command.NameArgs{Name: "app"}, "role app removed")
	everywhere("the user is gone", func(p *access.Policy) bool { return p.Account("svc") == nil })
}

// TestTwoAdministratorsRemoveEachOther: one of them stays.
func TestTwoAdministratorsRemoveEachOther(t *testing.T) {
	c := newCluster(t, 3, 1)
	c.until("three replicas", func() bool { return c.settled(3) })
	for _, name := range []string{"a", "b"} {
		args, _ := json.Marshal(command.UserArgs{UserEdit: access.UserEdit{Name: name, AddRoles: []string{"admin"}}, Passwords: []string{"a password"}})
		if _, err := c.admin(command.AdminUserSet, string(args)); err != nil {
			t.Fatal(err)
		}
	}
	outcomes := make(chan error, 2)
	n := c.nodes[c.leader(c.any().meta()).id]
	for _, name := range []string{"a", "b"} {
		go func() {
			_, err := n.Admin(context.Background(), command.AdminUserRemove, []byte(`{"name":"`+name+`"}`))
			outcomes <- err
		}()
	}
	var errs []error
	c.until("both are answered", func() bool {
		select {
		case err := <-outcomes:
			errs = append(errs, err)
		default:
		}
		return len(errs) == 2
	})
	if (errs[0] == nil) == (errs[1] == nil) {
		t.Errorf("%v, %v", errs[0], errs[1])
	}
	if !c.any().cmap.Load().Access.Administered() {
		t.Error("nobody can administer")
	}
}
