package main

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/proa-kv/proa/access"
	"github.com/proa-kv/proa/client"
	"github.com/proa-kv/proa/command"
	"github.com/proa-kv/proa/config"
	"github.com/proa-kv/proa/protocol"
)

// userAdministrator is a cluster with the users svc, who has logged in, and root. answer is
// what becomes of other requests than questions.
func userAdministrator(passwords int, answer error) *fakeAdministrator {
	svc := command.UserInfo{
		User:      access.User{Name: "svc", Roles: []string{"app", "monitor"}, Grants: []access.Grant{{Prefix: []byte("own/"), Rights: access.Write}}},
		Passwords: passwords, Holds: access.Monitor,
	}
	app := access.Role{Name: "app", Grants: []access.Grant{{Prefix: []byte{}, Rights: access.Read}}}
	monitor := access.Role{Name: "monitor", Rights: access.Monitor, Built: true}
	f := &fakeAdministrator{}
	f.answer = func(verb string, _ []byte) (any, error) {
		switch verb {
		case command.AdminUserSelf:
			f.requests = f.requests[:len(f.requests)-1]
			return command.Identity{Login: access.ByPassword, User: &svc, Granted: []access.Role{app, monitor}}, nil
		case command.AdminUserList:
			f.requests = f.requests[:len(f.requests)-1]
			root := command.UserInfo{User: access.User{Name: "root", Roles: []string{"admin"}}, Passwords: passwords, Holds: access.Admin | access.Monitor}
			return command.UserList{Users: []command.UserInfo{root, svc}, Roles: []access.Role{app, monitor}}, nil
		}
		return command.Done{Message: "done"}, answer
	}
	return f
}

// TestOwnPassword changes the password of the user of this program: never without the
// current one, and no output shows either.
func TestOwnPassword(t *testing.T) {
	const current, next = "my own password", "the next password"
	setUserConfig(t, nil)
	t.Setenv(config.EnvUser, "svc")
	t.Setenv(config.EnvPassword, current)
	t.Setenv(config.EnvNewPassword, next)
	refused := &client.Error{Op: "ADMIN", Status: protocol.StatusRefused, Err: client.ErrRefused, Message: "the current password is wrong"}
	own := func(more string) []string {
		return []string{`user.password {"name":"svc","current":"my own password"` + more + `}`}
	}
	password := `,"password":"the next password"`
	for _, x := range []struct {
		line      string
		passwords int
		answer    error
		status    int
		requests  []string
		text      string
	}{
		{"user passwd", 1, nil, exitDone, own(password), "user svc has a new password; connections that"},
		{"user passwd svc", 1, nil, exitDone, own(password), "user svc has a new password"},
		{"user passwd --keep-old", 1, nil, exitDone, own(password + `,"keep_old":true`), "until: proa user passwd svc --drop-old"},
		{"user passwd --drop-old", 2, nil, exitDone, own(`,"drop_old":true`), "has one password, the newest"},
		{"user passwd --drop-old", 1, nil, exitDone, nil, "user svc has no older password"},
		{"user passwd", 1, refused, exitFailed, own(password), "proa: the current password is wrong"},
		{"user passwd root", 1, nil, exitDone, []string{`user.set {"name":"root","mode":"change","newest":true,"passwords":["the next password"]}`}, "user root has a new password"},
		{"user passwd root --drop-old", 2, nil, exitDone, []string{`user.set {"name":"root","mode":"change","newest":true}`}, "user root has one password"},
		{"user passwd none", 1, nil, exitFailed, nil, `there is no user "none"`},
	} {
		f := userAdministrator(x.passwords, x.answer)
		status, out, errs := runCluster(f, strings.Fields(x.line)...)
		if status != x.status || !strings.Contains(out+errs, x.text) {
			t.Errorf("%s: status %d, %s%s", x.line, status, out, errs)
		}
		if !slices.Equal(f.requests, x.requests) {
			t.Errorf("%s asks for %q, want %q", x.line, f.requests, x.requests)
		}
		for _, secret := range []string{current, next} {
			if strings.Contains(out+errs, secret) {
				t.Errorf("%s shows a password: %s%s", x.line, out, errs)
			}
		}
	}
	t.Setenv(config.EnvPassword, "")
	f := userAdministrator(1, nil)
	if status, _, errs := runCluster(f, "user", "passwd"); status != exitUsage || !strings.Contains(errs, "there is no password for user svc") || len(f.requests) > 0 {
		t.Errorf("without the current one: status %d, %s, %q", status, errs, f.requests)
	}
}

// TestWhoAmI shows who has logged in, and by what rights come.
func TestWhoAmI(t *testing.T) {
	status, out, errs := runCluster(userAdministrator(1, nil), "user", "whoami")
	want := `user svc, logged in by password
login   password
roles   app, monitor
rights  monitor (role monitor)

KEYS        RIGHTS      FROM
(all keys)  read        role app
own/        read-write  its own, role app
`
	if diff := cmp.Diff(want, out); diff != "" || status != exitDone || errs != "" {
		t.Errorf("status %d, %s: %s", status, errs, diff)
	}
	_, out, _ = runCluster(userAdministrator(1, nil), "user", "whoami", "-o", "json")
	var who struct {
		Login, Name string
		Keys        []struct {
			Prefix      string
			Read, Write bool
			Roles       []string
			Own         bool
		}
	}
	if err := json.Unmarshal([]byte(out), &who); err != nil || who.Login != "password" || who.Name != "svc" || len(who.Keys) != 2 || !who.Keys[1].Write || !who.Keys[1].Own {
		t.Errorf("%v: %s", err, out)
	}
	if _, out, _ = runCluster(userAdministrator(1, nil), "user", "whoami", "-o", "raw"); out != "svc\n" {
		t.Errorf("raw: %q", out)
	}
}

// TestPasswordsAreNoArguments: what is on a command line is seen by others on the machine and
// kept by histories, that of the shell too.
func TestPasswordsAreNoArguments(t *testing.T) {
	for _, shell := range []bool{false, true} {
		forEachCommand(newRoot(&app{shell: shell, link: &connection{}}), func(c *cobra.Command) {
			c.Flags().VisitAll(func(f *pflag.Flag) {
				secret := strings.Contains(f.Name, "password") || strings.Contains(f.Name, "secret")
				if secret && f.Value.Type() != "bool" && !strings.HasSuffix(f.Name, "-file") {
					t.Errorf("%s: --%s takes a secret", c.CommandPath(), f.Name)
				}
			})
		})
	}
}

// TestShellCompletesNames: the shell offers commands below others, users, roles, and the
// values of flags.
func TestShellCompletesNames(t *testing.T) {
	s := &shell{app: &app{link: &connection{administrator: userAdministrator(1, nil)}}}
	for _, x := range []struct{ line, want string }{
		{"role", "add change list remove show"},
		{"user show", "root svc"},
		{"user show svc", ""},
		{"user list", ""},
		{"role remove", "app monitor"},
		{"user change svc --add-role", "app monitor"},
		{"role add x --right", "admin monitor"},
		{"role change app --right", "admin monitor none"},
		{"member drain", ""},
	} {
		got := s.complete(strings.Fields(x.line), "")
		slices.Sort(got)
		if fmt.Sprint(got) != "["+x.want+"]" {
			t.Errorf("%s: %v", x.line, got)
		}
	}
}
