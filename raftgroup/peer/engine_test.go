package peer

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"net"
	"strings"
	"sync"
	"testing"
	"time"
)

// A handshake of nodes 1 and 2 of the version before engines had names (protocol version
// 3), recorded; and one of nodes with keys and a token.
const (
	plainHello = "f150726f61506565350001010003004d000000000000000100000000000000e90300000000000007006e313a37343031" +
		"07006e313a37343030040074657374cec33599"
	plainAnswer = "f150726f615065653400030000004d000000000000000200000000000000ea0300000000000007006e323a3734303107" +
		"006e323a3734303004007465737424b00e8e"
	plainVerdict = "f150726f6150656502000000ce9f28ee"
	keyedHello   = "f150726f615065658d0001010003004d000000000000000100000000000000e90300000000000007006e313a37343031" +
		"07006e313a373430300400746573748a88e3dd7409f195fd52db2d3cba5d72ca6709bf1d94121bf3748801b40f6f5c01" +
		"00000000000000e9030000000000004d00000000000000b556d0c662cddfca2157afab366e81bb5f09e7122053ddcac7" +
		"f10c375561489e7d9d9edd"
	keyedAnswer = "f150726f61506565ed00030000004d000000000000000200000000000000ea0300000000000007006e323a3734303107" +
		"006e323a373430300400746573748139770ea87d175f56a35466c34c7ecccb8d8a91b4ee37a25df60f5b8fc9b3940100" +
		"000000000000d1070000000000004d0000000000000085948bdb715e3cc8ac509980bcc41a74e2b3ccab056f87d39dd1" +
		"12b3b539cf610023a787efd91757e7f19a1ae1bf297094ddfeeac8b3feb8e0562e8ed1168c2167fe6b58c322b53b5180" +
		"3389e922a63426509cb1a2fb6e6aa656476c7ce8892c0fd4853b852a2d31d4f3d372dc21678a49190b7bba9e32407750" +
		"88b0f082585aa2d6aa8c59"
	keyedVerdict = "f150726f615065656300000000818c52791b66acc7fe545fd7445fd72debea996d46f6842c12ba0e82bc570bd666945c" +
		"33573920174e250e01ae0eb2c77bd97687ac8760237903fc3cc3760f09a2401613f950cb70eb1000142362a7f291bd4e" +
		"b22aae247e2921b31ef8ad0ac4a5a311b0"
	keyedWelcome = "f150726f615065650300000000818d7705"

	recordedToken = "a token of some length"
)

// recorded returns the bytes of a record, and its body.
func recorded(t *testing.T, text string) (record, body []byte) {
	t.Helper()
	record, err := hex.DecodeString(text)
	if err != nil {
		t.Fatal(err)
	}
	body, err = readRecord(bytes.NewReader(record))
	if err != nil {
		t.Fatal(err)
	}
	return record, body
}

// earlierIdentity is what a node of the recorded version says of itself.
func earlierIdentity(id Identity) Identity {
	id.Engine = ""
	return id
}

// engined has a node run an engine.
func engined(engine string) func(*Config, *testHandler) {
	return func(c *Config, h *testHandler) {
		c.Engine = engine
		h.client = func(_ uint64, c net.Conn) { c.Close() }
	}
}

