package server

import (
	"context"
	"encoding/json"
	"fmt"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/proa-kv/proa/access"
	"github.com/proa-kv/proa/command"
	"github.com/proa-kv/proa/protocol"
)

// userStore carries out user.set as nodes do, and has a node learn of it.
type userStore struct {
	fc   *fakeCluster
	late bool  // the node learns of it after the answer, and of another change before
	err  error // of every request

	mu    sync.Mutex
	dir   access.Directory
	asked int
}

// newUserStore has node 1 carry out user.set on these users.
func newUserStore(fc *fakeCluster, users ...access.User) *userStore {
	st := &userStore{fc: fc}
	fc.allow(users...)
	for _, u := range users {
		if u.Passwords == nil {
			u.Passwords = []string{testHash}
		}
		d, err := st.dir.With(access.Change{User: &u})
		if err != nil {
			fc.t.Fatal(err)
		}
		st.dir = *d
	}
	fc.nodes[1].administers(st.carryOut)
	return st
}

func (st *userStore) carryOut(_ context.Context, verb string, args []byte) ([]byte, error) {
	st.mu.Lock()
	defer st.mu.Unlock()
	st.asked++
	switch {
	case verb != command.AdminUserSet:
		return nil, fmt.Errorf("%w: %s is not for the backend", command.ErrInvalid, verb)
	case st.err != nil:
		return nil, st.err
	}
	var a command.UserArgs
	if err := json.Unmarshal(args, &a); err != nil {
		return nil, err
	}
	for _, p := range a.Passwords {
		a.Hashes = append(a.Hashes, access.Hash(p))
	}
	if err := st.edit(&a.UserEdit); err != nil {
		return nil, err
	}
	return json.Marshal(command.Done{Message: "changed"})
}

// edit edits a user. st.mu must be held.
func (st *userStore) edit(e *access.UserEdit) error {
	c, err := st.dir.EditUser(e)
	if err != nil {
		return err
	}
	d, err := st.dir.With(c)
	if err != nil {
		return err
	}
	before := st.dir
	st.dir = *d
	if !st.late {
		st.fc.nodes[1].policy.Store(d.Policy())
		return nil
	}
	go func() {
		st.fc.nodes[1].policy.Store(before.Policy())
		if !st.fc.renewed() {
			st.fc.t.Error("some connections do not follow the policy")
		}
		st.fc.nodes[1].policy.Store(d.Policy())
	}()
	return nil
}

// learned waits until the node knows of what has been done.
func (st *userStore) learned() {
	st.fc.t.Helper()
	st.mu.Lock()
	done := st.dir.Policy()
	st.mu.Unlock()
	if !within(func() bool {
		return cmp.Equal(done.Account("svc").Passwords, st.fc.nodes[1].policy.Load().Account("svc").Passwords)
	}) {
		st.fc.t.Fatal("the node does not learn of a change")
	}
}

// within looks until ok holds, for much longer than that takes.
func within(ok func() bool) bool {
	for end := time.Now().Add(10 * time.Second); !ok(); runtime.Gosched() {
		if time.Now().After(end) {
			return false
		}
	}
	return true
}

// admin sends an administrative request, and returns the answer to it.
func (d *dialer) admin(verb string, args any) protocol.Frame {
	d.t.Helper()
	b, err := json.Marshal(args)
	if err != nil {
		d.t.Fatal(err)
	}
	m := protocol.Admin{Verb: []byte(verb), Args: b}
	return d.call(protocol.OpAdmin, m.AppendTo(nil))
}

// closed waits until the server has said that a connection's user is not valid any more.
func (d *dialer) closed() {
	d.t.Helper()
	for {
		f, err := d.tryReceive()
		if err != nil {
			d.t.Fatalf("the end of a connection without a word: %v", err)
		}
		if f.ID == 0 && protocol.Status(f.Code) == protocol.StatusUnauthenticated {
			return
		}
	}
}

func (d *dialer) mustPut() {
	d.t.Helper()
	if f := d.put("key", "value"); protocol.Status(f.Code) != protocol.StatusOK {
		d.t.Errorf("a PUT: %v %q", protocol.Status(f.Code), f.Body)
	}
}

// renewed waits until all connections of users to node 1 follow its policy.
func (fc *fakeCluster) renewed() bool {
	n := fc.nodes[1]
	policy := n.policy.Load()
	return within(func() bool {
		all := true
		n.srv.conns.each(func(c *conn) {
			if g := c.grant.Load(); g.login != (access.Login{}) && g.policy != policy {
				all = false
			}
		})
		return all
	})
}

