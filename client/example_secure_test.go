package client_test

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"log"
	"os"
	"path/filepath"

	"github.com/proa-kv/proa/client"
)

// trust returns a configuration of TLS that accepts servers whose certificates the
// authority in a file has signed.
func trust(authority string) *tls.Config {
	pem, err := os.ReadFile(authority)
	if err != nil {
		log.Fatal(err)
	}
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM(pem) {
		log.Fatalf("%s has no certificate", authority)
	}
	return &tls.Config{RootCAs: roots}
}

// Log in with a client certificate. GetClientCertificate is called for each new
// connection, so that a certificate that is renewed on disk is used from then on.
func ExampleConfig_clientCertificate() {
	address, dir, stop := client.StartSecureExampleServer() // or: proa serve --tls-cert …
	defer stop()
	ctx := context.Background()

	config := trust(filepath.Join(dir, "ca.crt"))
	config.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
		c, err := tls.LoadX509KeyPair(filepath.Join(dir, "ann.crt"), filepath.Join(dir, "ann.key"))
		return &c, err
	}
	c, err := client.New(ctx, client.Config{Endpoints: []string{address}, TLS: config})
	if err != nil {
		log.Fatal(err)
	}
	defer c.Close()
	_, err = c.PutString(ctx, "greeting", "hello")
	fmt.Println(err)
	// Output: <nil>
}

// Log in with a password that somebody changes now and then, in a file.
func ExampleConfig_credentials() {
	address, dir, stop := client.StartSecureExampleServer()
	defer stop()
	ctx := context.Background()

	config := client.Config{
		Endpoints: []string{address},
		TLS:       trust(filepath.Join(dir, "ca.crt")),
		Credentials: func(context.Context) (user, secret string, err error) {
			password, err := os.ReadFile(filepath.Join(dir, "password"))
			return "ann", string(bytes.TrimSuffix(password, []byte("\n"))), err
		},
	}
	c, err := client.New(ctx, config)
	if err != nil {
		log.Fatal(err)
	}
	defer c.Close()
	_, err = c.PutString(ctx, "greeting", "hello")
	fmt.Println(err)

	// Without, the error says so.
	config.Credentials = nil
	_, err = client.New(ctx, config)
	fmt.Println(errors.Is(err, client.ErrUnauthenticated))
	// Output:
	// <nil>
	// true
}
