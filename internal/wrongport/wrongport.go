// Package wrongport answers callers who have come to the wrong port of a node. A
// node listens for Proa's own clients, for clients of the Redis protocol, for
// operators over HTTP, and for other nodes. Each of these ports recognizes the
// first bytes of the others' protocols, and says in a form that the caller
// understands which port it belongs on.
package wrongport

import (
	"encoding/binary"
	"fmt"
	"net"
	"strings"
	"sync/atomic"

	"github.com/proa-kv/proa/protocol"
)

// Port is one of a node's ports, by what it is for.
type Port uint8

// The ports of a node.
const (
	Client Port = iota
	Redis
	Admin
	Peer

	ports
)

// names are what the ports are called in answers, and the options that turn them on.
var names = [ports]struct{ name, flag string }{
	Client: {"client port", "--listen"},
	Redis:  {"Redis port", "--resp-listen"},
	Admin:  {"admin HTTP port", "--admin-listen"},
	Peer:   {"peer port", "--peer-listen"},
}

// String returns what the port is called.
func (p Port) String() string { return names[p].name }

// Addresses are where the ports of a node are reached, host:port; "" for one
// that is off.
type Addresses [ports]string

// Ports knows where a node's ports are. The zero Ports knows none of them yet, and
// a nil one never does: answers then name ports without addresses. It is safe for
// concurrent use.
type Ports struct {
	addresses atomic.Pointer[Addresses]
	tls       atomic.Bool // the ports speak TLS
	tlsAlone  atomic.Bool // and nothing else
}

// Set sets the addresses.
func (s *Ports) Set(a Addresses) { s.addresses.Store(&a) }

// SpeakTLS says that the ports for clients and operators speak TLS, and nothing else if
// alone is set.
func (s *Ports) SpeakTLS(alone bool) {
	s.tls.Store(true)
	s.tlsAlone.Store(alone)
}

// Answer returns what to send to a caller who speaks a protocol that the port does
// not, and why, for the log. first are the bytes by which Recognize has told the
// protocol. The answer is an error in the form of the caller's own protocol; a
// caller that speaks TLS, or the protocol between nodes, can read none, and is
// sent the port's own.
func (s *Ports) Answer(at Port, caller Protocol, first []byte) (answer []byte, why string) {
	why = s.text(at, caller)
	return answerText(at, caller, first, why), why
}

// AnswerPlain is Answer for a caller without TLS at a port that speaks TLS alone.
func (s *Ports) AnswerPlain(at Port, caller Protocol, first []byte) (answer []byte, why string) {
	why = "this is Proa's " + at.String() + ", which speaks TLS alone; "
	switch {
	case at == Client && caller == Native:
		why += "connect with TLS (--tls, or --tls-ca with the authority's certificate)"
	case at == Redis && caller == RESP:
		why += "connect with TLS (redis-cli --tls)"
	case at == Admin && caller == HTTP:
		why += "use https://"
	case caller == Unknown:
		why += "connect with TLS"
	default:
		why = s.text(at, caller)
	}
	return answerText(at, caller, first, why), why
}

// answerText is text in the form of the caller's protocol.
func answerText(at Port, caller Protocol, first []byte, text string) []byte {
	var id uint64 // 0: a notice
	if caller == Native && len(first) >= protocol.HeaderBytes {
		id = binary.LittleEndian.Uint64(first[8:])
	}
	return encode(caller.form(at), id, text)
}

// Foreign is Answer for the peer port, as package raftgroup/peer asks for it: nil
// for first bytes that are not recognized.
func (s *Ports) Foreign(first []byte) (answer []byte, more bool) {
	caller, more := Recognize(first)
	if caller == Unknown || caller == Node {
		return nil, more
	}
	answer, _ = s.Answer(Peer, caller, first)
	return answer, false
}

func (s *Ports) text(at Port, caller Protocol) string {
	here := "this is Proa's " + at.String()
	switch caller {
	case TLS:
		switch {
		case at == Peer:
		case s != nil && s.tls.Load():
			return here + ", which does not speak TLS on a unix socket; connect without TLS"
		default:
			here += ", which does not speak TLS (tls.cert is not set)"
		}
		return here + "; connect without TLS"
	case Native:
		return here + "; " + s.use(clientsUse, Client)
	case RESP:
		return here + "; " + s.use("Redis clients use", Redis)
	case HTTP:
		return here + "; " + s.use("health, status and metrics over HTTP are at", Admin)
	case Node:
		return here + "; " + s.use("other nodes use", Peer)
	}
	return here
}

// clientsUse leads to the client port in an answer.
const clientsUse = "Proa clients use"

// ClientAddress returns the address of the client port that an answer to one of
// Proa's own clients names: host:port, or :port where the server listens at all
// addresses of its host. Text around the answer is left out.
func ClientAddress(answer string) (address string, ok bool) {
	_, answer, ok = strings.Cut(answer, "; "+clientsUse+" ")
	if port, all := strings.CutPrefix(answer, anyHost); all {
		answer = ":" + port
	}
	address, _, _ = strings.Cut(answer, " ")
	if _, _, err := net.SplitHostPort(address); !ok || err != nil {
		return "", false
	}
	return address, true
}

// anyHost stands for the host where a server listens at all addresses.
const anyHost = "port "

// use says which port to use.
func (s *Ports) use(who string, p Port) string {
	var known *Addresses
	if s != nil {
		known = s.addresses.Load()
	}
	switch {
	case known == nil:
		return who + " the " + p.String()
	case known[p] == "":
		return fmt.Sprintf("this node has no %s (%s turns it on)", p, names[p].flag)
	}
	with := ""
	if s.tlsAlone.Load() && p != Peer {
		with = " with TLS"
	}
	return who + " " + reachable(known[p]) + with
}

// reachable words an address for somebody who may be on another machine.
func reachable(address string) string {
	host, port, err := net.SplitHostPort(address)
	if ip := net.ParseIP(host); err == nil && (host == "" || ip != nil && ip.IsUnspecified()) {
		return anyHost + port
	}
	return address
}

// encode writes an error in a protocol; id is that of a native request.
func encode(p Protocol, id uint64, text string) []byte {
	switch p {
	case Native:
		return protocol.AppendError(nil, id, protocol.StatusHandshake, 0, text)
	case RESP:
		return []byte("-ERR " + text + "\r\n")
	}
	return fmt.Appendf(nil, "HTTP/1.1 400 Bad Request\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Length: %d\r\nConnection: close\r\n\r\n%s\n", len(text)+1, text)
}