// What was recorded is still understood, proofs included, and what is said to a node of
// that version is what one of its own would say.
func TestRecordedHandshake(t *testing.T) {
	_, said := recorded(t, plainHello)
	h, err := decodeHello(said)
	if want := (hello{kind: kindRaft, versionMin: 1, versionMax: 3, identity: earlierIdentity(identityOf(1))}); err != nil || h != want {
		t.Errorf("%+v, %v; want %+v", h, err, want)
	}
	_, said = recorded(t, keyedHello)
	if h, err = decodeHello(said); err != nil || !h.credentials.present || h.identity.Engine != "" || !bytes.Equal(h.encode(), said) {
		t.Errorf("%+v, %v", h, err)
	}
	_, body := recorded(t, keyedAnswer)
	a, unproven, err := decodeAnswer(body)
	if err != nil || a.identity.Engine != "" || !bytes.Equal(appendProof(a.encode(), &a.proof), body) {
		t.Fatalf("%+v, %v", a, err)
	}
	_, body = recorded(t, keyedVerdict)
	v, err := decodeVerdict(body, true)
	if err != nil {
		t.Fatal(err)
	}
	n := startNode(t, 3, func(_ *Config, h *testHandler) { h.token = recordedToken })
	s := transcript{hello: sha256.Sum256(said), answer: sha256.Sum256(unproven)}
	if err := n.check(&a.identity, labelAcceptor, &s, &a.proof); err != nil || !a.identity.Token {
		t.Error(err, a.identity.Token)
	}
	if err := n.check(&h.identity, labelDialler, &s, &v.proof); err != nil || !h.identity.Token {
		t.Error(err, h.identity.Token)
	}
	_, body = recorded(t, keyedWelcome)
	if w, err := decodeWelcome(body); err != nil || w != (welcome{}) {
		t.Error(w, err)
	}
}

// A node of the recorded version dials: it gets the very answer that it knows, and a
// node with another engine refuses it.
func TestEarlierVersionDials(t *testing.T) {
	say := func(t *testing.T, b *testNode) (c net.Conn, answered []byte) {
		c, err := net.Dial("tcp", b.address())
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { c.Close() })
		c.SetDeadline(time.Now().Add(patience))
		record, _ := recorded(t, plainHello)
		if _, err := c.Write(record); err != nil {
			t.Fatal(err)
		}
		if answered, err = readRecord(c); err != nil {
			t.Fatal(err)
		}
		return c, answered
	}
	admitted := make(chan Identity, 8)
	b := startNode(t, 2, func(_ *Config, h *testHandler) { h.admit = func(id Identity) error { admitted <- id; return nil } })
	c, answered := say(t, b)
	if _, want := recorded(t, plainAnswer); !bytes.Equal(answered, want) {
		t.Errorf("answered %x, want %x", answered, want)
	}
	record, _ := recorded(t, plainVerdict)
	frame := frameOf(frameMessages, encodeMessages(t, 2, []Message{{Raft: *heartbeat(5)}}))
	if _, err := c.Write(append(record, frame.B...)); err != nil {
		t.Fatal(err)
	}
	if m := receive(t, b.h.messages); m.from != 1 || m.Raft.Term != 5 {
		t.Errorf("%+v", m)
	}
	if id := receive(t, admitted); id != identityOf(1) {
		t.Errorf("admitted %+v", id)
	}

	other := startNode(t, 2, engined("dragonboat"))
	_, answered = say(t, other)
	a, _, err := decodeAnswer(answered)
	if err != nil || !strings.Contains(a.refusal, `node 2 runs the Raft engine "dragonboat" and node 1 runs "etcd"`) || a.identity.Engine != "" {
		t.Errorf("%+v, %v", a, err)
	}
	other.log.wait(t, "correct raft.engine")
}

// The same with keys: what the answer has behind its code is a proof, of what stands
// before.
func TestEarlierVersionDialsWithKey(t *testing.T) {
	b := startProven(t, 2, 1, func(_ *Config, h *testHandler) { h.token = recordedToken })
	_, said := recorded(t, keyedHello)
	h, err := decodeHello(said)
	if err != nil {
		t.Fatal(err)
	}
	c, a := rawHello(t, b, h)
	if _, body := recorded(t, keyedAnswer); a.identity.Engine != "" || len(appendProof(a.encode(), &a.proof)) != len(body) {
		t.Errorf("%+v", a)
	}
	dialler := startProven(t, 1, 1, func(_ *Config, h *testHandler) { h.token = recordedToken })
	s := transcript{hello: sha256.Sum256(said), answer: sha256.Sum256(a.encode())}
	if err := dialler.check(&a.identity, labelAcceptor, &s, &a.proof); err != nil || !a.identity.Token {
		t.Error(err, a.identity.Token)
	}
	if err := writeRecord(c, (&verdict{proven: true, proof: dialler.prove(labelDialler, &s)}).encode()); err != nil {
		t.Fatal(err)
	}
	body, err := readRecord(c)
	if err != nil {
		t.Fatal(err)
	}
	if w, err := decodeWelcome(body); err != nil || w != (welcome{}) {
		t.Error(w, err)
	}
}

