package peer

import (
	"bytes"
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"net"
	"strings"
	"time"

	"github.com/proa-kv/proa/internal/fields"
)

// The handshake has three records: the dialler's hello, the acceptor's answer
// and, unless that is a refusal, the dialler's verdict. Each is
//
//	8 bytes  magic
//	u16      bytes of the body, at most handshakeBytesMax
//	         body
//	u32      CRC32C of all before
//
// which stays as it is in all versions, so that any two nodes can tell each
// other why they will not work together. Bodies may grow at their end; an answer
// may before its proof, where the hello shows that the dialler knows it.
//
// Between nodes that have keys each side proves who it is, the acceptor in its
// answer, the dialler in its verdict; see proof.go. A fourth record, the
// acceptor's welcome, says what it makes of that.
const (
	// magic begins with a byte that no text protocol and no TLS record begins
	// with.
	magic = "\xf1ProaPee"

	recordPrefixBytes = len(magic) + 2

	engineEtcd = "etcd" // which nodes of earlier versions have, and do not say
)

// connKind says what a connection is for.
type connKind uint8

const (
	kindRaft     connKind = 1
	kindSnapshot connKind = 2
	kindClient   connKind = 3
	kindCall     connKind = 4 // one call of whoever knows the address
)

// Identity is what a node says of itself in the handshake. Only Signed and Token
// are more than its word.
type Identity struct {
	// Cluster is the cluster's id; 0: the node has none yet.
	Cluster uint64
	// Node is the node's number; 0: it has none yet and asks for one.
	Node uint64
	// UID is random, made with the data directory. It tells a node whose disk
	// was wiped from the node it was.
	UID uint64
	// Peer and Client are the advertised addresses, host:port, of at most 512
	// bytes; more is cut off.
	Peer, Client string
	// Version is the program's, for people.
	Version string
	// Engine is the name of its Raft engine. Nodes of earlier versions, which do not
	// say it, have etcd's. In SetIdentity it may be empty: Config's is said then.
	Engine string

	// Key is the node's, zero where it has none.
	Key Key
	// Generation counts the starts of the node, Run is a random number of this
	// start, and Began is how far its log had come then. Zero: not said.
	Generation, Run, Began uint64

	// Signed: the node has proven to hold the private half of Key. Token: it
	// has proven to know the join token that this side knows. Neither travels.
	Signed, Token bool
	// otherToken: at the time of that proof this side knew a join token, and the
	// node proved to know none, or another.
	otherToken bool
	secret     bool // it has proven to know this side's cluster secret
}

// member reports whether the node belongs to a cluster.
func (id *Identity) member() bool { return id.Cluster != 0 && id.Node != 0 }

type hello struct {
	kind                   connKind
	versionMin, versionMax uint16
	identity               Identity
	credentials            credentials
}

type answer struct {
	version     uint16 // to be spoken
	refusal     string // not empty: the sentence of a refusal
	identity    Identity
	credentials credentials
	code        Code // of the refusal
	proof       proof
}

// verdict is the dialler's: a refusal of the acceptor, or none.
type verdict struct {
	refusal string
	proven  bool // it has a code and a proof
	code    Code
	proof   proof
}

// welcome is what the acceptor makes of a dialler that has proven itself.
type welcome struct {
	refusal string
	code    Code
}

func (h *hello) encode() []byte {
	b := append(make([]byte, 0, 256), byte(h.kind))
	b = le.AppendUint16(b, h.versionMin)
	b = le.AppendUint16(b, h.versionMax)
	b = appendIdentity(b, &h.identity)
	b = appendCredentials(b, &h.identity, &h.credentials)
	return appendEngine(b, &h.identity)
}

func decodeHello(p []byte) (h hello, err error) {
	c := fieldsOf(p)
	h.kind = connKind(c.U8())
	h.versionMin, h.versionMax = c.U16(), c.U16()
	h.identity = c.identity()
	if err := c.whole("hello"); err != nil {
		return h, err
	}
	h.credentials = c.credentials(&h.identity)
	if h.identity.Engine = c.engine(0); c.Short {
		return h, c.whole("name of an engine in the hello")
	}
	if h.versionMin == 0 || h.versionMin > h.versionMax {
		return h, damaged("the hello names protocol versions %d to %d", h.versionMin, h.versionMax)
	}
	return h, nil
}

