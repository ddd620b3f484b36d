package server

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"math/big"
	"net"
	"strings"
	"sync"
	"testing"
	"time"
)

// overTLS ends the names of transports, in tests, whose clients come over TLS.
const overTLS = " over TLS"

// secured has the servers, and the addresses, that speak TLS in tests.
var secured sync.Map

// newOver is New for transports of tests.
func newOver(t testing.TB, cfg Config, b Backend) (*Server, error) {
	transport, secure := strings.CutSuffix(cfg.Transport, overTLS)
	cfg.Transport = transport
	s, err := New(cfg, b)
	if secure && err == nil {
		secured.Store(s, true)
		t.Cleanup(func() { // its ports may be those of other servers soon
			secured.Delete(s)
			secured.Range(func(addr, of any) bool {
				if of == s {
					secured.Delete(addr)
				}
				return true
			})
		})
	}
	return s, err
}

// listenOver has s listen, for connect.
func listenOver(s *Server, listen func(address string, options ...ListenOption) (net.Addr, error)) (net.Addr, error) {
	if _, secure := secured.Load(s); !secure {
		addr, err := listen("127.0.0.1:0")
		if err == nil {
			secured.Delete(addr.String()) // of a server that is gone
		}
		return addr, err
	}
	addr, err := listen("127.0.0.1:0", WithTLS(&TLS{Config: authority.server()}))
	if err == nil {
		secured.Store(addr.String(), s)
	}
	return addr, err
}

// connect connects to an address of listenOver.
func connect(addr net.Addr) (net.Conn, error) {
	nc, err := net.Dial(addr.Network(), addr.String())
	if _, secure := secured.Load(addr.String()); err != nil || !secure {
		return nc, err
	}
	tc := tls.Client(nc, authority.client(""))
	return &tlsClient{tc}, tc.Handshake()
}

// tlsClient is a client's connection over TLS that is half-closed as one without.
type tlsClient struct{ *tls.Conn }

func (c *tlsClient) CloseWrite() error {
	return errors.Join(c.Conn.CloseWrite(), c.NetConn().(*net.TCPConn).CloseWrite())
}

// halfClose closes the sending direction of a client.
func halfClose(nc net.Conn) error { return nc.(interface{ CloseWrite() error }).CloseWrite() }

// reset has a client's connection end with a reset when it is closed.
func reset(nc net.Conn) {
	if tc, ok := nc.(*tlsClient); ok {
		nc = tc.NetConn()
	}
	_ = nc.(*net.TCPConn).SetLinger(0)
}

// testAuthority signs the certificates of tests.
type testAuthority struct {
	key  *ecdsa.PrivateKey
	cert *x509.Certificate
	pool *x509.CertPool
	leaf tls.Certificate // of servers
}

var authority = newAuthority()

func newAuthority() *testAuthority {
	a := &testAuthority{pool: x509.NewCertPool()}
	must := func(err error) {
		if err != nil {
			panic(err)
		}
	}
	var err error
	a.key, err = ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	must(err)
	t := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "authority"}, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour), IsCA: true, BasicConstraintsValid: true}
	der, err := x509.CreateCertificate(rand.Reader, t, t, a.key.Public(), a.key)
	must(err)
	a.cert, err = x509.ParseCertificate(der)
	must(err)
	a.pool.AddCert(a.cert)
	a.leaf = a.sign("server", time.Hour)
	return a
}

// sign returns a certificate, for servers and clients, that is valid for so long.
func (a *testAuthority) sign(name string, valid time.Duration) tls.Certificate {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		panic(err)
	}
	t := &x509.Certificate{
		SerialNumber: big.NewInt(2), Subject: pkix.Name{CommonName: name}, NotBefore: time.Now().Add(-2 * time.Hour), NotAfter: time.Now().Add(valid),
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	}
	der, err := x509.CreateCertificate(rand.Reader, t, a.cert, key.Public(), a.key)
	if err != nil {
		panic(err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
}

// server is the configuration of a server.
func (a *testAuthority) server() *tls.Config {
	return &tls.Config{Certificates: []tls.Certificate{a.leaf}, MinVersion: tls.VersionTLS13, ClientCAs: a.pool, ClientAuth: tls.VerifyClientCertIfGiven, SessionTicketsDisabled: true}
}

// client is the configuration of a client that presents a certificate with that name,
// or none.
func (a *testAuthority) client(name string) *tls.Config {
	c := &tls.Config{RootCAs: a.pool, ServerName: "127.0.0.1"}
	if name != "" {
		c.Certificates = []tls.Certificate{a.sign(name, time.Hour)}
	}
	return c
}