// earlierAcceptor answers one handshake as a node 2 of the recorded version would, with
// its key if keyed, and returns what it is told in the end.
func earlierAcceptor(t *testing.T, keyed bool) (address string, told <-chan verdict) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	text := plainAnswer
	if keyed {
		text = keyedAnswer
	}
	_, known := recorded(t, plainHello) // in one with a key, too, it stands first
	_, body := recorded(t, text)
	signer := startProven(t, 2, 1, func(_ *Config, h *testHandler) { h.token = recordedToken })
	verdicts := make(chan verdict, 1)
	serve := func(c net.Conn) error {
		said, err := readRecord(c)
		if err != nil {
			return err
		}
		if !bytes.HasPrefix(said, known) {
			return fmt.Errorf("the hello is %x; it must begin with %x", said, known)
		}
		if keyed { // the recorded proof is about another hello
			unproven := body[:len(body)-proofBytes]
			p := signer.prove(labelAcceptor, &transcript{hello: sha256.Sum256(said), answer: sha256.Sum256(unproven)})
			body = appendProof(unproven, &p)
		}
		if err := writeRecord(c, body); err != nil {
			return err
		}
		judged, err := readRecord(c)
		if err != nil {
			return err
		}
		v, err := decodeVerdict(judged, keyed)
		if err == nil && keyed && v.refusal == "" {
			err = writeRecord(c, (&welcome{}).encode())
		}
		verdicts <- v
		return err
	}
	var served sync.WaitGroup
	served.Go(func() {
		c, err := l.Accept()
		if err == nil {
			err = serve(c)
			c.Close()
		}
		if err != nil {
			t.Error(err)
		}
	})
	t.Cleanup(func() {
		l.Close()
		served.Wait()
	})
	return l.Addr().String(), verdicts
}

// A node of the recorded version is dialled: a node with another engine refuses it.
func TestEarlierVersionIsDialled(t *testing.T) {
	for _, keyed := range []bool{false, true} {
		for _, engine := range []string{"", "dragonboat"} {
			t.Run(fmt.Sprintf("keyed: %v, engine %q", keyed, engine), func(t *testing.T) {
				a := startNode(t, 1, func(c *Config, h *testHandler) { c.Engine, h.token = engine, recordedToken })
				if keyed {
					a.SetKey(keyOf(1))
					a.SetIdentity(earlierIdentity(runOf(1, 1)))
				}
				address, told := earlierAcceptor(t, keyed)
				c, answered, err := a.dial(t.Context(), address, kindRaft, 2)
				v := receive(t, told)
				if engine == "" {
					if err != nil || v.refusal != "" || answered.identity.Engine != engineEtcd {
						t.Fatal(err, v.refusal, answered.identity.Engine)
					}
					c.Close()
					return
				}
				const says = `node 1 runs the Raft engine "dragonboat" and node 2 runs "etcd"`
				var refused *RefusedError
				if !errors.As(err, &refused) || !refused.Here || !strings.Contains(refused.Reason, says) || v.refusal != refused.Reason {
					t.Errorf("%v, %q", err, v.refusal)
				}
			})
		}
	}
}

