package main

import (
	"cmp"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/proa-kv/proa/client"
	"github.com/proa-kv/proa/config"
	"github.com/proa-kv/proa/internal/contexts"
	"github.com/proa-kv/proa/internal/render"
	"github.com/proa-kv/proa/protocol"
)

// How commands log in to servers. Each option can stand on the command line, in the
// environment, or in a context. A password itself stands in none of them but the
// environment: the arguments of a process can be read by others, and shells keep them.

// The options. The names are those of the flags.
const (
	optUser         = "user"
	optPasswordFile = "password-file"
	optPassword     = "password" // has no flag
	optTLS          = "tls"
	optTLSCA        = "tls-ca"
	optTLSCert      = "tls-cert"
	optTLSKey       = "tls-key"
	optServerName   = "tls-server-name"
)

// securityEnv has the environment variable of each option.
var securityEnv = map[string]string{
	optUser: config.EnvUser, optPasswordFile: config.EnvPasswordFile, optPassword: config.EnvPassword,
	optTLS: config.EnvTLS, optTLSCA: config.EnvTLSCA, optTLSCert: config.EnvTLSCert, optTLSKey: config.EnvTLSKey,
	optServerName: config.EnvTLSServerName,
}

func addSecurityFlags(f *pflag.FlagSet) {
	f.String(optUser, "", "`name` of the user to log in as; also "+config.EnvUser)
	f.String(optPasswordFile, "", "`file` with the user's password; also "+config.EnvPasswordFile)
	f.Bool(optTLS, false, "encrypt connections with TLS; also "+config.EnvTLS)
	f.String(optTLSCA, "", "`file` (PEM) of authorities that sign servers' certificates; also "+config.EnvTLSCA)
	f.String(optTLSCert, "", "`file` (PEM) of the client's certificate; also "+config.EnvTLSCert)
	f.String(optTLSKey, "", "`file` (PEM) of the key of --tls-cert; also "+config.EnvTLSKey)
	f.String(optServerName, "", "`name` in servers' certificates; also "+config.EnvTLSServerName)
}

// securityGiven returns the options that a command line has.
func securityGiven(cmd *cobra.Command) map[string]string {
	given := map[string]string{}
	cmd.Root().PersistentFlags().VisitAll(func(f *pflag.Flag) {
		if _, ok := securityEnv[f.Name]; ok && f.Changed {
			given[f.Name] = f.Value.String()
		}
	})
	return given
}

// connectsNowhere has commands refuse options that have no effect on them. Those of
// their own may have the same names.
func connectsNowhere(commands ...*cobra.Command) {
	for _, top := range commands {
		forEachCommand(top, func(c *cobra.Command) {
			run := c.RunE
			if run == nil {
				return
			}
			c.RunE = func(cmd *cobra.Command, args []string) error {
				for name := range securityGiven(cmd) {
					return usagef("--%s: %s does not log in to a server", name, cmd.CommandPath())
				}
				return run(cmd, args)
			}
		})
	}
}

// optionSource is one place where options stand.
type optionSource struct {
	values map[string]string
	name   func(option string) string // for messages
}

func fromFlags(given map[string]string) optionSource {
	return optionSource{given, func(option string) string { return "--" + option }}
}

func fromEnvironment() optionSource {
	values := map[string]string{}
	for option, variable := range securityEnv {
		if value := os.Getenv(variable); value != "" {
			values[option] = value
		}
	}
	return optionSource{values, func(option string) string { return securityEnv[option] }}
}

func fromContext(name string, s contexts.Security) optionSource {
	values := map[string]string{}
	set := func(option, value string) {
		if value != "" {
			values[option] = value
		}
	}
	set(optUser, s.User)
	set(optPasswordFile, s.PasswordFile)
	if s.TLS != nil {
		values[optTLS] = "true"
		set(optTLSCA, s.TLS.CA)
		set(optTLSCert, s.TLS.Cert)
		set(optTLSKey, s.TLS.Key)
		set(optServerName, s.TLS.ServerName)
	}
	return optionSource{values, func(option string) string { return fmt.Sprintf("%s of context %s", option, name) }}
}