// encode returns the answer up to its proof.
func (a *answer) encode() []byte {
	b := le.AppendUint16(make([]byte, 0, 512), a.version)
	b = appendString(b, a.refusal)
	b = appendIdentity(b, &a.identity)
	if b = appendCredentials(b, &a.identity, &a.credentials); a.credentials.present {
		b = append(b, byte(a.code))
	}
	return appendEngine(b, &a.identity)
}

// decodeAnswer also returns the part of p that comes before the proof.
func decodeAnswer(p []byte) (a answer, unproven []byte, err error) {
	c := fieldsOf(p)
	a.version, a.refusal, a.identity = c.U16(), c.text(), c.identity()
	if err := c.whole("answer to the hello"); err != nil {
		return a, nil, err
	}
	if a.credentials = c.credentials(&a.identity); !a.credentials.present {
		a.identity.Engine = c.engine(0)
		return a, nil, c.whole("name of an engine in the answer")
	}
	a.code = Code(c.U8())
	a.identity.Engine = c.engine(proofBytes)
	unproven = p[:len(p)-len(c.B)]
	a.proof = c.proof()
	return a, unproven, c.whole("proof in the answer")
}

func (v *verdict) encode() []byte {
	b := appendString(nil, v.refusal)
	if !v.proven {
		return b
	}
	return appendProof(append(b, byte(v.code)), &v.proof)
}

// decodeVerdict decodes a verdict, with a proof if one is due.
func decodeVerdict(p []byte, proven bool) (v verdict, err error) {
	c := fieldsOf(p)
	v.refusal = c.text()
	if v.proven = proven; proven {
		v.code, v.proof = Code(c.U8()), c.proof()
	}
	return v, c.whole("verdict of the handshake")
}

func (w *welcome) encode() []byte { return append(appendString(nil, w.refusal), byte(w.code)) }

func decodeWelcome(p []byte) (w welcome, err error) {
	c := fieldsOf(p)
	w.refusal, w.code = c.text(), Code(c.U8())
	return w, c.whole("welcome of the handshake")
}

func appendCredentials(b []byte, id *Identity, c *credentials) []byte {
	if !c.present {
		return b
	}
	b = append(b, id.Key[:]...)
	b = le.AppendUint64(b, id.Generation)
	b = le.AppendUint64(b, id.Run)
	b = le.AppendUint64(b, id.Began)
	return append(b, c.nonce[:]...)
}

func appendProof(b []byte, p *proof) []byte {
	b = append(append(b, p.signature[:]...), p.mac[:]...)
	if p.knows {
		b = append(b, p.secret[:]...)
	}
	return b
}

func appendIdentity(b []byte, id *Identity) []byte {
	b = le.AppendUint64(b, id.Cluster)
	b = le.AppendUint64(b, id.Node)
	b = le.AppendUint64(b, id.UID)
	b = appendString(b, id.Peer)
	b = appendString(b, id.Client)
	return appendString(b, id.Version)
}

// appendEngine appends what stands last, but for a proof.
func appendEngine(b []byte, id *Identity) []byte {
	if id.Engine == "" {
		return b
	}
	return appendString(b, id.Engine)
}

func appendString(b []byte, s string) []byte {
	s = clip(s, stringBytesMax)
	return append(le.AppendUint16(b, uint16(len(s))), s...)
}

// cursor reads fields.
type cursor struct{ fields.Reader }

func fieldsOf(p []byte) cursor { return cursor{fields.Reader{B: p}} }

// whole returns an error if a field of a record, which is named, was not there.
func (c *cursor) whole(name string) error {
	if c.Short {
		return damaged("truncated %s", name)
	}
	return nil
}

// text reads a string of the other side, fit to be printed.
func (c *cursor) text() string {
	n := int(c.U16())
	if n > stringBytesMax {
		n = -1
	}
	return printable(string(c.Bytes(n)))
}

func (c *cursor) identity() Identity {
	return Identity{
		Cluster: c.U64(), Node: c.U64(), UID: c.U64(),
		Peer: c.text(), Client: c.text(), Version: c.text(),
	}
}

// credentialsBytes are what appendCredentials appends.
const credentialsBytes = len(Key{}) + 3*8 + nonceBytes