// TestOwnPassword has users change their own passwords, which the node of the connection
// learns of before or after the answer.
func TestOwnPassword(t *testing.T) {
	const second, third = "the second password", "the third password"
	for _, late := range []bool{false, true} {
		t.Run(fmt.Sprint("late ", late), func(t *testing.T) {
			fc := newFakeCluster(t, Config{Authentication: true}, 1, 1, 1)
			st := newUserStore(fc, access.User{Name: "root", Roles: []string{"admin"}}, access.User{Name: "svc", Roles: []string{"readwrite"}})
			st.mu.Lock()
			st.late = late
			st.mu.Unlock()
			change := func(d *dialer, a command.PasswordArgs) {
				t.Helper()
				if f := d.admin(command.AdminUserPassword, a); protocol.Status(f.Code) != protocol.StatusOK || string(f.Body) != `{"message":"changed"}` {
					t.Fatalf("%v %q", protocol.Status(f.Code), f.Body)
				}
				st.learned()
			}
			may := func(password string, want bool) {
				t.Helper()
				if _, f := hello(t, fc.nodes[1], "svc", password); (protocol.Status(f.Code) == protocol.StatusOK) != want {
					t.Errorf("a login with %q: %v", password, protocol.Status(f.Code))
				}
			}
			own, other := loggedIn(t, fc.nodes[1], "svc"), loggedIn(t, fc.nodes[1], "svc")
			change(own, command.PasswordArgs{Current: testPassword, Password: second})
			other.closed()
			if !fc.renewed() {
				t.Fatal("some connections do not follow the policy")
			}
			own.mustPut()
			may(second, true)
			may(testPassword, false)

			// The old one stays for a change-over, and ends by the new one.
			change(own, command.PasswordArgs{Name: "svc", Current: second, Password: third, KeepOld: true})
			may(second, true)
			may(third, true)
			old, f := hello(t, fc.nodes[1], "svc", second)
			if protocol.Status(f.Code) != protocol.StatusOK {
				t.Fatal(protocol.Status(f.Code))
			}
			if f := old.admin(command.AdminUserPassword, command.PasswordArgs{Current: second, DropOld: true}); protocol.Status(f.Code) != protocol.StatusRefused || !strings.Contains(string(f.Body), "the old password") {
				t.Errorf("the old one ends the new one: %v %q", protocol.Status(f.Code), f.Body)
			}
			change(old, command.PasswordArgs{Current: third, DropOld: true})
			if !fc.renewed() {
				t.Fatal("some connections do not follow the policy")
			}
			own.mustPut()
			old.mustPut() // it has given the new one
			may(third, true)
			may(second, false)
		})
	}
}

// TestOwnPasswordRefused: nothing is changed for who may not, and the connection stays what
// it was.
func TestOwnPasswordRefused(t *testing.T) {
	const next = "the next password"
	fc := newFakeCluster(t, Config{Authentication: true}, 1, 1, 1)
	st := newUserStore(fc, access.User{Name: "root", Roles: []string{"admin"}}, access.User{Name: "svc", Roles: []string{"readwrite"}})
	svc := loggedIn(t, fc.nodes[1], "svc")
	nobody := dial(t, newFakeCluster(t, Config{}, 1, 1, 1).nodes[1].addr)
	for _, x := range []struct {
		name   string
		d      *dialer
		args   any
		status protocol.Status
		text   string
	}{
		{"nobody", nobody, command.PasswordArgs{Current: testPassword, Password: next}, protocol.StatusRefused, "logged in by a password"},
		{"another user", svc, command.PasswordArgs{Name: "root", Current: testPassword, Password: next}, protocol.StatusRefused, `as svc, not as "root"`},
		{"short", svc, command.PasswordArgs{Current: testPassword, Password: "seven77"}, protocol.StatusBadRequest, "shorter than 8"},
		{"none", svc, command.PasswordArgs{Current: testPassword}, protocol.StatusBadRequest, "shorter than 8"},
		{"long", svc, command.PasswordArgs{Current: testPassword, Password: strings.Repeat("p", 257)}, protocol.StatusBadRequest, "longer than 256"},
		{"drop with a password", svc, command.PasswordArgs{Current: testPassword, Password: next, DropOld: true}, protocol.StatusBadRequest, "drop_old"},
		{"drop and keep", svc, command.PasswordArgs{Current: testPassword, KeepOld: true, DropOld: true}, protocol.StatusBadRequest, "drop_old"},
		{"no arguments", svc, []int{1}, protocol.StatusBadRequest, "arguments"},
		{"wrong", svc, command.PasswordArgs{Current: "a wrong password", Password: next}, protocol.StatusRefused, "the current password is wrong"},
		{"empty", svc, command.PasswordArgs{Password: next}, protocol.StatusRefused, "the current password is wrong"},
	} {
		f := x.d.admin(command.AdminUserPassword, x.args)
		if s := protocol.Status(f.Code); s != x.status || !strings.Contains(string(f.Body), x.text) {
			t.Errorf("%s: %v %q", x.name, s, f.Body)
		}
		if strings.Contains(string(f.Body), "password: ") || strings.Contains(string(f.Body), next) {
			t.Errorf("%s: a password in %q", x.name, f.Body)
		}
	}
	st.mu.Lock()
	if st.asked != 0 {
		t.Errorf("the backend was asked %d times", st.asked)
	}
	st.err = fmt.Errorf("%w: no", command.ErrRefused)
	st.mu.Unlock()
	svc.mustPut()

	// The cluster does not do it: the login is that of before.
	if f := svc.admin(command.AdminUserPassword, command.PasswordArgs{Current: testPassword, Password: next}); protocol.Status(f.Code) != protocol.StatusRefused {
		t.Errorf("a change that fails: %v", protocol.Status(f.Code))
	}
	fc.nodes[1].srv.conns.each(func(c *conn) {
		if l := c.grant.Load().login; l.User != "" && l.Method() != access.ByPassword {
			t.Errorf("the login after it: %+v", l)
		}
	})
	svc.mustPut()

	// Guesses wait longer each time.
	slow := false
	for range 10 {
		f := svc.admin(command.AdminUserPassword, command.PasswordArgs{Current: "a wrong password", Password: next})
		slow = slow || strings.Contains(string(f.Body), "the next attempt is accepted in")
	}
	if !slow {
		t.Error("guesses are not slowed down")
	}
	svc.mustPut()
}

