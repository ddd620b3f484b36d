package bench

import (
	"fmt"

	"github.com/proa-kv/proa/protocol"
)

// Proa is the Codec of Proa's native protocol.
type Proa struct {
	User, Secret string // credentials; empty for none
}

// clientName is how the generator names itself in a HELLO.
const clientName = "proa-bench"

// greetingID is the request id of the HELLO.
const greetingID = 1

// Ordered returns false.
func (Proa) Ordered() bool { return false }

// AppendGreeting appends a HELLO.
func (c Proa) AppendGreeting(dst []byte) []byte {
	start := len(dst)
	m := protocol.Hello{
		VersionMin: protocol.Version, VersionMax: protocol.Version,
		Name: []byte(clientName), User: []byte(c.User), Secret: []byte(c.Secret),
	}
	if c != (Proa{}) {
		m.Features |= protocol.FeatureCredentials
	}
	dst = protocol.Begin(dst, uint8(protocol.OpHello), 0, greetingID)
	return protocol.End(m.AppendTo(dst), start)
}

// ParseGreeting reads the answer to a HELLO.
func (Proa) ParseGreeting(b []byte) (int, error) {
	f, n, err := nextReply(b)
	if n == 0 || err != nil {
		return 0, err
	}
	if s := protocol.Status(f.Code); s != protocol.StatusOK {
		message, err := errorMessage(&f)
		if err != nil {
			return 0, err
		}
		return 0, fmt.Errorf("%w: %v: %s", ErrGreeting, s, message)
	}
	var m protocol.HelloReply
	if err := m.Decode(f.Body); err != nil || f.ID != greetingID || m.Version != protocol.Version {
		return 0, fmt.Errorf("%w: HELLO answered with id %d, version %d, %v", ErrProtocol, f.ID, m.Version, err)
	}
	return n, nil
}

// AppendRequest appends a request frame.
func (Proa) AppendRequest(dst []byte, op Op, tag uint32, key, value []byte) []byte {
	start := len(dst)
	switch op {
	case Get:
		m := protocol.Key{Key: key}
		dst = m.AppendTo(protocol.Begin(dst, uint8(protocol.OpGet), 0, uint64(tag)))
	case Put:
		m := protocol.Put{Key: key, Value: value}
		dst = m.AppendTo(protocol.Begin(dst, uint8(protocol.OpPut), 0, uint64(tag)))
	default:
		dst = protocol.Begin(dst, uint8(protocol.OpPing), 0, uint64(tag))
	}
	return protocol.End(dst, start)
}

// nextReply finds the first frame in b, which must be a single-frame reply.
func nextReply(b []byte) (f protocol.Frame, n int, err error) {
	f, n, _, err = protocol.Next(b, protocol.FrameBytesMax)
	if err != nil {
		return f, 0, fmt.Errorf("%w: %w", ErrProtocol, err)
	}
	if n > 0 && f.Flags&^protocol.FlagExtensions != protocol.FlagReply {
		return f, 0, fmt.Errorf("%w: flags 0x%04x in a reply", ErrProtocol, uint16(f.Flags))
	}
	return f, n, nil
}

func errorMessage(f *protocol.Frame) ([]byte, error) {
	var m protocol.ErrorReply
	if err := m.Decode(f.Body); err != nil {
		return nil, fmt.Errorf("%w: error reply: %w", ErrProtocol, err)
	}
	return m.Message, nil
}

// ParseReply reads a reply frame. A notice, which answers no request, is an
// error: a server that is about to leave cannot be measured.
func (Proa) ParseReply(b []byte, op Op) (r Reply, n int, err error) {
	f, n, err := nextReply(b)
	if n == 0 || err != nil {
		return r, 0, err
	}
	r.Tag = f.ID
	status := protocol.Status(f.Code)
	if status == protocol.StatusOK || status == protocol.StatusNotFound && op == Get {
		if err := parseResult(&r, f.Body, op, status); err != nil {
			return r, 0, fmt.Errorf("%w: %v answered with %v: %w", ErrProtocol, op, status, err)
		}
		return r, n, nil
	}
	if status.CarriesResult() {
		return r, 0, fmt.Errorf("%w: %v answered with %v", ErrProtocol, op, status)
	}
	if r.Message, err = errorMessage(&f); err != nil {
		return r, 0, err
	}
	if f.ID == 0 {
		return r, 0, fmt.Errorf("%w: notice %v: %s", ErrProtocol, status, r.Message)
	}
	r.Outcome = Failed
	if status == protocol.StatusBusy {
		r.Outcome = Busy
	}
	return r, n, nil
}

// parseResult reads the body of a reply that carries a result.
func parseResult(r *Reply, body []byte, op Op, status protocol.Status) error {
	switch {
	case op == Get && status == protocol.StatusOK:
		var m protocol.RowReply
		err := m.Decode(body)
		r.ValueBytes = len(m.Value)
		return err
	case op == Put:
		var m protocol.WriteReply
		return m.Decode(body)
	case op == Get:
		r.Outcome = NotFound
	}
	// What is left has no body: PING repeats ours, which is empty.
	if len(body) != 0 {
		return fmt.Errorf("%w: %d", protocol.ErrTrailingBytes, len(body))
	}
	return nil
}