// optionSources are all of them, the strongest first.
type optionSources []optionSource

// find returns the value of an option, and what gives it; "" if nothing does.
func (all optionSources) find(option string) (value, from string) {
	for _, s := range all {
		if value, ok := s.values[option]; ok {
			return value, s.name(option)
		}
	}
	return "", ""
}

// security is how to log in to the servers of a target.
type security struct {
	user         string
	passwordFile string      // path; "": none
	password     string      // where there is no file
	passwordFrom string      // what gives the password or its file; "": nothing
	tls          *tls.Config // nil: none
	tlsFrom      string      // what asks for TLS
	ca, cert     string      // paths; "": none
}

// security returns how to log in to the servers of t. It asks for a password where one
// is needed and none is given.
func (a *app) security(ctx context.Context, t *target) (*security, error) {
	if a.link.security != nil {
		return a.link.security, nil
	}
	sources := optionSources{fromFlags(a.given), fromEnvironment(), fromContext(t.context, t.security)}
	if a.context != "" { // the context is named by a flag
		sources[1], sources[2] = sources[2], sources[1]
	}
	s := &security{}
	if err := errors.Join(s.findTLS(sources), s.findUser(sources)); err != nil {
		return nil, err
	}
	if err := a.completePassword(ctx, s); err != nil {
		return nil, err
	}
	a.link.security = s
	return s, nil
}

// findUser finds user and password. The password of a source that names another user is
// that user's.
func (s *security) findUser(sources optionSources) error {
	s.user, _ = sources.find(optUser)
	if file := sources[0].values[optPasswordFile]; file != "" && s.user == "" {
		return usagef("--%s needs a user; add --%s, or set %s", optPasswordFile, optUser, config.EnvUser)
	}
	if len(s.user) > protocol.NameBytesMax {
		return usagef("the name of the user has %d bytes; the most is %d", len(s.user), protocol.NameBytesMax)
	}
	for _, source := range sources {
		file, isFile := source.values[optPasswordFile]
		password, isPassword := source.values[optPassword]
		if of, ok := source.values[optUser]; s.user == "" || ok && of != s.user || !isFile && !isPassword {
			continue
		}
		if isFile && isPassword {
			return usagef("both %s and %s are set; unset one", source.name(optPassword), source.name(optPasswordFile))
		}
		s.passwordFile, s.password, s.passwordFrom = file, password, source.name(optPassword)
		if isFile {
			s.passwordFrom = source.name(optPasswordFile)
		}
		return nil
	}
	return nil
}

// completePassword checks the password, and asks for it where there is none.
func (a *app) completePassword(ctx context.Context, s *security) error {
	switch {
	case s.user == "":
		return nil
	case s.passwordFile != "":
		_, open, err := readPassword(s.passwordFile)
		if open && err == nil {
			a.noteOpen(s.passwordFile)
		}
		return err
	case s.passwordFrom != "":
		return checkPassword(s.passwordFrom, s.password)
	case s.cert != "":
		// The certificate logs in, as the user that it names.
		if name := s.tls.Certificates[0].Leaf.Subject.CommonName; name != s.user {
			return usagef("the certificate %s is that of user %q, not of %s; leave out the user, or give %[3]s's password", s.cert, name, s.user)
		}
		s.user = ""
		return nil
	}
	if err := a.canAskSecret(); err != nil {
		return notDonef("%w for user %s: %w; give --%s FILE, or set %s", errNoPassword, s.user, err, optPasswordFile, config.EnvPassword)
	}
	var err error
	if s.password, err = a.askSecret(ctx, "Password of "+render.Escape([]byte(s.user))+": "); err != nil {
		return err
	}
	s.passwordFrom = "the password"
	return checkPassword(s.passwordFrom, s.password)
}