// credentials reads what a node with a key has behind its identity.
func (c *cursor) credentials(id *Identity) (out credentials) {
	if len(c.B) < credentialsBytes {
		return out
	}
	out.present = true
	copy(id.Key[:], c.Bytes(len(id.Key)))
	id.Generation, id.Run, id.Began = c.U64(), c.U64(), c.U64()
	copy(out.nonce[:], c.Bytes(nonceBytes))
	return out
}

// engine reads the name of an engine, "" if no more than rest bytes are left: a node of
// an earlier version says none.
func (c *cursor) engine(rest int) string {
	if len(c.B) <= rest {
		return ""
	}
	return c.text()
}

// proofBytes are what appendProof appends, but for the part of the cluster secret.
const proofBytes = signatureBytes + macBytes

func (c *cursor) proof() (p proof) {
	copy(p.signature[:], c.Bytes(signatureBytes))
	copy(p.mac[:], c.Bytes(macBytes))
	if p.knows = len(c.B) >= macBytes; p.knows { // earlier versions have no secret
		copy(p.secret[:], c.Bytes(macBytes))
	}
	return p
}

func writeRecord(w io.Writer, body []byte) error {
	b := append(make([]byte, 0, recordPrefixBytes+len(body)+4), magic...)
	b = le.AppendUint16(b, uint16(len(body)))
	b = append(b, body...)
	b = le.AppendUint32(b, crc32.Checksum(b, castagnoli))
	_, err := w.Write(b)
	return err
}

// readRecord reads exactly one record: what follows it may be another
// protocol's. The error wraps ErrForeign for bytes that are no handshake at all.
func readRecord(r io.Reader) ([]byte, error) {
	prefix := make([]byte, recordPrefixBytes)
	for n := 0; n < len(prefix); {
		k, err := r.Read(prefix[n:])
		n += k
		if !bytes.HasPrefix([]byte(magic), prefix[:min(n, len(magic))]) {
			return nil, &foreignError{prefix[:n]}
		}
		if err != nil && n < len(prefix) {
			return nil, noEOF(err)
		}
	}
	n := int(le.Uint16(prefix[len(magic):]))
	if n > handshakeBytesMax {
		return nil, damaged("a handshake record claims %d bytes; the limit is %d", n, handshakeBytesMax)
	}
	b := make([]byte, n+4)
	if _, err := io.ReadFull(r, b); err != nil {
		return nil, noEOF(err)
	}
	crc := crc32.Update(crc32.Checksum(prefix, castagnoli), castagnoli, b[:n])
	if crc != le.Uint32(b[n:]) {
		return nil, damaged("checksum mismatch in the handshake")
	}
	return b[:n], nil
}

// readRemainder reads what else a foreign server says at once, and adds it to err: another
// port of Proa says which it is.
func readRemainder(c net.Conn, err error) {
	var foreign *foreignError
	if !errors.As(err, &foreign) {
		return
	}
	_ = c.SetReadDeadline(time.Now().Add(remainderTime))
	more, _ := io.ReadAll(io.LimitReader(c, stringBytesMax))
	foreign.first = append(foreign.first, more...)
}

// introduction begins the text in which a port of Proa answers first bytes of other
// protocols; see package internal/wrongport.
const introduction = "this is Proa's "

// guess says what the first bytes of a foreign connection look like.
func guess(p []byte) string {
	if i := bytes.Index(p, []byte(introduction)); i > 0 { // in an answer, whatever its form
		text, _, _ := bytes.Cut(p[i:], []byte("\n"))
		return "it says: " + printable(strings.TrimSpace(clip(string(text), stringBytesMax)))
	}
	if len(p) == 0 {
		return "it sent nothing"
	}
	for _, method := range []string{"GET ", "HEAD", "POST", "PUT ", "OPTI", "PRI "} {
		if bytes.HasPrefix(p, []byte(method)) {
			return "it looks like HTTP; send HTTP requests to the admin port"
		}
	}
	switch {
	case bytes.HasPrefix(p, []byte("HTTP/")):
		return "it looks like an HTTP server; check the port"
	case len(p) > 1 && p[0] == 0x16 && p[1] == 3:
		return "it looks like TLS, which the peer port does not support"
	case p[0] == '*':
		return "it looks like the Redis protocol; connect Redis clients to the Redis port (listen.resp)"
	case p[0] == '-' || p[0] == '+':
		return "it looks like a Redis server; check the port"
	case len(p) >= 8 && binary.LittleEndian.Uint32(p) < 1<<16 && p[6]&1 != 0: // a reply
		return "it looks like another port of a Proa server; check the port"
	case len(p) >= 4 && binary.LittleEndian.Uint32(p) < 1<<16:
		return "it looks like a Proa client; connect clients to the client port (listen.client)"
	}
	return fmt.Sprintf("it started with %q", p[:min(len(p), len(magic))])
}

