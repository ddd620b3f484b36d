package peer

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"io"
	"net"
	"time"
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
// other why they will not work together. Bodies may grow at their end.
const (
	// magic begins with a byte that no text protocol and no TLS record begins
	// with.
	magic = "\xf1ProaPee"

	recordPrefixBytes = len(magic) + 2
)

// connKind says what a connection is for.
type connKind uint8

const (
	kindRaft     connKind = 1
	kindSnapshot connKind = 2
	kindClient   connKind = 3
	kindCall     connKind = 4 // one call of whoever knows the address
)

// Identity is what a node says of itself in the handshake. Nothing in it is
// proof: the peer port belongs on a network that only the nodes can reach.
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
}

// member reports whether the node belongs to a cluster.
func (id *Identity) member() bool { return id.Cluster != 0 && id.Node != 0 }

type hello struct {
	kind                   connKind
	versionMin, versionMax uint16
	identity               Identity
}

type answer struct {
	version  uint16 // to be spoken
	refusal  string // not empty: the sentence of a refusal
	identity Identity
}

func (h *hello) encode() []byte {
	b := append(make([]byte, 0, 256), byte(h.kind))
	b = le.AppendUint16(b, h.versionMin)
	b = le.AppendUint16(b, h.versionMax)
	return appendIdentity(b, &h.identity)
}

func decodeHello(p []byte) (h hello, err error) {
	c := cursor{p: p}
	h.kind = connKind(c.u8())
	h.versionMin, h.versionMax = c.u16(), c.u16()
	h.identity = c.identity()
	if c.short {
		return h, damaged("the hello is cut short")
	}
	if h.versionMin == 0 || h.versionMin > h.versionMax {
		return h, damaged("the hello names protocol versions %d to %d", h.versionMin, h.versionMax)
	}
	return h, nil
}

func (a *answer) encode() []byte {
	b := le.AppendUint16(make([]byte, 0, 256), a.version)
	b = appendString(b, a.refusal)
	return appendIdentity(b, &a.identity)
}

func decodeAnswer(p []byte) (a answer, err error) {
	c := cursor{p: p}
	a.version, a.refusal, a.identity = c.u16(), c.text(), c.identity()
	if c.short {
		return a, damaged("the answer to the hello is cut short")
	}
	return a, nil
}

// The verdict is the dialler's refusal of the acceptor, or empty.
func encodeVerdict(refusal string) []byte { return appendString(nil, refusal) }

func decodeVerdict(p []byte) (refusal string, err error) {
	c := cursor{p: p}
	refusal = c.text()
	if c.short {
		return "", damaged("the verdict of the handshake is cut short")
	}
	return refusal, nil
}

func appendIdentity(b []byte, id *Identity) []byte {
	b = le.AppendUint64(b, id.Cluster)
	b = le.AppendUint64(b, id.Node)
	b = le.AppendUint64(b, id.UID)
	b = appendString(b, id.Peer)
	b = appendString(b, id.Client)
	return appendString(b, id.Version)
}

func appendString(b []byte, s string) []byte {
	s = clip(s, stringBytesMax)
	return append(le.AppendUint16(b, uint16(len(s))), s...)
}

// cursor reads fields; short is set once one was not there.
type cursor struct {
	p     []byte
	short bool
}

var zeros [8]byte

func (c *cursor) take(n int) []byte {
	if n > len(c.p) {
		c.short, c.p = true, nil
		return zeros[:min(n, len(zeros))]
	}
	b := c.p[:n]
	c.p = c.p[n:]
	return b
}

func (c *cursor) u8() uint8   { return c.take(1)[0] }
func (c *cursor) u16() uint16 { return le.Uint16(c.take(2)) }
func (c *cursor) u32() uint32 { return le.Uint32(c.take(4)) }
func (c *cursor) u64() uint64 { return le.Uint64(c.take(8)) }

// text reads a string of the other side, fit to be printed.
func (c *cursor) text() string {
	n := int(c.u16())
	if n > stringBytesMax || n > len(c.p) {
		c.short = true
		return ""
	}
	return printable(string(c.take(n)))
}