// errNoPassword is a user without a password, where nobody can be asked for it.
var errNoPassword = errors.New("there is no password")

// checkPassword checks what can be a password. It shows nothing of it.
func checkPassword(from, password string) error {
	switch {
	case password == "":
		return notDonef("%s is empty", from)
	case len(password) > protocol.NameBytesMax:
		return notDonef("%s is longer than %d bytes", from, protocol.NameBytesMax)
	case strings.ContainsAny(password, "\r\n"):
		return notDonef("%s has more than one line", from)
	}
	return nil
}

// readPassword reads the password from a file: its only line. open says that others than
// the owner may read the file.
func readPassword(path string) (password string, open bool, err error) {
	if password, open, err = readSecret("password", path); err != nil {
		return "", false, notDonef("%w", err)
	}
	return password, open, checkPassword("the password in "+path, password)
}

// findTLS finds out whether to use TLS, and loads its files. The strongest source that
// says anything of it decides; each file is that of the strongest source that names one.
func (s *security) findTLS(sources optionSources) error {
	on, err := s.wantsTLS(sources)
	if name := sources[0].values[optServerName]; err == nil && !on && name != "" {
		err = usagef("--%s has no effect without TLS; add --%s or --%s", optServerName, optTLS, optTLSCA)
	}
	if err != nil || !on {
		return err
	}
	ca, caFrom := sources.find(optTLSCA)
	name, _ := sources.find(optServerName)
	s.tls, s.ca = &tls.Config{ServerName: name}, ca
	if ca != "" {
		if s.tls.RootCAs, err = loadAuthorities(caFrom, ca); err != nil {
			return err
		}
	}
	for _, source := range sources {
		cert, key := source.values[optTLSCert], source.values[optTLSKey]
		switch {
		case cert == "" && key == "":
			continue
		case cert == "":
			return usagef("%s needs %s", source.name(optTLSKey), source.name(optTLSCert))
		case key == "":
			return usagef("%s needs %s", source.name(optTLSCert), source.name(optTLSKey))
		}
		pair, err := loadCertificate(cert, key)
		if err != nil {
			return err
		}
		s.tls.Certificates, s.cert = []tls.Certificate{pair}, cert
		break
	}
	return nil
}

// wantsTLS reports whether the sources ask for TLS.
func (s *security) wantsTLS(sources optionSources) (bool, error) {
	for _, source := range sources {
		text, said := source.values[optTLS]
		file := ""
		for _, option := range []string{optTLSCA, optTLSCert, optTLSKey} {
			if source.values[option] != "" {
				file = cmp.Or(file, option)
			}
		}
		if !said && file == "" {
			continue
		}
		on := true
		if said {
			var err error
			if on, err = strconv.ParseBool(text); err != nil {
				return false, usagef("%s is %q; write true or false", source.name(optTLS), text)
			}
			if !on && file != "" {
				return false, usagef("%s has no effect with %s=%s", source.name(file), source.name(optTLS), text)
			}
		}
		if !said {
			s.tlsFrom = source.name(file)
		} else if on {
			s.tlsFrom = source.name(optTLS)
		}
		return on, nil
	}
	return false, nil
}

