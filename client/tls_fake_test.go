package client

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/proa-kv/proa/protocol"
)

// authority signs certificates for tests.
type authority struct {
	key  *ecdsa.PrivateKey
	cert *x509.Certificate
}

// testAuthority is one for all tests: keys take time to make.
var testAuthority = sync.OnceValue(func() *authority { return newAuthority("tests") })

func newAuthority(name string) *authority {
	a := &authority{}
	template := &x509.Certificate{
		Subject: pkix.Name{CommonName: name}, BasicConstraintsValid: true, IsCA: true, KeyUsage: x509.KeyUsageCertSign,
	}
	c := issue(a, template)
	a.key, a.cert = c.PrivateKey.(*ecdsa.PrivateKey), c.Leaf
	return a
}

// issue signs a certificate by a; by itself, while a has no key.
func issue(a *authority, template *x509.Certificate) tls.Certificate {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		panic(err)
	}
	template.SerialNumber = big.NewInt(time.Now().UnixNano())
	if template.NotAfter.IsZero() {
		template.NotBefore, template.NotAfter = time.Now().Add(-time.Hour), time.Now().Add(time.Hour)
	}
	parent, signer := a.cert, a.key
	if parent == nil {
		parent, signer = template, key
	}
	der, err := x509.CreateCertificate(rand.Reader, template, parent, &key.PublicKey, signer)
	if err != nil {
		panic(err)
	}
	leaf, err := x509.ParseCertificate(der)
	if err != nil {
		panic(err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key, Leaf: leaf}
}

// server returns a certificate for names and addresses.
func (a *authority) server(hosts ...string) tls.Certificate {
	t := &x509.Certificate{Subject: pkix.Name{CommonName: "node"}, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}}
	for _, h := range hosts {
		if ip := net.ParseIP(h); ip != nil {
			t.IPAddresses = append(t.IPAddresses, ip)
		} else {
			t.DNSNames = append(t.DNSNames, h)
		}
	}
	return issue(a, t)
}

// client returns the certificate of a user.
func (a *authority) client(user string) tls.Certificate {
	return issue(a, &x509.Certificate{Subject: pkix.Name{CommonName: user}, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}})
}

// pool returns the certificates that trust a.
func (a *authority) pool() *x509.CertPool {
	p := x509.NewCertPool()
	p.AddCert(a.cert)
	return p
}

// secure has a fake server speak TLS.
func (f *fake) secure(config *tls.Config) {
	f.set(func() { f.wrap = func(nc net.Conn) net.Conn { return tls.Server(nc, config) } })
}

// secureLocal is secure with a certificate for 127.0.0.1, and returns what trusts it.
func (f *fake) secureLocal() *tls.Config {
	f.secure(&tls.Config{Certificates: []tls.Certificate{testAuthority().server("127.0.0.1")}})
	return &tls.Config{RootCAs: testAuthority().pool()}
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
	ann := a.client("ann")
	key, err := x509.MarshalPKCS8PrivateKey(ann.PrivateKey)
	must(err)
	for name, content := range map[string][]byte{
		"ca.crt":   pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: a.cert.Raw}),
		"ann.crt":  pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: ann.Certificate[0]}),
		"ann.key":  pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: key}),
		"password": []byte("correct horse battery staple\n"),
	} {
		must(os.WriteFile(filepath.Join(dir, name), content, 0o600))
	}
	f, err := startFake("tcp", "127.0.0.1:0")
	must(err)
	f.secure(&tls.Config{
		Certificates: []tls.Certificate{a.server("127.0.0.1")},
		ClientAuth:   tls.VerifyClientCertIfGiven, ClientCAs: a.pool(),
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
