package test

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"io"
	"math/big"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/proa-kv/proa/client"
	"github.com/proa-kv/proa/internal/testcluster"
)

// identity is a certificate that has signed itself, in files.
type identity struct {
	certFile, keyFile string
	certificate       tls.Certificate
	pool              *x509.CertPool
}

func newIdentity(t *testing.T, dir, name string) *identity {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(time.Now().UnixNano()), Subject: pkix.Name{CommonName: name}, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(24 * time.Hour),
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
		KeyUsage: x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign, IsCA: true, BasicConstraintsValid: true,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	private, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	i := &identity{certFile: filepath.Join(dir, name+".crt"), keyFile: filepath.Join(dir, name+".key"), pool: x509.NewCertPool()}
	certPEM, keyPEM := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: private})
	for path, text := range map[string][]byte{i.certFile: certPEM, i.keyFile: keyPEM} {
		if err := os.WriteFile(path, text, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	i.pool.AppendCertsFromPEM(certPEM)
	if i.certificate, err = tls.X509KeyPair(certPEM, keyPEM); err != nil {
		t.Fatal(err)
	}
	return i
}

// TestTLS runs a server whose ports speak TLS: all of them do, clients without it are
// told, and certificates are replaced while connections stay.
func TestTLS(t *testing.T) {
	dir := t.TempDir()
	old, ada := newIdentity(t, dir, "server"), newIdentity(t, dir, "ada")
	listen, resp, admin := testcluster.FreeAddress(t), testcluster.FreeAddress(t), testcluster.FreeAddress(t)
	node := testcluster.Start(t, testcluster.Config{
		Address: "unix://" + filepath.Join(dir, "s"),
		Args: []string{
			"--listen", listen, "--resp-listen", resp, "--admin-listen", admin,
			"--tls-cert", old.certFile, "--tls-key", old.keyFile, "--tls-client-ca", ada.certFile,
		},
	})
	config := func(i *identity) *tls.Config {
		return &tls.Config{RootCAs: i.pool, Certificates: []tls.Certificate{ada.certificate}, ServerName: "127.0.0.1"}
	}
	ctx := t.Context()
	c, err := client.New(ctx, client.Config{Endpoints: []string{listen}, TLS: config(old)})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if _, err := c.Put(ctx, []byte("k"), []byte("v")); err != nil {
		t.Fatal(err)
	}
	local, err := client.New(ctx, client.Config{Endpoints: []string{node.Address()}, ForwardOnly: true})
	if err != nil {
		t.Fatal(err)
	}
	defer local.Close()
	if e, err := local.Get(ctx, []byte("k")); err != nil || string(e.Value) != "v" {
		t.Errorf("over the unix socket: %q, %v", e.Value, err)
	}
	if got := redisOverTLS(t, resp, config(old), "GET k\r\nQUIT\r\n"); got != "$1\r\nv\r\n+OK\r\n" {
		t.Errorf("Redis over TLS is answered %q", got)
	}
	metrics := httpsGet(t, "https://"+admin+"/metrics", config(old))
	for _, want := range []string{"proa_tls_connections 1\n", "proa_tls_handshake_failures_total{reason=\"plain\"} 0\n", "proa_tls_handshakes_total 3\n"} {
		if !strings.Contains(metrics, want) {
			t.Errorf("the metrics lack %q", want)
		}
	}

	dialCtx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	if _, err := client.New(dialCtx, client.Config{Endpoints: []string{listen}}); err == nil || !strings.Contains(err.Error(), "which speaks TLS alone; connect with TLS (--tls") {
		t.Errorf("without TLS: %v", err)
	}
	if _, err := client.New(dialCtx, client.Config{Endpoints: []string{listen}, TLS: &tls.Config{RootCAs: ada.pool}}); err == nil {
		t.Error("a certificate that nobody has signed is accepted")
	}

	// Another certificate, then none that can be used.
	renewed := newIdentity(t, dir, "server")
	reload(t, node, "reloaded the certificates")
	nc, err := tls.Dial("tcp", resp, config(renewed))
	if err != nil {
		t.Fatal(err)
	}
	defer nc.Close()
	if err := os.WriteFile(old.certFile, []byte("nothing"), 0o600); err != nil {
		t.Fatal(err)
	}
	reload(t, node, "certificates were not reloaded")
	if got := redisOverTLS(t, resp, config(renewed), "PING\r\nQUIT\r\n"); got != "+PONG\r\n+OK\r\n" {
		t.Errorf("after a certificate that cannot be read: %q", got)
	}
	if _, err := c.Put(ctx, []byte("k"), []byte("w")); err != nil {
		t.Errorf("the connection of before: %v", err)
	}
	node.Stop()
	if n := strings.Count(node.Log(), "connection refused"); n > 0 {
		t.Errorf("%d connections were refused", n)
	}
}

// reload has the server read its certificates, until it has logged text.
func reload(t *testing.T, node *testcluster.Node, text string) {
	t.Helper()
	if err := syscall.Kill(node.PID(), syscall.SIGHUP); err != nil {
		t.Fatal(err)
	}
	for end := time.Now().Add(patience); !strings.Contains(node.Log(), text); <-time.After(5 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("the log does not say %q:\n%s", text, node.Log())
		}
	}
}

