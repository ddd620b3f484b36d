package main

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/proa-kv/proa/client"
	"github.com/proa-kv/proa/config"
	"github.com/proa-kv/proa/internal/certtest"
	"github.com/proa-kv/proa/internal/contexts"
	"github.com/proa-kv/proa/internal/render"
)

const testPassword = "correct horse battery staple"

// keyring returns a directory with ca.crt, ann.crt, ann.key, bob.crt, bob.key, and files
// with passwords.
func keyring(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	ca := certtest.NewAuthority("tests")
	expired := ca.Sign(&x509.Certificate{NotBefore: time.Now().Add(-2 * time.Hour), NotAfter: time.Now().Add(-time.Hour)})
	for _, err := range []error{
		ca.Write(dir, "ca"), certtest.Write(dir, "ann", ca.Client("ann")), certtest.Write(dir, "bob", ca.Client("bob")),
		certtest.Write(dir, "old", expired),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
	for name, content := range map[string]string{
		"password": testPassword + "\n", "other": "another password", "windows": testPassword + "\r\n", "empty": "", "line": "\n",
		"most": strings.Repeat("x", 256) + "\r\n", "large": strings.Repeat("x", 257), "endless": strings.Repeat("x", 1<<20),
		"lines": testPassword + "\nand more\n", "nonsense": "-----BEGIN CERTIFICATE-----\n",
	} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

// resolved is what a command logs in with, as far as it can be compared.
type resolved struct {
	User, Password, PasswordFrom, Cert, CA, ServerName, TLSFrom string
	TLS                                                         bool
}

func resolve(t *testing.T, given map[string]string, env map[string]string, named string, s contexts.Security) (resolved, *app, error) {
	t.Helper()
	setUserConfig(t, nil)
	for option, value := range env {
		t.Setenv(securityEnv[option], value)
	}
	var notes bytes.Buffer
	a := &app{given: given, context: named, link: &connection{}, Output: render.Output{Err: &notes}}
	got, err := a.security(t.Context(), &target{context: "prod", security: s})
	if err != nil {
		return resolved{}, a, err
	}
	var cfg client.Config
	got.logIn(&cfg)
	r := resolved{User: cfg.User, Password: cfg.Secret, PasswordFrom: got.passwordFrom, Cert: got.cert, CA: got.ca, TLS: cfg.TLS != nil, TLSFrom: got.tlsFrom}
	if cfg.Credentials != nil {
		if r.User, r.Password, err = cfg.Credentials(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	if cfg.TLS != nil {
		r.ServerName = cfg.TLS.ServerName
		if (cfg.TLS.RootCAs != nil) != (r.CA != "") || (len(cfg.TLS.Certificates) > 0) != (r.Cert != "") {
			t.Errorf("%+v", r)
		}
	}
	return r, a, nil
}

type options = map[string]string

// Each option is that of the flag, else that of the context which a flag names, else that of
// the environment, else that of the context; a password belongs to the user beside it.
func TestSecurityPrecedence(t *testing.T) {
	dir := keyring(t)
	in := func(name string) string { return filepath.Join(dir, name) }
	flag := func(name string) string { return "--" + name }
	prod := contexts.Security{User: "ann", PasswordFile: in("password"), TLS: &contexts.TLS{CA: in("ca.crt"), ServerName: "n1"}}
	for name, tt := range map[string]struct {
		flags, env options
		named      string // by --context
		context    contexts.Security
		want       resolved
	}{
		"nothing": {},
		"context": {context: prod, want: resolved{
			User: "ann", Password: testPassword, PasswordFrom: "password-file of context prod",
			TLS: true, TLSFrom: "tls of context prod", CA: in("ca.crt"), ServerName: "n1",
		}},
		"environment before the context": {env: options{optUser: "bob", optPassword: "x", optServerName: "n2"}, context: prod, want: resolved{
			User: "bob", Password: "x", PasswordFrom: config.EnvPassword, TLS: true, TLSFrom: "tls of context prod", CA: in("ca.crt"), ServerName: "n2",
		}},
		"the named context before the environment": {env: options{optUser: "bob", optPassword: "x", optServerName: "n2"}, named: "prod", context: prod, want: resolved{
			User: "ann", Password: testPassword, PasswordFrom: "password-file of context prod",
			TLS: true, TLSFrom: "tls of context prod", CA: in("ca.crt"), ServerName: "n1",
		}},
		"flags before all": {
			flags: options{optUser: "carl", optPasswordFile: in("other"), optTLSCert: in("bob.crt"), optTLSKey: in("bob.key"), optServerName: ""},
			env:   options{optUser: "bob", optPassword: "x"}, named: "prod", context: prod,
			want: resolved{
				User: "carl", Password: "another password", PasswordFrom: flag(optPasswordFile),
				TLS: true, TLSFrom: flag(optTLSCert), CA: in("ca.crt"), Cert: in("bob.crt"),
			},
		},
		"another user's password is not this one's": {flags: options{optUser: "bob", optTLSCert: in("bob.crt"), optTLSKey: in("bob.key")}, context: prod, want: resolved{
			TLS: true, TLSFrom: flag(optTLSCert), CA: in("ca.crt"), Cert: in("bob.crt"), ServerName: "n1", // the certificate logs in
		}},
		"the environment's password without a user": {flags: options{optUser: "bob"}, env: options{optPassword: "x"}, context: prod, want: resolved{
			User: "bob", Password: "x", PasswordFrom: config.EnvPassword, TLS: true, TLSFrom: "tls of context prod", CA: in("ca.crt"), ServerName: "n1",
		}},
		"nobody's password":              {env: options{optPassword: "x"}},
		"no user after all":              {flags: options{optUser: ""}, context: contexts.Security{User: "ann", PasswordFile: in("password")}},
		"a file in the environment":      {env: options{optUser: "ann", optPasswordFile: in("windows")}, want: resolved{User: "ann", Password: testPassword, PasswordFrom: config.EnvPasswordFile}},
		"the longest password":           {flags: options{optUser: "ann", optPasswordFile: in("most")}, want: resolved{User: "ann", Password: strings.Repeat("x", 256), PasswordFrom: flag(optPasswordFile)}},
		"authorities of the system":      {flags: options{optTLS: "true"}, want: resolved{TLS: true, TLSFrom: flag(optTLS)}},
		"TLS by a variable":              {env: options{optTLS: "1"}, want: resolved{TLS: true, TLSFrom: config.EnvTLS}},
		"TLS off by a flag":              {flags: options{optTLS: "false"}, env: options{optTLSCA: in("ca.crt")}, context: contexts.Security{TLS: &contexts.TLS{}}},
		"TLS off by a variable":          {env: options{optTLS: "false"}, context: contexts.Security{TLS: &contexts.TLS{CA: in("ca.crt")}}},
		"a server name without TLS":      {env: options{optServerName: "n1"}},
		"certificate of the environment": {env: options{optTLSCert: in("ann.crt"), optTLSKey: in("ann.key")}, want: resolved{TLS: true, TLSFrom: config.EnvTLSCert, Cert: in("ann.crt")}},
	} {
		t.Run(name, func(t *testing.T) {
			got, _, err := resolve(t, tt.flags, tt.env, tt.named, tt.context)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(tt.want, got); diff != "" {
				t.Error(diff)
			}
		})
	}
}

// What is wrong is said before a server is asked, with what to do, and without passwords.
func TestSecurityErrors(t *testing.T) {
	dir := keyring(t)
	in := func(name string) string { return filepath.Join(dir, name) }
	file := func(name string) options { return options{optUser: "ann", optPasswordFile: in(name)} }
	for name, tt := range map[string]struct {
		flags, env options
		want       string
	}{
		"file of nobody":      {flags: options{optPasswordFile: in("password")}, want: "--password-file needs a user; add --user, or set PROA_USER"},
		"no password":         {flags: options{optUser: "ann"}, want: "there is no password for user ann: it is asked for at a terminal only; give --password-file FILE, or set PROA_PASSWORD"},
		"long name":           {flags: options{optUser: strings.Repeat("x", 257)}, want: "has 257 bytes; the most is 256"},
		"missing":             {flags: file("missing"), want: "cannot read the password: " + in("missing") + ": no such file or directory"},
		"directory":           {flags: file("."), want: "is a directory"},
		"empty":               {flags: file("empty"), want: "the password in " + in("empty") + ": the file is empty"},
		"empty line":          {flags: file("line"), want: "is empty"},
		"too long":            {flags: file("large"), want: "is longer than 256 bytes"},
		"endless":             {flags: file("endless"), want: "the file has more than 4096 bytes"},
		"two lines":           {flags: file("lines"), want: "has more than one line"},
		"file twice":          {env: options{optUser: "ann", optPassword: testPassword, optPasswordFile: in("password")}, want: "both PROA_PASSWORD and PROA_PASSWORD_FILE are set; unset one"},
		"variable too long":   {env: options{optUser: "ann", optPassword: strings.Repeat("x", 257)}, want: "PROA_PASSWORD is longer than 256 bytes"},
		"variable of lines":   {env: options{optUser: "ann", optPassword: testPassword + "\n"}, want: "PROA_PASSWORD has more than one line"},
		"TLS perhaps":         {env: options{optTLS: "perhaps"}, want: `PROA_TLS is "perhaps"; write true or false`},
		"TLS and not":         {flags: options{optTLS: "false", optTLSCA: in("ca.crt")}, want: "--tls-ca has no effect with --tls=false"},
		"name without TLS":    {flags: options{optServerName: "n1"}, want: "--tls-server-name has no effect without TLS; add --tls or --tls-ca"},
		"no authorities":      {flags: options{optTLSCA: in("password")}, want: "--tls-ca: there is no certificate in " + in("password")},
		"damaged authorities": {env: options{optTLSCA: in("nonsense")}, want: "PROA_TLS_CA: there is no certificate in"},
		"missing authorities": {flags: options{optTLSCA: in("missing")}, want: "no such file"},
		"certificate alone":   {flags: options{optTLSCert: in("ann.crt")}, want: "--tls-cert needs --tls-key"},
		"key alone":           {env: options{optTLSKey: in("ann.key")}, want: "PROA_TLS_KEY needs PROA_TLS_CERT"},
		"pair of two sources": {flags: options{optTLSCert: in("ann.crt")}, env: options{optTLSKey: in("ann.key")}, want: "--tls-cert needs --tls-key"},
		"key of another":      {flags: options{optTLSCert: in("ann.crt"), optTLSKey: in("bob.key")}, want: "cannot be used: private key does not match public key"},
		"swapped":             {flags: options{optTLSCert: in("ann.key"), optTLSKey: in("ann.crt")}, want: "cannot be used: "},
		"expired":             {flags: options{optTLSCert: in("old.crt"), optTLSKey: in("old.key")}, want: "has expired on "},
		"of another user":     {flags: options{optUser: "ann", optTLSCert: in("bob.crt"), optTLSKey: in("bob.key")}, want: `is that of user "bob", not of ann; leave out the user, or give ann's password`},
	} {
		t.Run(name, func(t *testing.T) {
			_, a, err := resolve(t, tt.flags, tt.env, "", contexts.Security{})
			if err == nil || exitStatus(err) != exitUsage {
				t.Fatalf("%v, exit status %d", err, exitStatus(err))
			}
			if text := describe(err, a); !strings.Contains(text, tt.want) || strings.Contains(text, testPassword) || strings.Contains(text, "xxx") {
				t.Errorf("%s; want %s", text, tt.want)
			}
		})
	}
}

// A file with a password is read for each new connection.
func TestPasswordFileIsReadAgain(t *testing.T) {
	path := filepath.Join(keyring(t), "password")
	var cfg client.Config
	(&security{user: "ann", passwordFile: path}).logIn(&cfg)
	if err := os.WriteFile(path, []byte("a new password\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if user, secret, err := cfg.Credentials(t.Context()); user != "ann" || secret != "a new password" || err != nil {
		t.Error(user, secret, err)
	}
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	if _, _, err := cfg.Credentials(t.Context()); err == nil {
		t.Error("a file that is gone has a password")
	}
}

// Who may read a file with a password is noted, and no more.
func TestPasswordFileOfAll(t *testing.T) {
	path := filepath.Join(keyring(t), "password")
	for mode, want := range map[os.FileMode]bool{0o600: false, 0o400: false, 0o640: true, 0o604: true} {
		if err := os.Chmod(path, mode); err != nil {
			t.Fatal(err)
		}
		_, a, err := resolve(t, options{optUser: "ann", optPasswordFile: path}, nil, "", contexts.Security{})
		if err != nil {
			t.Fatal(err)
		}
		if note := a.Err.(*bytes.Buffer).String(); strings.Contains(note, "warning: others than its owner can read "+path) != want || !want && note != "" {
			t.Errorf("%v: %s", mode, note)
		}
	}
}

// A context keeps what the command line has, paths as absolute ones, and what it had
// before; never a password.
func TestKept(t *testing.T) {
	here, err := os.Getwd()
	if err != nil {
		t.Fatal(err)
	}
	in := func(name string) string { return filepath.Join(here, name) }
	before := contexts.Security{User: "ann", PasswordFile: "/ann", TLS: &contexts.TLS{CA: "/ca.crt", ServerName: "n1"}}
	for name, tt := range map[string]struct {
		before contexts.Security
		given  options
		want   contexts.Security
	}{
		"nothing": {},
		"all": {given: options{
			optUser: "ann", optPasswordFile: "pw", optTLSCA: "ca.crt", optTLSCert: "/c/ann.crt", optTLSKey: "../ann.key", optServerName: "n1",
		}, want: contexts.Security{User: "ann", PasswordFile: in("pw"), TLS: &contexts.TLS{
			CA: in("ca.crt"), Cert: "/c/ann.crt", Key: filepath.Join(filepath.Dir(here), "ann.key"), ServerName: "n1",
		}}},
		"system":          {given: options{optTLS: "true"}, want: contexts.Security{TLS: &contexts.TLS{}}},
		"kept":            {before: before, want: before},
		"one changed":     {before: before, given: options{optServerName: "n2"}, want: contexts.Security{User: "ann", PasswordFile: "/ann", TLS: &contexts.TLS{CA: "/ca.crt", ServerName: "n2"}}},
		"another user":    {before: before, given: options{optUser: "bob"}, want: contexts.Security{User: "bob", TLS: before.TLS}},
		"no user":         {before: before, given: options{optUser: ""}, want: contexts.Security{TLS: before.TLS}},
		"no TLS":          {before: before, given: options{optTLS: "false"}, want: contexts.Security{User: "ann", PasswordFile: "/ann"}},
		"no file":         {before: before, given: options{optPasswordFile: "", optTLSCA: "", optServerName: ""}, want: contexts.Security{User: "ann", TLS: &contexts.TLS{}}},
		"a file, not off": {given: options{optTLSCA: ""}},
	} {
		got, err := kept(tt.before, tt.given)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(tt.want, got); diff != "" {
			t.Errorf("%s: %s", name, diff)
		}
	}
	if before.TLS.ServerName != "n1" {
		t.Error("what was kept before has changed")
	}
}

// No help shows the password of the environment.
func TestHelpShowsNoPassword(t *testing.T) {
	setUserConfig(t, nil)
	t.Setenv(config.EnvUser, "ann")
	t.Setenv(config.EnvPassword, testPassword)
	for name, text := range helpTexts(t, &app{link: &connection{}}) {
		if strings.Contains(text, testPassword) {
			t.Errorf("help of %q: %s", name, text)
		}
	}
}

// Errors of logging in and of TLS say what to do.
func TestAdviceSecurity(t *testing.T) {
	cert := certtest.NewAuthority("x").Server("n1.example", "10.0.0.1").Leaf
	alert := func(text string) error { return &net.OpError{Op: "remote error", Err: errors.New("tls: " + text)} }
	verification := func(err error) error { return &tls.CertificateVerificationError{Err: err} }
	expired := func(from, to time.Duration) error {
		return verification(x509.CertificateInvalidError{Reason: x509.Expired, Cert: &x509.Certificate{NotBefore: time.Now().Add(from), NotAfter: time.Now().Add(to)}})
	}
	refused := &client.Error{Err: client.ErrUnauthenticated, Message: "wrong user name or password"}
	flag := &target{source: byFlag, endpoints: []string{"n1"}}
	variable := &target{source: byEnvironment, endpoints: []string{"n1"}}
	prod := &target{source: byContext, context: "prod", endpoints: []string{"n1", "n2"}}
	for name, tt := range map[string]struct {
		err    error
		login  *security
		target *target
		want   []string
	}{
		"nobody":                {refused, &security{}, flag, []string{"proa: the cluster requires a user and a password. Tried:", "Name a user: proa --user NAME --password-file FILE …", "asked for on a terminal"}},
		"nobody, environment":   {refused, &security{}, variable, []string{"export PROA_USER=NAME PROA_PASSWORD_FILE=FILE"}},
		"nobody, context":       {refused, &security{}, prod, []string{"proa context add prod n1 n2 --replace --user NAME --password-file FILE"}},
		"wrong file":            {refused, &security{user: "ann", passwordFile: "/pw"}, flag, []string{"no server accepts user ann with the password in /pw", "Check name and password"}},
		"wrong variable":        {refused, &security{user: "ann", password: testPassword, passwordFrom: config.EnvPassword}, flag, []string{"with the password in PROA_PASSWORD"}},
		"wrong entry":           {refused, &security{user: "ann", password: testPassword, passwordFrom: "the password"}, flag, []string{"with the password that was entered"}},
		"certificate no login":  {refused, &security{cert: "ann.crt"}, flag, []string{"no server accepts the certificate ann.crt as a login", "Log in with a password as well: proa --user NAME"}},
		"TLS required":          {client.ErrTLSRequired, &security{}, flag, []string{"the server requires TLS", "proa --tls-ca FILE …", "trusts: --tls"}},
		"TLS required, context": {client.ErrTLSRequired, &security{}, prod, []string{"proa context add prod n1 n2 --replace --tls-ca FILE"}},
		"no TLS":                {client.ErrNoTLS, &security{tlsFrom: config.EnvTLSCA}, flag, []string{"does not speak TLS", "asked for by PROA_TLS_CA", "--tls=false"}},
		"unknown authority":     {verification(x509.UnknownAuthorityError{}), &security{}, variable, []string{"unknown authority", "export PROA_TLS_CA=FILE"}},
		"wrong authority":       {verification(x509.UnknownAuthorityError{}), &security{ca: "/ca.crt"}, flag, []string{"No authority in /ca.crt has signed"}},
		"wrong name":            {verification(x509.HostnameError{Certificate: cert, Host: "n9"}), &security{}, flag, []string{"is for n1.example, 10.0.0.1, not for n9", "proa --tls-server-name n1.example …"}},
		"no name":               {verification(x509.HostnameError{Certificate: &x509.Certificate{}, Host: "n9"}), &security{}, flag, []string{"is for no name"}},
		"expired":               {expired(-2*time.Hour, -time.Hour), &security{}, flag, []string{"has expired on " + time.Now().Add(-time.Hour).Format(time.DateOnly), "renew"}},
		"not yet valid":         {expired(time.Hour, 2*time.Hour), &security{}, flag, []string{"not valid before", "Check the clock"}},
		"no server's":           {verification(x509.CertificateInvalidError{Reason: x509.IncompatibleUsage, Cert: cert}), &security{}, flag, []string{"cannot be used by a server"}},
		"certificate required":  {alert("certificate required"), &security{}, flag, []string{"proa --tls-cert FILE --tls-key FILE …"}},
		"certificate refused":   {alert("unknown certificate authority"), &security{cert: "ann.crt"}, flag, []string{"does not accept the certificate ann.crt", "tls.client_ca"}},
		"version":               {alert("protocol version not supported"), &security{}, flag, []string{"protocol version", "proa version"}},
	} {
		t.Run(name, func(t *testing.T) {
			err, code := tt.err, "tls"
			if errors.Is(err, client.ErrUnauthenticated) {
				code = "unauthenticated"
			} else {
				err = &client.TLSError{Endpoint: "n1:7400", ServerName: "n9", Err: err}
			}
			unavailable := &client.UnavailableError{Endpoints: []client.EndpointError{{Endpoint: "n1:7400", Err: err}}}
			a := &app{link: &connection{target: tt.target, security: tt.login}}
			p := explain(fmt.Errorf("while: %w", &client.Error{Op: "GET", Err: fmt.Errorf("%w: %w", context.DeadlineExceeded, unavailable)}), a)
			text := p.text()
			for _, want := range tt.want {
				if !strings.Contains(text, want) {
					t.Errorf("lacks %q:\n%s", want, text)
				}
			}
			if p.Code != code || p.Exit != exitServer || strings.Contains(text, testPassword) {
				t.Errorf("code %s, exit status %d:\n%s", p.Code, p.Exit, text)
			}
		})
	}
	denied := &client.Error{Op: "PUT", Err: client.ErrPermission, Message: "user ann may not do this"}
	if got, want := describe(denied, &app{link: &connection{}}), "proa: not permitted: user ann may not do this\nTo see what you may do: proa user whoami. An administrator can allow more: proa user change"; got != want {
		t.Error(got)
	}
}
