package peer

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"errors"
	"fmt"
	"net"
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

// keyOf returns a node's key pair, the same in each test.
func keyOf(node uint64) ed25519.PrivateKey {
	return ed25519.NewKeyFromSeed(bytes.Repeat([]byte{byte(node)}, ed25519.SeedSize))
}

// runOf is what a run of a node says of itself.
func runOf(node, run uint64) Identity {
	id := identityOf(node)
	id.Generation, id.Run, id.Began = run, 1000*node+run, 77
	return id
}

// startProven starts a node with a key.
func startProven(t *testing.T, node, run uint64, setup func(*Config, *testHandler)) *testNode {
	t.Helper()
	n := startNode(t, node, setup)
	n.SetKey(keyOf(node))
	n.SetIdentity(earlierIdentity(runOf(node, run)))
	return n
}

func TestCredentials(t *testing.T) {
	h := hello{kind: kindRaft, versionMin: 1, versionMax: 2, identity: runOf(4, 2), credentials: credentials{present: true, nonce: [32]byte{1, 2, 3}}}
	copy(h.identity.Key[:], keyOf(4).Public().(ed25519.PublicKey))
	out, err := decodeHello(append(h.encode(), "what a later version adds"...))
	if err != nil || out != h {
		t.Fatalf("%+v, %v", out, err)
	}
	plain := hello{kind: h.kind, versionMin: 1, versionMax: 2, identity: identityOf(4)}
	plain.identity.Engine = ""
	if rest, ok := bytes.CutPrefix(h.encode(), plain.encode()); !ok || len(rest) != credentialsBytes+engineEtcdBytes {
		t.Errorf("an earlier version does not find what it knows at the front")
	}
	a := answer{version: 2, identity: h.identity, credentials: h.credentials, code: CodeTwin}
	unproven := a.encode()
	a.proof = proof{signature: [64]byte{5, 6}, mac: [32]byte{7, 8}}
	whole := appendProof(bytes.Clone(unproven), &a.proof)
	got, front, err := decodeAnswer(append(bytes.Clone(whole), "more"...))
	if err != nil || got != a || !bytes.Equal(front, unproven) {
		t.Fatalf("%+v, %v", got, err)
	}
	for cut := len(unproven); cut < len(whole); cut++ {
		if cut == len(whole)-engineEtcdBytes {
			continue // as long as one without an engine
		}
		if _, _, err := decodeAnswer(whole[:cut]); !errors.Is(err, ErrDamaged) {
			t.Fatal(cut, err)
		}
	}
	v := verdict{refusal: "no", proven: true, code: CodeOlder, proof: a.proof}
	if got, err := decodeVerdict(v.encode(), true); err != nil || got != v {
		t.Fatalf("%+v, %v", got, err)
	}
	if _, err := decodeVerdict((&verdict{}).encode(), true); !errors.Is(err, ErrDamaged) {
		t.Error(err)
	}
	w := welcome{refusal: "no", code: CodeOlder}
	if got, err := decodeWelcome(w.encode()); err != nil || got != w {
		t.Fatalf("%+v, %v", got, err)
	}
	if _, err := decodeWelcome([]byte{1}); !errors.Is(err, ErrDamaged) {
		t.Error(err)
	}
}

// Both sides learn what the other has proven, whoever dials.
func TestProofs(t *testing.T) {
	for _, tt := range []struct{ tokenA, tokenB string }{{"", ""}, {"a token of some length", "a token of some length"}, {"a token of some length", "another one, as long"}, {"", "another one, as long"}} {
		t.Run(fmt.Sprintf("%q, %q", tt.tokenA, tt.tokenB), func(t *testing.T) {
			admitted := make(chan Identity, 8)
			note := func(id Identity) error { admitted <- id; return nil }
			a := startProven(t, 1, 1, func(_ *Config, h *testHandler) { h.token, h.admit = tt.tokenA, note })
			b := startProven(t, 2, 1, func(_ *Config, h *testHandler) { h.token, h.admit = tt.tokenB, note })
			c, _, err := a.dial(t.Context(), b.address(), kindRaft, 2)
			if err != nil {
				t.Fatal(err)
			}
			c.Close()
			for range 2 {
				id := receive(t, admitted)
				want := runOf(id.Node, 1)
				copy(want.Key[:], keyOf(id.Node).Public().(ed25519.PublicKey))
				want.Signed, want.Token = true, tt.tokenA != "" && tt.tokenA == tt.tokenB
				want.otherToken = id.otherToken // is of use to strangers only
				if id != want {
					t.Errorf("admitted %+v, want %+v", id, want)
				}
			}
		})
	}
}

