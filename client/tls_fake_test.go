package client

import (
	"crypto/tls"
	"net"
	"os"
	"path/filepath"
	"sync"

	"github.com/proa-kv/proa/internal/certtest"
	"github.com/proa-kv/proa/protocol"
)

// testAuthority is one for all tests: keys take time to make.
var testAuthority = sync.OnceValue(func() *certtest.Authority { return certtest.NewAuthority("tests") })

// secure has a fake server speak TLS.
func (f *fake) secure(config *tls.Config) {
	f.set(func() { f.wrap = func(nc net.Conn) net.Conn { return tls.Server(nc, config) } })
}

// secureLocal is secure with a certificate for 127.0.0.1, and returns what trusts it.
func (f *fake) secureLocal() *tls.Config {
	f.secure(&tls.Config{Certificates: []tls.Certificate{testAuthority().Server("127.0.0.1")}})
	return &tls.Config{RootCAs: testAuthority().Pool()}
}

// StartSecureExampleServer starts a server for the examples that requires TLS and lets
// the user ann in, by the certificate or by the password in dir: ca.crt, ann.crt,
// ann.key and password.
func StartSecureExampleServer() (address, dir string, stop func()) {
	must := func(err error) {
		if err != nil {
			panic(err)
		}
	}
	a := testAuthority()
	dir, err := os.MkdirTemp("", "proa-example-*")
	must(err)
	must(a.Write(dir, "ca"))
	must(certtest.Write(dir, "ann", a.Client("ann")))
	must(os.WriteFile(filepath.Join(dir, "password"), []byte("correct horse battery staple\n"), 0o600))
	f, err := startFake("tcp", "127.0.0.1:0")
	must(err)
	f.secure(&tls.Config{
		Certificates: []tls.Certificate{a.Server("127.0.0.1")},
		ClientAuth:   tls.VerifyClientCertIfGiven, ClientCAs: a.Pool(),
	})
	f.hello = func(cn *fakeConn, m *protocol.Hello) []byte {
		byCertificate := len(cn.nc.(*tls.Conn).ConnectionState().VerifiedChains) > 0
		if byPassword := string(m.User) == "ann" && string(m.Secret) == "correct horse battery staple"; !byPassword && !byCertificate {
			return errorFrame(protocol.StatusUnauthenticated, 0, "a user and its password are required")
		}
		return f.welcome(m, 0)
	}
	return f.address(), dir, func() {
		f.close()
		os.RemoveAll(dir)
	}
}
