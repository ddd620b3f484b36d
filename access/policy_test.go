package access

import (
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

var somebody = Hash("a password") // of all users here

func user(name string, roles ...string) *User {
	return &User{Name: name, Passwords: []string{somebody}, Roles: roles}
}

// directory is one with these changes.
func directory(t *testing.T, changes ...Change) *Directory {
	t.Helper()
	d := &Directory{}
	for _, c := range changes {
		var err error
		if d, err = d.With(c); err != nil {
			t.Fatal(err)
		}
	}
	return d
}

func TestPermits(t *testing.T) {
	d := directory(t,
		Change{Role: &Role{Name: "app", Grants: []Grant{{[]byte("app/"), ReadWrite}, {[]byte("shared/"), Read}}}},
		Change{Role: &Role{Name: "shared", Grants: []Grant{{[]byte("shared/in/"), Write}}}},
		Change{User: user("root", "admin")},
		Change{User: user("watcher", "monitor")},
		Change{User: user("svc", "app", "shared")},
		Change{User: &User{Name: "own", Certificate: true, Grants: []Grant{{[]byte("own/"), Read}}, Rights: Admin}},
		Change{User: &User{Name: "off", Passwords: []string{somebody}, Roles: []string{"admin"}, Disabled: true}},
		Change{User: user("nobody")},
	)
	d.Users[slices.IndexFunc(d.Users, func(u User) bool { return u.Name == "nobody" })].Roles = []string{"gone"} // as after a change by an earlier version
	p := d.Policy()
	for _, x := range []struct {
		user, key string
		want      Rights
	}{
		{"root", "anything", ReadWrite}, {"svc", "app/1", ReadWrite}, {"svc", "app", 0}, {"svc", "shared/1", Read},
		{"svc", "shared/in/1", ReadWrite}, {"svc", "other", 0}, {"own", "own/1", Read}, {"watcher", "app/1", 0}, {"nobody", "app/1", 0},
	} {
		a := p.Account(x.user)
		for _, need := range []Rights{Read, Write, ReadWrite} {
			if got, want := a.May([]byte(x.key), need), need&^x.want == 0; got != want {
				t.Errorf("%s may %v %s: %v", x.user, need, x.key, got)
			}
		}
	}
	for name, want := range map[string]Rights{"root": Monitor | Admin, "watcher": Monitor, "svc": 0, "own": Monitor | Admin} {
		if got := p.Account(name).Permit.Rights; got != want {
			t.Errorf("%s has %v, want %v", name, got, want)
		}
	}
	if p.Account("off") != nil || p.Account("unknown") != nil {
		t.Error("a user that is disabled or unknown has an account")
	}
}

func TestLoginsEnd(t *testing.T) {
	other := Hash("another password")
	before := directory(t, Change{User: user("root", "admin")}, Change{User: &User{Name: "u", Passwords: []string{somebody}, Certificate: true, Roles: []string{"readonly"}}}).Policy()
	password := Login{User: "u", hash: somebody, by: byPassword}
	certificate, ok := before.Certified("u")
	if _, also := before.Certified("root"); !ok || also {
		t.Fatalf("by certificate: u %v, root %v", ok, also)
	}
	for _, x := range []struct {
		name                  string
		u                     *User
		password, certificate bool
		newest, changing      bool
	}{
		{"nothing changed", &User{Name: "u", Passwords: []string{somebody}, Certificate: true}, true, true, true, true},
		{"an older password", &User{Name: "u", Passwords: []string{other, somebody}, Certificate: true}, true, true, true, true},
		{"a newer password", &User{Name: "u", Passwords: []string{somebody, other}, Certificate: true}, true, true, false, true},
		{"another password", &User{Name: "u", Passwords: []string{other}, Certificate: true}, false, true, false, true},
		{"no password", &User{Name: "u", Certificate: true}, false, true, false, true},
		{"without certificate", &User{Name: "u", Passwords: []string{somebody}}, true, false, true, true},
		{"disabled", &User{Name: "u", Passwords: []string{somebody}, Certificate: true, Disabled: true}, false, false, false, false},
		{"removed", nil, false, false, false, false},
	} {
		changes := []Change{{User: user("root", "admin")}}
		if x.u != nil {
			changes = append(changes, Change{User: x.u})
		}
		after := directory(t, changes...).Policy()
		if _, ok := after.Permit(&password, Nothing); ok != x.password {
			t.Errorf("%s: the login by password holds: %v", x.name, ok)
		}
		if _, ok := after.Permit(&certificate, Nothing); ok != x.certificate {
			t.Errorf("%s: the login by certificate holds: %v", x.name, ok)
		}
		if got := after.Newest(&password); got != x.newest {
			t.Errorf("%s: the password is the newest: %v", x.name, got)
		}
		changing := password.Changing()
		if _, ok := after.Permit(&changing, Nothing); ok != x.changing {
			t.Errorf("%s: the login whose password is changed holds: %v", x.name, ok)
		}
		if after.Newest(&certificate) || after.Newest(&changing) || after.Newest(&Login{}) {
			t.Errorf("%s: who has given no password has given the newest", x.name)
		}
	}
	if p, ok := before.Permit(&Local, Nothing); !ok || p != Everything {
		t.Error("the operator on the machine may not do everything")
	}
	for _, anonymous := range []*Permit{Nothing, Everything} {
		if p, ok := before.Permit(&Login{}, anonymous); !ok || p != anonymous {
			t.Error("nobody does not have what nobody may do")
		}
	}
}

func TestRefusedChanges(t *testing.T) {
	d := directory(t, Change{User: user("root", "admin")}, Change{Role: &Role{Name: "ops", Rights: Admin}}, Change{User: user("svc", "readonly")})
	many := make([]Grant, GrantsMax+1)
	for i := range many {
		many[i] = Grant{fmt.Append(nil, i), Read}
	}
	for _, x := range []struct {
		name string
		c    Change
		want error
		text string
	}{
		{"last administrator removed", Change{RemoveUser: "root"}, ErrRefused, "nobody would be left"},
		{"last administrator disabled", Change{User: &User{Name: "root", Passwords: []string{somebody}, Roles: []string{"admin"}, Disabled: true}}, ErrRefused, "nobody would be left"},
		{"last administrator's role taken", Change{User: user("root", "readwrite")}, ErrRefused, "nobody would be left"},
		{"last administrator without a password", Change{User: &User{Name: "root", Roles: []string{"admin"}}}, ErrRefused, "nobody would be left"},
		{"unknown user", Change{RemoveUser: "no"}, ErrRefused, "there is no user"},
		{"unknown role", Change{RemoveRole: "no"}, ErrRefused, "there is no role"},
		{"a role that names nothing", Change{User: user("svc", "no")}, ErrRefused, "the roles are: admin, monitor, ops, readonly, readwrite"},
		{"built-in role changed", Change{Role: &Role{Name: "admin"}}, ErrRefused, "built in"},
		{"built-in role removed", Change{RemoveRole: "readonly"}, ErrRefused, "built in"},
		{"empty name", Change{User: &User{}}, ErrInvalid, "empty"},
		{"long name", Change{Role: &Role{Name: strings.Repeat("n", NameBytesMax+1)}}, ErrInvalid, "at most 64"},
		{"name with a space", Change{User: user("a b")}, ErrInvalid, `" "`},
		{"name with a zero", Change{Role: &Role{Name: "a\x00"}}, ErrInvalid, "letters"},
		{"too many prefixes", Change{Role: &Role{Name: "r", Grants: many}}, ErrInvalid, "at most 256"},
		{"long prefix", Change{Role: &Role{Name: "r", Grants: []Grant{{make([]byte, PrefixBytesMax+1), Read}}}}, ErrInvalid, "at most 8192"},
		{"prefix twice", Change{Role: &Role{Name: "r", Grants: []Grant{{[]byte("a"), Read}, {[]byte("a"), Write}}}}, ErrInvalid, "twice"},
		{"grant of nothing", Change{Role: &Role{Name: "r", Grants: []Grant{{[]byte("a"), 0}}}}, ErrInvalid, "none"},
		{"admin of a prefix", Change{Role: &Role{Name: "r", Grants: []Grant{{[]byte("a"), Admin}}}}, ErrInvalid, "must be read, write"},
		{"keys without a prefix", Change{Role: &Role{Name: "r", Rights: Read}}, ErrInvalid, "belong to a prefix"},
		{"three passwords", Change{User: &User{Name: "svc", Passwords: []string{somebody, somebody, somebody}}}, ErrInvalid, "at most 2"},
		{"a damaged hash", Change{User: &User{Name: "svc", Passwords: []string{"secret"}}}, ErrInvalid, "damaged"},
		{"too many roles", Change{User: user("svc", slices.Repeat([]string{"ops"}, RolesOfUserMax+1)...)}, ErrInvalid, "at most 64"},
	} {
		before, _ := json.Marshal(d)
		_, err := d.With(x.c)
		if !errors.Is(err, x.want) || !strings.Contains(err.Error(), x.text) {
			t.Errorf("%s: %v", x.name, err)
		}
		if after, _ := json.Marshal(d); string(after) != string(before) {
			t.Errorf("%s: the directory has changed", x.name)
		}
	}
	two := directory(t, Change{User: user("root", "admin")}, Change{Role: &Role{Name: "ops", Rights: Admin}}, Change{User: user("other", "ops")}, Change{RemoveUser: "root"})
	if _, err := two.With(Change{Role: &Role{Name: "ops"}}); !errors.Is(err, ErrRefused) {
		t.Errorf("the right of the last administrator's role taken: %v", err)
	}
	if _, err := two.With(Change{RemoveRole: "ops"}); !errors.Is(err, ErrRefused) || !strings.Contains(err.Error(), "that of other") {
		t.Errorf("a role in use removed: %v", err)
	}
	// Without any administrator, as at first, everything goes.
	if _, err := (&Directory{Users: []User{*user("svc")}}).With(Change{RemoveUser: "svc"}); err != nil {
		t.Error(err)
	}
}

func TestFull(t *testing.T) {
	d := &Directory{}
	for i := range UsersMax {
		d.Users = append(d.Users, User{Name: fmt.Sprintf("u%04d", i)})
		d.Roles = append(d.Roles, Role{Name: fmt.Sprintf("r%04d", i)})
	}
	if _, err := d.With(Change{User: &User{Name: "more"}}); !errors.Is(err, ErrRefused) {
		t.Errorf("a user too many: %v", err)
	}
	if _, err := d.With(Change{Role: &Role{Name: "more"}}); !errors.Is(err, ErrRefused) {
		t.Errorf("a role too many: %v", err)
	}
	if _, err := d.With(Change{User: &User{Name: "u0000", Certificate: true}}); err != nil {
		t.Errorf("a change among so many: %v", err)
	}
}

func TestRowsRoundTrip(t *testing.T) {
	u := User{Name: "u", Passwords: []string{somebody}, Certificate: true, Roles: []string{"app"}, Grants: []Grant{{[]byte("\x00\xff"), ReadWrite}}, Rights: Monitor}
	b, err := json.Marshal(u)
	if err != nil {
		t.Fatal(err)
	}
	var back User
	if err := json.Unmarshal(b, &back); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(u, back); diff != "" {
		t.Errorf("%s: %s", b, diff)
	}
	for _, text := range []string{`{"rights":"root"}`, `{"grants":[{"rights":"read, write, fly"}]}`} {
		if err := json.Unmarshal([]byte(text), &back); !errors.Is(err, ErrInvalid) {
			t.Errorf("%s: %v", text, err)
		}
	}
}