// negotiate returns the highest version that both ranges hold, or a refusal
// from the point of view of the side that speaks ours.
func negotiate(ourMin, ourMax, theirMin, theirMax uint16) (version uint16, refusal string) {
	version = min(ourMax, theirMax)
	if version >= max(ourMin, theirMin) {
		return version, ""
	}
	return 0, fmt.Sprintf("no peer protocol version in common: this node speaks %d to %d, the other %d to %d; "+
		"upgrade the older node first to a release that speaks both, or raise the limit on its peer protocol version",
		ourMin, ourMax, theirMin, theirMax)
}

// judgeWord returns why a connection of a kind to or from a node is refused for
// what it says of itself, or "".
func (t *Transport) judgeWord(kind connKind, theirs *Identity) string {
	ours := t.identity()
	switch {
	case ours.Cluster != theirs.Cluster && !ours.stranger() && !theirs.stranger():
		return fmt.Sprintf("this node belongs to cluster %016x, the other to cluster %016x: correct the address, "+
			"or start the other with an empty data directory to let it join", ours.Cluster, theirs.Cluster)
	case strangersCall(kind, &ours, theirs):
		return "" // a founder finds its own address in the list of all
	case ours.UID != 0 && ours.UID == theirs.UID && (ours.Run == theirs.Run || theirs.Run == 0):
		return fmt.Sprintf("node %d connected to itself: correct the address configured for another node", ours.Node)
	case !ours.member():
		return refusalNotReady
	case !theirs.member():
		return "the other node has not joined a cluster yet"
	case ours.UID != 0 && ours.UID == theirs.UID:
		return fmt.Sprintf("both ends are node %d, and one runs on a copy of the other's data directory; stop one of the two and erase the copy", ours.Node)
	case ours.Node == theirs.Node:
		return fmt.Sprintf("both nodes claim to be node %d: a node that lost its disk must join again as a new node, "+
			"with an empty data directory and no node id", ours.Node)
	case ours.Engine != theirs.Engine:
		return fmt.Sprintf("node %d runs the Raft engine %q and node %d runs %q, and all nodes of a cluster must run the same: "+
			"correct raft.engine on the node that differs from the others; if its data directory is of the other engine, erase the directory to join as a new node",
			ours.Node, ours.Engine, theirs.Node, theirs.Engine)
	}
	return ""
}

// refusalNotReady is the reason of a node that starts. It is no failure: nodes that
// start together refuse each other until their stores are open.
const refusalNotReady = "this node is not part of a cluster yet, or is still opening its stores; try again"

// refusalSecret is the reason of a node that was given a cluster secret.
const refusalSecret = "this node requires the cluster secret, which the other does not have, or has another one: give all nodes the same node.cluster_secret_file"

func (id *Identity) stranger() bool { return id.Cluster == 0 }

// strangersCall reports whether a connection is for a call for which nobody is
// admitted.
func strangersCall(kind connKind, ours, theirs *Identity) bool {
	return kind == kindCall && (ours.stranger() || theirs.stranger())
}

