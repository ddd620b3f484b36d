package peer

import (
	"context"
	"crypto/ed25519"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"fmt"
	"time"
)

// # Proofs
//
// A node has a key pair of its own, made with its data directory, and a cluster
// has a join token. Both sides of a handshake draw a nonce, and each signs the
// hello and the answer, nonces included, with its key and with the token:
//
//	signature  Ed25519 by the node's key
//	mac        HMAC-SHA256 keyed by the token, zeros for a node without one
//	secret     HMAC-SHA256 keyed by the cluster secret, if the node was given one
//
// of the side's label, SHA-256 of the hello and SHA-256 of the answer up to its
// proof. So neither key, token nor secret travels, and nothing said in one handshake
// is good for another. What follows the handshake is neither signed nor encrypted.
//
// The join token is for nodes that are not members yet, and ends. The cluster secret is
// for all nodes, at any time: a stranger who does not know it is told nothing but that.
const (
	nonceBytes     = 32
	macBytes       = sha256.Size
	signatureBytes = ed25519.SignatureSize

	labelAcceptor = "proa peer: acceptor"
	labelDialler  = "proa peer: dialler"
	labelSecret   = "proa peer: secret" // beside one of the two
)

// Key is the public half of a node's key pair; zero stands for none.
type Key [ed25519.PublicKeySize]byte

// credentials are what a hello or an answer says to be proven.
type credentials struct {
	present bool // nodes of earlier versions, and those without a key, have none
	nonce   [nonceBytes]byte
}

// proof is a side's signature and MAC.
type proof struct {
	signature [signatureBytes]byte
	mac       [macBytes]byte
	knows     bool // it has a secret
	secret    [macBytes]byte
}

// newCredentials returns credentials for one handshake.
func newCredentials(t *Transport) (c credentials) {
	if t.key.Load() == nil {
		return c
	}
	c.present = true
	if _, err := rand.Read(c.nonce[:]); err != nil {
		panic(err) // never
	}
	return c
}

// transcript is what both sides have said.
type transcript struct{ hello, answer [sha256.Size]byte }

func (s *transcript) message(label string) []byte {
	b := append([]byte(label), s.hello[:]...)
	return append(b, s.answer[:]...)
}

// prove returns this node's proof.
func (t *Transport) prove(label string, s *transcript) (p proof) {
	m := s.message(label)
	copy(p.signature[:], ed25519.Sign(*t.key.Load(), m))
	if token := t.handler().JoinToken(); token != "" {
		copy(p.mac[:], macOf(token, m))
	}
	if p.knows = t.cfg.Secret != ""; p.knows {
		copy(p.secret[:], macOf(t.cfg.Secret, s.message(labelSecret+label)))
	}
	return p
}

// check notes in id what p proves of it.
func (t *Transport) check(id *Identity, label string, s *transcript, p *proof) error {
	m := s.message(label)
	if !ed25519.Verify(id.Key[:], m, p.signature[:]) {
		return damaged("the signature of node %d does not match its key", id.Node)
	}
	id.Signed = true
	token := t.handler().JoinToken()
	id.Token = token != "" && hmac.Equal(macOf(token, m), p.mac[:])
	id.otherToken = token != "" && !id.Token
	id.secret = p.knows && t.cfg.Secret != "" && hmac.Equal(macOf(t.cfg.Secret, s.message(labelSecret+label)), p.secret[:])
	return nil
}

func macOf(token string, m []byte) []byte {
	h := hmac.New(sha256.New, []byte(token))
	h.Write(m)
	return h.Sum(nil)
}

// Code says of a refusal what a program must know of it.
type Code uint8

const (
	// CodeNone is any refusal; the sentence says all.
	CodeNone Code = 0
	// CodeOlder refuses a node whose directory is older than what it has
	// confirmed.
	CodeOlder Code = 1
	// CodeTwin refuses one of two processes that run at the same time as the
	// same node.
	CodeTwin Code = 2
	// CodeToken refuses a node that was given another join token.
	CodeToken Code = 3
	// CodeRemoved refuses a node that was removed from the cluster.
	CodeRemoved Code = 4
	// CodeLeftOut refuses a node that the cluster was recovered without.
	CodeLeftOut Code = 5
	// CodeSecret refuses a node that does not know the cluster secret.
	CodeSecret Code = 6
)

// CodedError is an error of Handler.Admit with a code for the other side.
type CodedError struct {
	Code Code
	Err  error
}

func (e *CodedError) Error() string { return e.Err.Error() }
func (e *CodedError) Unwrap() error { return e.Err }

// # Two processes as one node
//
// A copy of a data directory has the key of the original. Each start of a
// process draws a number, its run, and of two runs that are alive at the same
// time the one that came first stays.

const (
	// twinPatience is how long a run must be silent to count as ended, where
	// its connection stands. It reports every second.
	twinPatience = 2500 * time.Millisecond
	// twinEcho is how long what a dead process has left on its connection may
	// take to be read.
	twinEcho = 500 * time.Millisecond
	twinPoll = 20 * time.Millisecond
	// twinProbe bounds the attempt to find another run at its address.
	twinProbe = time.Second
)

// twin returns why a run of a node is refused because another one is alive.
func (t *Transport) twin(theirs *Identity) error {
	if theirs.Run == 0 || !theirs.Signed {
		return nil
	}
	t.mu.Lock()
	known := t.runs[theirs.Node] == theirs.Run
	t.mu.Unlock()
	if !known {
		if err := t.probeKnownAddress(theirs); err != nil {
			return err
		}
	}
	for began := time.Now(); ; {
		t.mu.Lock()
		in := t.inbound[theirs.Node]
		t.mu.Unlock()
		if in == nil || in.from.Run == theirs.Run || in.from.Run == 0 {
			return nil
		}
		heard := t.began.Add(time.Duration(in.heard.Load()))
		switch waited := time.Since(began); {
		case heard.Sub(began) > twinEcho:
			return twinError(theirs, in.conn.RemoteAddr().String())
		case waited > twinPatience:
			return nil
		}
		select {
		case <-time.After(twinPoll):
		case <-t.ctx.Done():
			return ErrClosed
		}
	}
}

// probeKnownAddress looks whether another run is at the address where the node
// is known to be, if it now says that it is elsewhere.
func (t *Transport) probeKnownAddress(theirs *Identity) error {
	p := t.peer(theirs.Node)
	if p == nil {
		return nil
	}
	address := p.addressNow()
	if address == theirs.Peer || theirs.Peer == "" {
		return nil
	}
	ctx, cancel := context.WithTimeout(t.ctx, twinProbe)
	defer cancel()
	c, err := t.connect(ctx, address)
	if err != nil {
		return nil
	}
	defer t.drop(c)
	stop := context.AfterFunc(ctx, func() { c.Close() })
	defer stop()
	there, err := greet(t, c, kindCall)
	if err == nil && there.identity.Signed && there.identity.Key == theirs.Key && there.identity.Run != theirs.Run {
		return twinError(theirs, address)
	}
	return nil
}

func twinError(theirs *Identity, address string) error {
	return &CodedError{CodeTwin, fmt.Errorf("node %d is already running, connected from %s, and this is a copy of its data directory; stop one of the two and erase the copy", theirs.Node, address)}
}