// A node that was started without a token learns its cluster's when its stores are
// open, between the proof of another node and the verdict about it: that is no other
// token.
func TestTokenLearntDuringHandshake(t *testing.T) {
	const token = "a token of some length"
	member := startProven(t, 1, 1, func(_ *Config, h *testHandler) { h.token = token })
	for asked := range int64(4) {
		var n atomic.Int64
		opening := startNode(t, 2, func(_ *Config, h *testHandler) {
			h.call = func(context.Context, Identity, string, []byte) ([]byte, error) { return nil, nil }
			h.tokens = func() string {
				if n.Add(1) <= asked {
					return ""
				}
				return token
			}
		})
		opening.SetKey(keyOf(2))
		opening.SetIdentity(Identity{Node: 2, UID: 1002, Peer: "x:1"})
		if _, _, err := member.CallAddress(t.Context(), opening.address(), "who", nil); err != nil {
			t.Errorf("token known after being asked for %d times: %v", asked, err)
		}
	}
}

// TestClusterSecret has two nodes meet, each of which dials the other: they talk only if both
// have proven to know the same secret, unless who misses that takes it as optional.
func TestClusterSecret(t *testing.T) {
	const one, other = "a cluster secret of thirty-two bytes", "another secret of thirty-two bytes, or more"
	for _, tt := range []struct {
		name                 string
		a, b                 string
		optionalA, optionalB bool
		key                  bool // of node b
		ok                   bool
	}{
		{"the same", one, one, false, false, true, true},
		{"different ones", one, other, false, false, true, false},
		{"only one has it", one, "", false, false, true, false},
		{"nobody has it", "", "", false, false, true, true},
		{"only one has it, and it is optional there", one, "", true, false, true, true},
		{"only one has it, and it is optional elsewhere", one, "", false, true, true, false},
		{"different ones, optional on both", one, other, true, true, true, true},
		{"different ones, optional on one", one, other, true, false, true, false},
		{"a node that proves nothing", one, one, false, false, false, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			answer := func(context.Context, Identity, string, []byte) ([]byte, error) { return []byte("here"), nil }
			a := startProven(t, 1, 1, func(c *Config, h *testHandler) { c.Secret, c.SecretOptional, h.call = tt.a, tt.optionalA, answer })
			start := startProven
			if !tt.key {
				start = func(t *testing.T, node, _ uint64, setup func(*Config, *testHandler)) *testNode {
					return startNode(t, node, setup)
				}
			}
			b := start(t, 2, 1, func(c *Config, h *testHandler) { c.Secret, c.SecretOptional, h.call = tt.b, tt.optionalB, answer })
			stranger := startNode(t, 3, func(c *Config, h *testHandler) { c.Secret, c.SecretOptional = tt.b, tt.optionalB })
			stranger.SetKey(keyOf(3))
			stranger.SetIdentity(Identity{Node: 3, UID: 1003, Peer: "x:1"})
			for _, way := range []struct {
				name     string
				from, to *testNode
				ok       bool
			}{{"a to b", a, b, tt.ok}, {"b to a", b, a, tt.ok}, {"a stranger to a", stranger, a, tt.ok || !tt.key}} {
				_, reply, err := way.from.CallAddress(t.Context(), way.to.address(), "who", nil)
				var refused *RefusedError
				switch {
				case way.ok && (err != nil || string(reply) != "here"):
					t.Errorf("%s: %q, %v", way.name, reply, err)
				case !way.ok && (!errors.As(err, &refused) || !strings.Contains(err.Error(), "cluster secret")):
					t.Errorf("%s: %q, %v", way.name, reply, err)
				}
			}
		})
	}
	for n, ok := range map[int]bool{SecretBytesMin - 1: false, SecretBytesMin: true} {
		if _, err := (Config{Secret: strings.Repeat("s", n)}).withDefaults(); (err == nil) != ok {
			t.Errorf("a secret of %d bytes: %v", n, err)
		}
	}
}

// TestSecretIsNotSent looks for the secret, and for equal proofs, in what two nodes say.
func TestSecretIsNotSent(t *testing.T) {
	const secret = "a cluster secret of thirty-two bytes"
	s := transcript{hello: [32]byte{1}, answer: [32]byte{2}}
	n := startProven(t, 1, 1, func(c *Config, _ *testHandler) { c.Secret = secret })
	a, d := n.prove(labelAcceptor, &s), n.prove(labelDialler, &s)
	if a.secret == d.secret {
		t.Error("a proof can be sent back to where it comes from")
	}
	next := transcript{hello: [32]byte{1}, answer: [32]byte{3}}
	if again := n.prove(labelAcceptor, &next); again.secret == a.secret {
		t.Error("the proof is the same in another handshake")
	}
	if b := appendProof(nil, &a); bytes.Contains(b, []byte(secret)) || len(b) != proofBytes+macBytes {
		t.Errorf("%q", b)
	}
}