// judge returns why a connection of a kind to or from a node is refused, or "".
// What the node can prove it has proven.
func (t *Transport) judge(kind connKind, theirs *Identity) (refusal string, code Code) {
	if t.cfg.Secret != "" && !theirs.secret {
		if !t.cfg.SecretOptional {
			return refusalSecret, CodeSecret
		}
		t.unproven.Warn(t.log, "a node has not proven to know the cluster secret, and is admitted since node.cluster_secret_check is optional", "node", theirs.Node, "peer", theirs.Peer)
	}
	if refusal := t.judgeWord(kind, theirs); refusal != "" {
		return refusal, CodeNone
	}
	ours := t.identity()
	if strangersCall(kind, &ours, theirs) {
		// A node that opens its stores learns its token meanwhile: what counts is
		// the one by which the proof was judged.
		other := theirs.otherToken || !theirs.Signed && t.handler().JoinToken() != ""
		if ours.stranger() && other {
			return "the join token is not, or no longer, that of the other node's cluster; \"proa member token\" on a running node prints one", CodeToken
		}
		return "", CodeNone
	}
	err := t.handler().Recognize(*theirs)
	if err == nil {
		err = t.twin(theirs)
	}
	if err == nil {
		err = t.handler().Admit(*theirs)
	}
	if err != nil {
		if coded, ok := errors.AsType[*CodedError](err); ok {
			code = coded.Code
		}
		return clip(err.Error(), stringBytesMax), code
	}
	t.mu.Lock()
	t.runs[theirs.Node] = theirs.Run
	t.mu.Unlock()
	return "", CodeNone
}

// refused tells the handler of a refusal by a node.
func (t *Transport) refused(by *Identity, code Code, reason string) {
	if code != CodeNone && by.Signed {
		t.handler().Refused(*by, code, reason)
	}
}

// connect opens a connection that Close finds.
func (t *Transport) connect(ctx context.Context, address string) (net.Conn, error) {
	ctx, cancel := context.WithTimeout(ctx, t.cfg.HandshakeTimeout)
	defer cancel()
	c, err := t.cfg.Dial(ctx, address)
	if err != nil {
		return nil, fmt.Errorf("peer: cannot connect to %s: %w", address, err)
	}
	if !t.track(c) {
		c.Close()
		return nil, ErrClosed
	}
	return c, nil
}

// introduce shakes hands on a fresh connection, and closes it if that fails.
// want is the node that should be there, 0 for whoever it is.
func (t *Transport) introduce(ctx context.Context, c net.Conn, address string, kind connKind, want uint64) (answer, error) {
	ctx, cancel := context.WithTimeout(ctx, t.cfg.HandshakeTimeout)
	defer cancel()
	stop := context.AfterFunc(ctx, func() { c.Close() })
	a, err := t.shakeHands(c, address, kind, want)
	if !stop() {
		err = fmt.Errorf("peer: handshake with %s: %w", address, ctx.Err())
	}
	if err != nil {
		t.drop(c)
		return a, err
	}
	t.setOptions(c, kind)
	return a, nil
}

// dial connects and introduces.
func (t *Transport) dial(ctx context.Context, address string, kind connKind, want uint64) (net.Conn, answer, error) {
	if t.started.Load() == nil {
		return nil, answer{}, fmt.Errorf("%w: the transport has not been started", ErrNotConnected)
	}
	c, err := t.connect(ctx, address)
	if err != nil {
		return nil, answer{}, err
	}
	a, err := t.introduce(ctx, c, address, kind, want)
	if err != nil {
		return nil, a, err
	}
	return c, a, nil
}

// greeting is an answer, and what it proves.
type greeting struct {
	answer
	proven     bool // it has a proof, which is right
	transcript transcript
}

// greet begins a handshake: it says hello and learns who is at the other side.
func greet(t *Transport, c net.Conn, kind connKind) (g greeting, err error) {
	h := hello{kind: kind, versionMin: versionOldest, versionMax: t.cfg.VersionMax, identity: t.identity(), credentials: newCredentials(t)}
	said := h.encode()
	if err := writeRecord(c, said); err != nil {
		return g, err
	}
	body, err := readRecord(c)
	if err != nil {
		return g, err
	}
	a, unproven, err := decodeAnswer(body)
	a.identity.Engine = cmp.Or(a.identity.Engine, engineEtcd)
	g.answer = a
	if err == nil && h.credentials.present && a.credentials.present {
		g.proven, g.transcript = true, transcript{hello: sha256.Sum256(said), answer: sha256.Sum256(unproven)}
		err = t.check(&g.identity, labelAcceptor, &g.transcript, &a.proof)
	}
	return g, err
}