func redisOverTLS(t *testing.T, address string, config *tls.Config, commands string) string {
	t.Helper()
	nc, err := tls.Dial("tcp", address, config)
	if err != nil {
		t.Fatal(err)
	}
	defer nc.Close()
	_ = nc.SetDeadline(time.Now().Add(patience)) // a guard
	if _, err := io.WriteString(nc, commands); err != nil {
		t.Fatal(err)
	}
	b, err := io.ReadAll(nc)
	if err != nil {
		t.Error(err)
	}
	return string(b)
}

func httpsGet(t *testing.T, url string, config *tls.Config) string {
	t.Helper()
	transport := &http.Transport{TLSClientConfig: config}
	defer transport.CloseIdleConnections()
	r, err := (&http.Client{Transport: transport, Timeout: patience}).Get(url)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Body.Close()
	b, err := io.ReadAll(r.Body)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// TestTLSRefusedStarts: a server does not start with certificates that it cannot use.
func TestTLSRefusedStarts(t *testing.T) {
	dir := t.TempDir()
	one, other := newIdentity(t, dir, "one"), newIdentity(t, dir, "other")
	garbage := filepath.Join(dir, "garbage")
	if err := os.WriteFile(garbage, bytes.Repeat([]byte("x"), 100), 0o600); err != nil {
		t.Fatal(err)
	}
	missing := filepath.Join(dir, "missing")
	for i, r := range []refusal{
		{[]string{"--tls-cert", missing, "--tls-key", one.keyFile}, []string{"tls.cert", missing}},
		{[]string{"--tls-cert", one.certFile, "--tls-key", missing}, []string{"tls.key", missing}},
		{[]string{"--tls-cert", one.certFile, "--tls-key", other.keyFile}, []string{one.certFile, other.keyFile}},
		{[]string{"--tls-cert", garbage, "--tls-key", one.keyFile}, []string{garbage}},
		{[]string{"--tls-cert", one.certFile, "--tls-key", one.keyFile, "--tls-client-ca", garbage}, []string{"tls.client_ca", garbage}},
		{[]string{"--tls-cert", one.certFile, "--tls-key", one.keyFile, "--tls-client-ca", missing}, []string{"tls.client_ca", missing}},
		{[]string{"--tls", "required"}, []string{"tls.mode", "set tls.cert and tls.key"}},
	} {
		t.Run(fmt.Sprint(i), func(t *testing.T) {
			r.args = append([]string{"--data", filepath.Join(dir, "data"), "--listen", testcluster.FreeAddress(t)}, r.args...)
			r.check(t, testcluster.Command{})
		})
	}
}