// A node of an earlier version proves nothing, and hears what it knows.
func TestProofsOfEarlierVersions(t *testing.T) {
	admitted := make(chan Identity, 8)
	a := startNode(t, 1, nil)
	b := startProven(t, 2, 1, func(_ *Config, h *testHandler) { h.admit = func(id Identity) error { admitted <- id; return nil } })
	join(t, a, b)
	if id := receive(t, admitted); id != identityOf(1) {
		t.Errorf("admitted %+v", id)
	}
}

// What a stranger has seen of another's handshake is of no use to it.
func TestProofIsNotTransferable(t *testing.T) {
	b := startProven(t, 2, 1, nil)
	id := runOf(1, 1)
	copy(id.Key[:], keyOf(1).Public().(ed25519.PublicKey))
	h := hello{kind: kindRaft, versionMin: 1, versionMax: 2, identity: id, credentials: credentials{present: true}}
	c, _ := rawHello(t, b, h)
	thief := startProven(t, 3, 1, nil) // has another key
	v := verdict{proven: true, proof: thief.prove(labelDialler, &transcript{})}
	if err := writeRecord(c, v.encode()); err != nil {
		t.Fatal(err)
	}
	closedByPeer(t, c)
	b.log.wait(t, "the signature of node 1 does not match its key")
}

// A refusal's code reaches the handler of the refused side, whoever dialled.
func TestCodedRefusal(t *testing.T) {
	for _, dialler := range []bool{true, false} {
		t.Run(fmt.Sprint("the refused one dials: ", dialler), func(t *testing.T) {
			heard := make(chan string, 8)
			a := startProven(t, 1, 1, func(_ *Config, h *testHandler) {
				h.refused = func(by Identity, code Code, reason string) {
					heard <- fmt.Sprintf("node %d, signed %v, code %d: %s", by.Node, by.Signed, code, reason)
				}
			})
			b := startProven(t, 2, 1, func(_ *Config, h *testHandler) {
				h.admit = func(Identity) error { return &CodedError{CodeOlder, errors.New("it is old")} }
			})
			from, to := a, b
			if !dialler {
				from, to = b, a
			}
			_, _, err := from.dial(t.Context(), to.address(), kindRaft, to.id)
			var refused *RefusedError
			if !errors.As(err, &refused) {
				t.Fatal(err)
			}
			if got, want := receive(t, heard), "node 2, signed true, code 1: it is old"; got != want {
				t.Errorf("heard %q, want %q", got, want)
			}
		})
	}
}

// A copy of a node is refused while the original runs, and the original is not
// disturbed; once it has ended, its next run is let in.
func TestTwin(t *testing.T) {
	b := startProven(t, 2, 1, nil)
	original := startProven(t, 1, 1, nil)
	join(t, original, b)
	stop := make(chan struct{})
	beating := make(chan struct{})
	go func() {
		defer close(beating)
		tick := time.NewTicker(10 * time.Millisecond)
		defer tick.Stop()
		for {
			select {
			case <-stop:
				return
			case <-b.h.reports:
			case <-tick.C:
				original.Report(2, []byte("{}"))
			}
		}
	}()
	twin := startProven(t, 1, 2, nil)
	_, _, err := twin.dial(t.Context(), b.address(), kindRaft, 2)
	if err == nil || !strings.Contains(err.Error(), "is a copy of its data directory") {
		t.Errorf("the copy is let in: %v", err)
	}
	if s := original.peerStatus(t, 2); !s.Connected || original.connects(2) != 1 {
		t.Errorf("the original is disturbed: %+v", s)
	}
	close(stop)
	<-beating
	original.Close()
	eventually(t, func() bool {
		var c net.Conn
		c, _, err = twin.dial(t.Context(), b.address(), kindRaft, 2)
		if err == nil {
			c.Close()
		}
		return err == nil
	})
}

// A copy at another address is found out by asking at the known one.
func TestTwinElsewhere(t *testing.T) {
	b := startProven(t, 2, 1, nil)
	original := startProven(t, 1, 1, nil)
	b.SetPeer(1, original.address())
	twin := startProven(t, 1, 2, nil)
	_, _, err := twin.dial(t.Context(), b.address(), kindRaft, 2)
	if err == nil || !strings.Contains(err.Error(), "is a copy of its data directory") {
		t.Errorf("the copy is let in: %v", err)
	}
}

// Nobody looks for a twin of who is not the node that it says it is: that dials
// and waits.
func TestStrangerProbesNobody(t *testing.T) {
	b := startProven(t, 2, 1, func(_ *Config, h *testHandler) {
		h.recognize = func(Identity) error { return errors.New("that is not its key") }
	})
	original := startProven(t, 1, 1, nil)
	b.SetPeer(1, original.address()) // where it would be found to run already
	stranger := startProven(t, 1, 2, nil)
	_, _, err := stranger.dial(t.Context(), b.address(), kindCall, 2)
	if err == nil || !strings.Contains(err.Error(), "that is not its key") {
		t.Errorf("let in: %v", err)
	}
}
