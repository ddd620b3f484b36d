package config

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strconv"
	"strings"
	"unicode"
)

// splitAddress returns the parts of an address, or what is wrong with it.
func splitAddress(address string) (host string, port uint16, err error) {
	host, text, err := net.SplitHostPort(address)
	if err != nil {
		return "", 0, errors.New("not host:port")
	}
	n, err := strconv.ParseUint(text, 10, 16)
	switch {
	case err != nil:
		return "", 0, fmt.Errorf("port %q is not a number from 0 to 65535", text)
	case oddHost(host):
		return "", 0, fmt.Errorf("host %q is not a name or an address", host)
	}
	return host, uint16(n), nil
}

// checkReachable returns the port of an address that others must be able to connect
// to, or what is wrong with the address.
func checkReachable(address string) (port uint16, err error) {
	host, port, err := splitAddress(address)
	if err == nil && anyHost(host) {
		err = errors.New("has no host that other nodes could connect to")
	}
	return port, err
}

// oddHost reports whether host can be neither a name nor an address. Others show
// advertised hosts on terminals.
func oddHost(host string) bool {
	return strings.ContainsFunc(host, func(r rune) bool { return r == ' ' || r == '/' || !unicode.IsPrint(r) })
}

// anyHost reports whether a listener on host listens on all interfaces.
func anyHost(host string) bool {
	if host == "" {
		return true
	}
	a, err := netip.ParseAddr(host)
	return err == nil && a.IsUnspecified()
}

// loopback reports whether host is known to mean the machine itself. Names
// other than localhost are not looked up.
func loopback(host string) bool {
	if a, err := netip.ParseAddr(host); err == nil {
		return a.Unmap().IsLoopback()
	}
	return strings.EqualFold(strings.TrimSuffix(host, "."), "localhost")
}

// Loopback reports whether only this machine reaches a host:port.
func Loopback(address string) bool {
	host, _, err := net.SplitHostPort(address)
	return err == nil && loopback(host)
}

// elsewhere reports whether a host:port may be on another machine.
func elsewhere(address string) bool {
	host, _, err := net.SplitHostPort(address)
	return err == nil && !loopback(host)
}

// advertised returns the address under which others reach what listens on
// listen, or "" where nothing does.
func (c *Config) advertised(listen string) string {
	host, port, err := net.SplitHostPort(listen)
	if err != nil {
		return ""
	}
	if anyHost(host) {
		host = c.machine.host()
	}
	return net.JoinHostPort(host, port)
}

// BoundAddress returns address with its port, where that is 0, replaced by the
// one that bound has. It turns Node.AdvertisePeer and Node.AdvertiseClient into
// the address to announce once the node listens. Everything else comes back as it
// is.
func BoundAddress(address string, bound net.Addr) string {
	host, port, err := net.SplitHostPort(address)
	tcp, ok := bound.(*net.TCPAddr)
	if err != nil || port != "0" || !ok {
		return address
	}
	return net.JoinHostPort(host, strconv.Itoa(tcp.Port))
}