func (c *cursor) identity() Identity {
	return Identity{
		Cluster: c.u64(), Node: c.u64(), UID: c.u64(),
		Peer: c.text(), Client: c.text(), Version: c.text(),
	}
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
	if n, err := io.ReadFull(r, prefix); err != nil {
		if n > 0 && !bytes.HasPrefix([]byte(magic), prefix[:min(n, len(magic))]) {
			return nil, fmt.Errorf("%w (%s)", ErrForeign, guess(prefix[:n]))
		}
		return nil, noEOF(err)
	}
	if string(prefix[:len(magic)]) != magic {
		return nil, fmt.Errorf("%w (%s)", ErrForeign, guess(prefix))
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

// guess says what the first bytes of a foreign connection look like.
func guess(p []byte) string {
	for _, method := range []string{"GET ", "HEAD", "POST", "PUT ", "OPTI", "PRI "} {
		if bytes.HasPrefix(p, []byte(method)) {
			return "it looks like HTTP; the admin port speaks that"
		}
	}
	switch {
	case bytes.HasPrefix(p, []byte("HTTP/")):
		return "it looks like an HTTP server; is the port right?"
	case len(p) > 1 && p[0] == 0x16 && p[1] == 3:
		return "it looks like TLS, which this port does not speak"
	case p[0] == '*' || p[0] == '+' || p[0] == '-':
		return "it looks like the Redis protocol; the RESP port speaks that"
	case len(p) >= 4 && binary.LittleEndian.Uint32(p) < 1<<16:
		return "it looks like a Proa client; it belongs on the client port"
	}
	return fmt.Sprintf("it began with %q", p[:min(len(p), len(magic))])
}

// negotiate returns the highest version that both ranges hold, or a refusal
// from the point of view of the side that speaks ours.
func negotiate(ourMin, ourMax, theirMin, theirMax uint16) (version uint16, refusal string) {
	version = min(ourMax, theirMax)
	if version >= max(ourMin, theirMin) {
		return version, ""
	}
	return 0, fmt.Sprintf("no peer protocol version in common: this node speaks %d to %d, the other %d to %d; "+
		"upgrade the older node first to a release that speaks both, or lift the limit on its peer protocol version",
		ourMin, ourMax, theirMin, theirMax)
}

// judge returns why a connection of a kind to or from a node is refused, or "".
func (t *Transport) judge(kind connKind, theirs Identity) string {
	ours := t.identity()
	stranger := ours.Cluster == 0 || theirs.Cluster == 0
	switch {
	case ours.Cluster != theirs.Cluster && !stranger:
		return fmt.Sprintf("this node belongs to cluster %016x, the other to cluster %016x: correct the address, "+
			"or start the other with an empty data directory to let it join", ours.Cluster, theirs.Cluster)
	case kind == kindCall && stranger:
		return "" // a founder finds its own address in the list of all
	case ours.UID != 0 && ours.UID == theirs.UID:
		return fmt.Sprintf("node %d reached itself: correct the address it was given for another node", ours.Node)
	case !ours.member():
		return "this node has not joined a cluster yet"
	case !theirs.member():
		return "the other node has not joined a cluster yet"
	case ours.Node == theirs.Node:
		return fmt.Sprintf("both nodes claim to be node %d: a node that lost its disk comes back as a new node, "+
			"with an empty data directory and no node id", ours.Node)
	}
	if err := t.handler().Admit(theirs); err != nil {
		return clip(err.Error(), stringBytesMax)
	}
	return ""
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

func (t *Transport) shakeHands(c net.Conn, address string, kind connKind, want uint64) (answer, error) {
	h := hello{kind: kind, versionMin: versionOldest, versionMax: t.cfg.VersionMax, identity: t.identity()}
	if err := writeRecord(c, h.encode()); err != nil {
		return answer{}, fmt.Errorf("peer: handshake with %s: %w", address, err)
	}
	body, err := readRecord(c)
	if err != nil {
		return answer{}, fmt.Errorf("peer: handshake with %s: %w", address, err)
	}
	a, err := decodeAnswer(body)
	if err != nil {
		return a, fmt.Errorf("peer: handshake with %s: %w", address, err)
	}
	if a.refusal != "" {
		return a, &RefusedError{Address: address, Reason: a.refusal}
	}
	refusal := ""
	switch {
	case a.version < versionOldest || a.version > t.cfg.VersionMax:
		refusal = fmt.Sprintf("protocol version %d was chosen, but %d to %d offered", a.version, versionOldest, t.cfg.VersionMax)
	case want != 0 && a.identity.Cluster != 0 && a.identity.Node != want:
		refusal = fmt.Sprintf("node %d was expected at %s, but node %d is there: correct the address", want, address, a.identity.Node)
	default:
		refusal = t.judge(kind, a.identity)
	}
	if err := writeRecord(c, encodeVerdict(refusal)); err != nil {
		return a, fmt.Errorf("peer: handshake with %s: %w", address, err)
	}
	if refusal != "" {
		return a, &RefusedError{Address: address, Here: true, Reason: refusal}
	}
	return a, nil
}

// answerHello is the acceptor's side of the handshake. A refusal has been sent
// when it is returned.
func (t *Transport) answerHello(c net.Conn) (h hello, version uint16, err error) {
	if err := c.SetDeadline(time.Now().Add(t.cfg.HandshakeTimeout)); err != nil {
		return h, 0, err
	}
	body, err := readRecord(c)
	if err != nil {
		return h, 0, err
	}
	if h, err = decodeHello(body); err != nil {
		return h, 0, err
	}
	version, refusal := negotiate(versionOldest, t.cfg.VersionMax, h.versionMin, h.versionMax)
	switch {
	case refusal != "":
	case h.kind < kindRaft || h.kind > kindCall:
		refusal = fmt.Sprintf("this node knows no connections of kind %d", h.kind)
	default:
		refusal = t.judge(h.kind, h.identity)
	}
	a := answer{version: version, refusal: refusal, identity: t.identity()}
	if err := writeRecord(c, a.encode()); err != nil {
		return h, 0, err
	}
	if refusal != "" {
		return h, 0, &RefusedError{Address: c.RemoteAddr().String(), Here: true, Reason: refusal}
	}
	if body, err = readRecord(c); err != nil {
		return h, 0, err
	}
	if refusal, err = decodeVerdict(body); err != nil {
		return h, 0, err
	}
	if refusal != "" {
		return h, 0, &RefusedError{Address: c.RemoteAddr().String(), Reason: refusal}
	}
	return h, version, c.SetDeadline(time.Time{})
}