// TestOwnPasswordOvertaken: a connection whose user is changed by an administrator while it
// changes its password does not go on.
func TestOwnPasswordOvertaken(t *testing.T) {
	yes := true
	another := access.UserEdit{Name: "svc", Hashes: []string{access.Hash("the administrator's")}, Newest: true}
	for name, x := range map[string]struct {
		e    access.UserEdit
		done bool // the user's own change was made, before the administrator's
	}{
		"disabled":         {access.UserEdit{Name: "svc", Disabled: &yes}, false},
		"another password": {another, false},
		"a later password": {another, true},
	} {
		t.Run(name, func(t *testing.T) {
			fc := newFakeCluster(t, Config{Authentication: true}, 1, 1, 1)
			st := newUserStore(fc, access.User{Name: "root", Roles: []string{"admin"}}, access.User{Name: "svc", Roles: []string{"readwrite"}})
			svc := loggedIn(t, fc.nodes[1], "svc")
			fc.nodes[1].administers(func(context.Context, string, []byte) ([]byte, error) {
				st.mu.Lock()
				defer st.mu.Unlock()
				if err := st.edit(&x.e); err != nil || x.done {
					return []byte("{}"), err
				}
				return nil, fmt.Errorf("%w: overtaken", command.ErrRefused)
			})
			svc.send(protocol.OpAdmin, (&protocol.Admin{Verb: []byte(command.AdminUserPassword), Args: []byte(`{"current":"` + testPassword + `","password":"the next password"}`)}).AppendTo(nil))
			svc.closed()
		})
	}
}

// TestSelf: everybody may ask who they are.
func TestSelf(t *testing.T) {
	ask := func(d *dialer) (id command.Identity) {
		t.Helper()
		f := d.admin(command.AdminUserSelf, struct{}{})
		if err := json.Unmarshal(f.Body, &id); err != nil {
			t.Fatalf("%v %q: %v", protocol.Status(f.Code), f.Body, err)
		}
		if strings.Contains(string(f.Body), "argon2") {
			t.Errorf("a hash in %q", f.Body)
		}
		return id
	}
	for _, authentication := range []bool{true, false} {
		fc := newFakeCluster(t, Config{Authentication: authentication}, 1, 1, 1)
		fc.allow(access.User{Name: "root", Roles: []string{"admin"}}, access.User{Name: "svc", Roles: []string{"monitor"}, Grants: grants("app/", access.Read)})
		svc := command.UserInfo{User: access.User{Name: "svc", Roles: []string{"monitor"}, Grants: grants("app/", access.Read)}, Passwords: 1, Holds: access.Monitor}
		monitor := access.Role{Name: "monitor", Rights: access.Monitor, Built: true}
		want := command.Identity{Login: "password", User: &svc, Granted: []access.Role{monitor}}
		if diff := cmp.Diff(want, ask(loggedIn(t, fc.nodes[1], "svc"))); diff != "" {
			t.Errorf("authentication %v: %s", authentication, diff)
		}
		if authentication {
			continue // nobody gets so far as to ask
		}
		want = command.Identity{Login: "none", Everything: true}
		if diff := cmp.Diff(want, ask(dial(t, fc.nodes[1].addr))); diff != "" {
			t.Errorf("nobody: %s", diff)
		}
	}
}