func (t *Transport) shakeHands(c net.Conn, address string, kind connKind, want uint64) (a answer, err error) {
	defer func() {
		if _, refused := errors.AsType[*RefusedError](err); err != nil && !refused {
			err = fmt.Errorf("peer: handshake with %s: %w", address, err)
		}
	}()
	g, err := greet(t, c, kind)
	if a = g.answer; err != nil {
		readRemainder(c, err)
		return a, err
	}
	if a.refusal != "" {
		t.refused(&a.identity, a.code, a.refusal)
		return a, &RefusedError{Address: address, Reason: a.refusal}
	}
	v := verdict{proven: g.proven}
	switch {
	case a.version < versionOldest || a.version > t.cfg.VersionMax:
		v.refusal = fmt.Sprintf("the other side chose protocol version %d, but %d to %d were offered", a.version, versionOldest, t.cfg.VersionMax)
	case want != 0 && a.identity.Cluster != 0 && a.identity.Node != want:
		v.refusal = fmt.Sprintf("node %d was expected at %s, but node %d is there: correct the address", want, address, a.identity.Node)
	default:
		v.refusal, v.code = t.judge(kind, &a.identity)
	}
	if g.proven {
		v.proof = t.prove(labelDialler, &g.transcript)
	}
	if err := writeRecord(c, v.encode()); err != nil {
		return a, err
	}
	if v.refusal != "" {
		return a, &RefusedError{Address: address, Here: true, Reason: v.refusal, Code: v.code}
	}
	if !g.proven {
		return a, nil
	}
	body, err := readRecord(c)
	if err != nil {
		return a, err
	}
	w, err := decodeWelcome(body)
	if err == nil && w.refusal != "" {
		t.refused(&a.identity, w.code, w.refusal)
		err = &RefusedError{Address: address, Reason: w.refusal, Code: w.code}
	}
	return a, err
}

// answerHello is the acceptor's side of the handshake. A refusal has been sent
// when it is returned.
func (t *Transport) answerHello(c net.Conn) (h hello, version uint16, err error) {
	if err := c.SetDeadline(time.Now().Add(t.cfg.HandshakeTimeout)); err != nil {
		return h, 0, err
	}
	said, err := readRecord(c)
	if err != nil {
		return h, 0, err
	}
	if h, err = decodeHello(said); err != nil {
		return h, 0, err
	}
	a := answer{identity: t.identity()}
	if h.credentials.present {
		a.credentials = newCredentials(t)
	}
	earlier := h.identity.Engine == ""
	if earlier { // such a version would take it for the proof
		a.identity.Engine, h.identity.Engine = "", engineEtcd
	}
	proven := a.credentials.present
	a.version, a.refusal = negotiate(versionOldest, t.cfg.VersionMax, h.versionMin, h.versionMax)
	switch {
	case a.refusal != "":
	case h.kind < kindRaft || h.kind > kindCall:
		a.refusal = fmt.Sprintf("unknown connection kind %d", h.kind)
	case proven:
		a.refusal = t.judgeWord(h.kind, &h.identity)
	default:
		a.refusal, a.code = t.judge(h.kind, &h.identity)
	}
	body := a.encode()
	s := transcript{hello: sha256.Sum256(said), answer: sha256.Sum256(body)}
	if proven {
		p := t.prove(labelAcceptor, &s)
		p.knows = p.knows && !earlier
		body = appendProof(body, &p)
	}
	if err := writeRecord(c, body); err != nil {
		return h, 0, err
	}
	refusedHere := func(reason string) error {
		return &RefusedError{Address: c.RemoteAddr().String(), Here: true, Reason: reason}
	}
	if a.refusal != "" {
		return h, 0, refusedHere(a.refusal)
	}
	if body, err = readRecord(c); err != nil {
		return h, 0, err
	}
	v, err := decodeVerdict(body, proven)
	if err != nil {
		return h, 0, err
	}
	if proven {
		if err := t.check(&h.identity, labelDialler, &s, &v.proof); err != nil {
			return h, 0, err
		}
	}
	if v.refusal != "" {
		t.refused(&h.identity, v.code, v.refusal)
		return h, 0, &RefusedError{Address: c.RemoteAddr().String(), Reason: v.refusal}
	}
	if proven {
		var w welcome
		w.refusal, w.code = t.judge(h.kind, &h.identity)
		if err := writeRecord(c, w.encode()); err != nil {
			return h, 0, err
		}
		if w.refusal != "" {
			return h, 0, refusedHere(w.refusal)
		}
	}
	return h, a.version, c.SetDeadline(time.Time{})
}