// Nodes with different engines refuse each other, whoever dials, for whatever.
func TestOttheirsIsRefused(t *testing.T) {
	start := map[bool]func(*testing.T, uint64, string) *testNode{
		false: func(t *testing.T, node uint64, engine string) *testNode { return startNode(t, node, engined(engine)) },
		true: func(t *testing.T, node uint64, engine string) *testNode {
			return startProven(t, node, 1, engined(engine))
		},
	}
	for keyed, start := range start {
		for _, engines := range [][2]string{{"", "dragonboat"}, {"dragonboat", "etcd"}, {"dragonboat", "dragonboat"}} {
			t.Run(fmt.Sprintf("keyed: %v, %q", keyed, engines), func(t *testing.T) {
				a, b := start(t, 1, engines[0]), start(t, 2, engines[1])
				for _, kind := range []connKind{kindRaft, kindSnapshot, kindClient, kindCall} {
					c, answered, err := a.dial(t.Context(), b.address(), kind, 2)
					if engines[0] == engines[1] {
						if err != nil || answered.identity.Engine != engines[1] {
							t.Fatal(err, answered.identity.Engine)
						}
						c.Close()
						continue
					}
					var refused *RefusedError
					if !errors.As(err, &refused) || !strings.Contains(refused.Reason, `node 2 runs the Raft engine "`+engines[1]+`" and node 1 runs`) ||
						!strings.Contains(refused.Reason, "correct raft.engine") || len(refused.Reason) > stringBytesMax {
						t.Errorf("kind %d: %v", kind, err)
					}
				}
				if engines[0] != engines[1] {
					b.log.wait(t, "node 1 runs")
				}
			})
		}
	}
}

// Strangers may have any engine: they ask before they know which. What they are told
// names it.
func TestStrangersOfOttheirss(t *testing.T) {
	asked := make(chan Identity, 2)
	call := func(_ context.Context, from Identity, _ string, _ []byte) ([]byte, error) {
		asked <- from
		return nil, nil
	}
	member := startNode(t, 2, func(c *Config, h *testHandler) { c.Engine, h.call = "dragonboat", call })
	stranger := startNode(t, 1, func(_ *Config, h *testHandler) { h.call = call })
	stranger.SetIdentity(Identity{UID: 5})
	for _, way := range []struct {
		from, to       *testNode
		engine, theirs string
	}{{stranger, member, "etcd", "dragonboat"}, {member, stranger, "dragonboat", "etcd"}} {
		there, _, err := way.from.CallAddress(t.Context(), way.to.address(), "join", nil)
		if err != nil || there.Engine != way.theirs {
			t.Fatal(err, there.Engine)
		}
		if id := receive(t, asked); id.Engine != way.engine {
			t.Errorf("asked by %+v", id)
		}
	}
}

// The proofs cover the engines' names.
func TestEngineIsProven(t *testing.T) {
	b := startProven(t, 2, 1, nil)
	a := startProven(t, 1, 1, func(c *Config, _ *testHandler) {
		c.Engine = "dragonboat"
		first := true
		c.Dial = tampered(func(c net.Conn, p []byte) (int, error) {
			if !first {
				return c.Write(p)
			}
			first = false
			body, err := readRecord(bytes.NewReader(p))
			if err != nil {
				return 0, err
			}
			h, err := decodeHello(body)
			if err != nil {
				return 0, err
			}
			h.identity.Engine = engineEtcd
			return len(p), writeRecord(c, h.encode())
		})
	})
	if _, _, err := a.dial(t.Context(), b.address(), kindRaft, 2); err == nil || !strings.Contains(err.Error(), "the signature of node 2 does not match its key") {
		t.Error(err)
	}
	h := hello{kind: kindRaft, versionMin: 1, versionMax: 3, identity: runOf(1, 1), credentials: credentials{present: true}}
	copy(h.identity.Key[:], keyOf(1).Public().(ed25519.PublicKey))
	_, answered := rawHello(t, b, h)
	unproven := answered.encode()
	s := transcript{hello: sha256.Sum256(h.encode()), answer: sha256.Sum256(unproven)}
	if err := b.check(&answered.identity, labelAcceptor, &s, &answered.proof); err != nil || answered.identity.Engine != engineEtcd {
		t.Fatal(err, answered.identity.Engine)
	}
	unproven[len(unproven)-1] ^= 1 // the name's last byte
	s.answer = sha256.Sum256(unproven)
	if err := b.check(&answered.identity, labelAcceptor, &s, &answered.proof); !errors.Is(err, ErrDamaged) {
		t.Error(err)
	}
}