// loadAuthorities reads the certificates of authorities.
func loadAuthorities(from, path string) (*x509.CertPool, error) {
	pem, err := readPEM(path)
	if err != nil {
		return nil, err
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(pem) {
		return nil, notDonef("%s: there is no certificate in %s; name a PEM file of authorities, such as ca.crt", from, path)
	}
	return pool, nil
}

// loadCertificate reads the certificate of a client and its key.
func loadCertificate(cert, key string) (tls.Certificate, error) {
	certPEM, err := readPEM(cert)
	if err != nil {
		return tls.Certificate{}, err
	}
	keyPEM, err := readPEM(key)
	if err != nil {
		return tls.Certificate{}, err
	}
	pair, err := tls.X509KeyPair(certPEM, keyPEM)
	if err != nil {
		return tls.Certificate{}, notDonef("the certificate %s and the key %s cannot be used: %s", cert, key, strings.TrimPrefix(err.Error(), "tls: "))
	}
	if after := pair.Leaf.NotAfter; time.Now().After(after) {
		return tls.Certificate{}, notDonef("the certificate %s has expired on %s; have a new one made", cert, after.Format(time.DateOnly))
	}
	return pair, nil
}

// pemBytesMax bounds a file of certificates: the authorities of a system take 220 KiB.
const pemBytesMax = 1 << 20

func readPEM(path string) ([]byte, error) {
	return readFile(path, func(r io.Reader) ([]byte, error) {
		b, err := io.ReadAll(io.LimitReader(r, pemBytesMax+1))
		switch {
		case err != nil:
			return nil, notDonef("%w", err)
		case len(b) > pemBytesMax:
			return nil, notDonef("%s is larger than %d bytes", path, pemBytesMax)
		}
		return b, nil
	})
}

// logIn puts into cfg how to log in. A file with a password is read for each new
// connection.
func (s *security) logIn(cfg *client.Config) {
	cfg.TLS = s.tls
	if s.passwordFile == "" {
		cfg.User, cfg.Secret = s.user, s.password
		return
	}
	cfg.Credentials = func(context.Context) (user, secret string, err error) {
		secret, err = s.secret()
		return s.user, secret, err
	}
}

// secret is the password, "" if there is none.
func (s *security) secret() (string, error) {
	if s.passwordFile == "" {
		return s.password, nil
	}
	password, _, err := readPassword(s.passwordFile)
	return password, err
}

// kept returns s as the options on a command line change it, for a context. Paths become
// absolute, so that they hold in each directory.
func kept(s contexts.Security, given map[string]string) (contexts.Security, error) {
	path := func(option string, to *string) error {
		name, ok := given[option]
		if !ok {
			return nil
		}
		if *to = name; name == "" {
			return nil
		}
		absolute, err := filepath.Abs(name)
		*to = absolute
		return err
	}
	if user, ok := given[optUser]; ok {
		if user != s.User {
			s.PasswordFile = "" // is the other user's
		}
		s.User = user
	}
	secure := contexts.TLS{}
	if s.TLS != nil {
		secure = *s.TLS
	}
	if name, ok := given[optServerName]; ok {
		secure.ServerName = name
	}
	err := errors.Join(path(optPasswordFile, &s.PasswordFile), path(optTLSCA, &secure.CA), path(optTLSCert, &secure.Cert), path(optTLSKey, &secure.Key))
	switch on, said := given[optTLS]; {
	case said && on == "false":
		s.TLS = nil
	case said || s.TLS != nil || secure != contexts.TLS{}:
		s.TLS = &secure
	}
	return s, err
}

// refused says that no server accepts how s logs in.
func (s *security) refused() string {
	switch {
	case s.user != "":
		return fmt.Sprintf("no server accepts user %s with %s", s.user, s.passwordIs())
	case s.cert != "":
		return fmt.Sprintf("no server accepts the certificate %s as a login", s.cert)
	}
	return "the cluster requires a user and a password"
}

// passwordIs names the password by what gives it.
func (s *security) passwordIs() string {
	if s.passwordFile != "" {
		return "the password in " + s.passwordFile
	}
	if s.passwordFrom == config.EnvPassword {
		return "the password in " + config.EnvPassword
	}
	return "the password that was entered"
}

// adviceLogin returns how to go on where no server accepts how s logs in.
func adviceLogin(s *security, t *target) string {
	switch {
	case s.user != "":
		return "Check name and password. An administrator can give the user a new one: proa user passwd " + render.ShellQuote(s.user)
	case s.cert != "":
		return "Log in with a password as well: " + t.commandAdding(optUser, "NAME", optPasswordFile, "FILE")
	}
	return "Name a user: " + t.commandAdding(optUser, "NAME", optPasswordFile, "FILE") +
		"\nWithout a file the password is taken from " + config.EnvPassword + ", or asked for on a terminal."
}

// adviceTLS returns how to go on after an error of TLS.
func adviceTLS(e *client.TLSError, s *security, t *target) string {
	var (
		untrusted x509.UnknownAuthorityError
		host      x509.HostnameError
		invalid   x509.CertificateInvalidError
	)
	switch {
	case errors.Is(e, client.ErrTLSRequired):
		return "Name the certificate of the authority that has signed the server's: " + t.commandAdding(optTLSCA, "FILE") +
			"\nIf it is one that this system trusts: --" + optTLS
	case errors.Is(e, client.ErrNoTLS):
		return fmt.Sprintf("TLS is asked for by %s. Check that the address is that of a server with TLS (tls.cert), or connect without: --%s=false", s.tlsFrom, optTLS)
	case errors.As(e, &untrusted) && s.ca == "":
		return "This system does not trust who has signed the server's certificate. Name the certificate of the cluster's authority: " + t.commandAdding(optTLSCA, "FILE")
	case errors.As(e, &untrusted):
		return fmt.Sprintf("No authority in %s has signed the server's certificate. Check that the file is this cluster's, and the address.", s.ca)
	case errors.As(e, &host):
		return adviceServerName(host.Certificate, e.ServerName, t)
	case errors.As(e, &invalid) && invalid.Reason == x509.Expired && invalid.Cert != nil:
		if c := invalid.Cert; time.Now().Before(c.NotBefore) {
			return fmt.Sprintf("The server's certificate is not valid before %s. Check the clock of this machine.", c.NotBefore.Format(time.DateTime))
		}
		return fmt.Sprintf("A certificate of the server has expired on %s. The operator of the cluster has to renew it. Check the clock of this machine, too.", invalid.Cert.NotAfter.Format(time.DateOnly))
	case errors.As(e, &invalid):
		return "The server's certificate cannot be used by a server. The operator of the cluster has to replace it."
	case aboutClientCertificate(e) && s.cert == "":
		return "The server may require a certificate of the client: " + t.commandAdding(optTLSCert, "FILE", optTLSKey, "FILE")
	case aboutClientCertificate(e):
		return fmt.Sprintf("The server does not accept the certificate %s. An authority in the server's tls.client_ca must have signed it.", s.cert)
	}
	return "Check that the address is that of a Proa server with TLS, and the versions of both: proa version"
}

// adviceServerName names what a server's certificate is for.
func adviceServerName(c *x509.Certificate, want string, t *target) string {
	var names []string
	if c != nil {
		names = slices.Clone(c.DNSNames)
		for _, ip := range c.IPAddresses {
			names = append(names, ip.String())
		}
	}
	if len(names) == 0 {
		return fmt.Sprintf("The server's certificate is for no name. The operator of the cluster has to replace it by one for %s.", want)
	}
	return fmt.Sprintf("The server's certificate is for %s, not for %s. Connect by such a name, or, if you trust that it is the right server, say which to expect: %s",
		render.OneLine(some(names)), want, t.commandAdding(optServerName, render.ShellQuote(names[0])))
}

// aboutClientCertificate reports whether a server may have refused TLS for the
// certificate of the client, or for want of one.
func aboutClientCertificate(e *client.TLSError) bool {
	text := e.Error()
	for _, sign := range []string{"certificate required", "bad certificate", "unknown certificate", "expired certificate", "revoked certificate", "unsupported certificate", "handshake failure", "access denied", "require a client certificate"} {
		if strings.Contains(text, sign) {
			return true
		}
	}
	return false
}
