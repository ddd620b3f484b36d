package main

import (
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"log/slog"
	"net"
	"os"
	"os/signal"
	"sync/atomic"
	"syscall"

	"github.com/proa-kv/proa/config"
	"github.com/proa-kv/proa/server"
)

// encryption is TLS for clients: of the client port, the Redis port and admin HTTP.
type encryption struct {
	cfg     *config.TLS
	current atomic.Pointer[tls.Config]
}

// openEncryption reads the certificates, or returns nil where there is no TLS.
func openEncryption(c *config.TLS) (*encryption, error) {
	if c.Mode == config.Off {
		return nil, nil
	}
	e := &encryption{cfg: c}
	return e, e.reload()
}

// reload reads the certificates again. Where it fails those that it has stay in use.
func (e *encryption) reload() error {
	t, err := loadTLS(e.cfg)
	if err == nil {
		e.current.Store(t)
	}
	return err
}

// loadTLS makes the server's side of TLS.
func loadTLS(c *config.TLS) (*tls.Config, error) {
	t := &tls.Config{
		MinVersion: tls.VersionTLS13,
		// Connections last: resuming one saves little, and a certificate would
		// count on after its authority has been taken away.
		SessionTicketsDisabled:      true,
		DynamicRecordSizingDisabled: true,
	}
	if c.MinVersion == "1.2" {
		t.MinVersion = tls.VersionTLS12
	}
	certificate, err := tls.LoadX509KeyPair(c.Cert, c.Key)
	if err != nil {
		return nil, fmt.Errorf("the certificate in tls.cert (%s) and the key in tls.key (%s) cannot be used: %w", c.Cert, c.Key, err)
	}
	t.Certificates = []tls.Certificate{certificate}
	if c.ClientAuth == config.Off {
		return t, nil
	}
	pem, err := os.ReadFile(c.ClientCA)
	if err != nil {
		return nil, fmt.Errorf("tls.client_ca: %w", err)
	}
	t.ClientCAs = x509.NewCertPool()
	if !t.ClientCAs.AppendCertsFromPEM(pem) {
		return nil, fmt.Errorf("tls.client_ca: there is no certificate in %s", c.ClientCA)
	}
	t.ClientAuth = tls.VerifyClientCertIfGiven
	if c.ClientAuth == config.Required {
		t.ClientAuth = tls.RequireAndVerifyClientCert
	}
	return t, nil
}

// listener is TLS for a listener of package server; nil: none.
func (e *encryption) listener() *server.TLS {
	if e == nil {
		return nil
	}
	return &server.TLS{Config: e.config(), Optional: e.cfg.Mode == config.Optional}
}

// config is a configuration that follows reloads.
func (e *encryption) config() *tls.Config {
	return &tls.Config{GetConfigForClient: func(*tls.ClientHelloInfo) (*tls.Config, error) { return e.current.Load(), nil }}
}

// secure returns how admin HTTP shakes hands; nil: it does not.
func (e *encryption) secure(srv *server.Server) func(nc net.Conn, first []byte) (*tls.Conn, error) {
	if e == nil {
		return nil
	}
	config := e.config()
	return func(nc net.Conn, first []byte) (*tls.Conn, error) { return srv.Secure(nc, first, config) }
}

// reloadOnHangUp reads the certificates again whenever SIGHUP comes, until the result
// is called.
func (e *encryption) reloadOnHangUp(log *slog.Logger) (stop func()) {
	if e == nil {
		return func() {}
	}
	come := make(chan os.Signal, 1)
	signal.Notify(come, syscall.SIGHUP)
	go func() {
		for range come {
			if err := e.reload(); err != nil {
				log.Error("the certificates were not reloaded; those read before stay in use", "error", err)
			} else {
				log.Info("reloaded the certificates", "cert", e.cfg.Cert)
			}
		}
	}()
	return func() {
		signal.Stop(come)
		close(come)
	}
}
