package client

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strings"
	"time"

	"github.com/proa-kv/proa/protocol"
)

// helloID is the request id of a HELLO. Most servers of other protocols wait for
// the end of a line, or of a request's head: the id has both, so that they answer,
// or close the connection, instead of waiting for the rest of what they take for a
// request. Redis waits all the same; see soundOut.
var helloID = binary.LittleEndian.Uint64([]byte("proa\r\n\r\n"))

// foreignError is ErrNotProa, with what the first bytes of the answer look like.
type foreignError struct{ first []byte }

func (e *foreignError) Error() string {
	return "answers, but does not speak Proa's protocol (" + looksLike(e.first) + ")"
}

// isAlert reports whether a server that speaks TLS alone has answered.
func (e *foreignError) isAlert() bool { return bytes.HasPrefix(e.first, []byte("\x15\x03")) }

func (e *foreignError) Is(target error) bool { return target == ErrNotProa || target == ErrHandshake }

// probeDelay is how long a server that has never been reached may leave a HELLO
// unanswered before soundOut asks it.
const probeDelay = 300 * time.Millisecond

// soundOut finds out whether a server that leaves a HELLO unanswered is Redis, or
// another that waits for ever for the end of its line, and then ends the handshake.
// For that it sends a line of text on a connection of its own: a server of Proa
// answers that as well, and goes on with the handshake. It gives up when ctx ends.
func (ep *endpointState) soundOut(ctx context.Context, end context.CancelCauseFunc) {
	defer ep.c.wg.Done()
	select {
	case <-time.After(probeDelay):
	case <-ctx.Done():
		return
	}
	var d net.Dialer
	nc, err := d.DialContext(ctx, ep.network, ep.address)
	if err != nil {
		return
	}
	defer nc.Close()
	defer context.AfterFunc(ctx, func() { nc.SetDeadline(time.Unix(1, 0)) })()
	if _, err := nc.Write([]byte("PING\r\n\r\n")); err != nil {
		return
	}
	answer := make([]byte, 64)
	n, _ := io.ReadAtLeast(nc, answer, 4)
	answer = answer[:n]
	_, _, _, err = protocol.Next(answer, protocol.FrameBytesMax)
	switch foreign := (&foreignError{answer}); {
	case n < 4 || bytes.HasPrefix(answer, []byte(proaText)):
	case foreign.isAlert():
		if ep.tls() == nil {
			end(&TLSError{Endpoint: ep.name, Err: ErrTLSRequired})
		}
	case err != nil:
		end(foreign)
	}
}

// proaText is what a server of Proa begins its answer with where text is sent to a
// port that does not speak Redis.
const proaText = "-ERR this is Proa's "

// looksLike says what the first bytes that a server has sent look like. Four of
// them are enough, wherever four already show that they begin no reply of Proa.
func looksLike(b []byte) string {
	for _, s := range []struct{ begin, server string }{
		{"HTTP", "an HTTP server"}, {"<!DO", "an HTTP server"}, {"<!do", "an HTTP server"}, {"<htm", "an HTTP server"}, {"<HTM", "an HTTP server"},
		{"-ERR", "Redis"}, {"-NOA", "Redis"}, {"-DEN", "Redis"}, {"-LOA", "Redis"}, {"-MAX", "Redis"}, {"+PON", "Redis"},
		{"ERRO", "memcached"},
		{"SSH-", "an SSH server"},
		{"\x00\x00", "an HTTP/2 server, as of gRPC"}, // its SETTINGS
	} {
		if bytes.HasPrefix(b, []byte(s.begin)) {
			return "it looks like " + s.server
		}
	}
	if len(b) > 4 && b[3] == 0 && b[4] == 10 {
		return "it looks like MySQL"
	}
	return fmt.Sprintf("its answer begins with %q", b[:min(len(b), 8)])
}

// readFrame reads exactly one reply, so that what follows it stays in the
// socket. A handshake reply is small: 64 KiB are plenty. Bytes that begin no
// reply are an error as soon as they show it.
func readFrame(r io.Reader) (protocol.Frame, error) {
	const bytesMax = 64 << 10
	b := make([]byte, protocol.HeaderBytes, 256)
	for n := 0; ; {
		k, failed := r.Read(b[n:])
		n += k
		f, taken, need, err := protocol.Next(b[:n], bytesMax)
		switch {
		case errors.Is(err, protocol.ErrVersion) && f.Flags&protocol.FlagReply != 0:
			return f, fmt.Errorf("%w: the server speaks another version of Proa's protocol: %w", ErrHandshake, err)
		case err != nil:
			return f, &foreignError{b[:n]}
		case taken > 0 && f.Flags&protocol.FlagReply == 0:
			return f, fmt.Errorf("%w: the server sent a request", ErrHandshake)
		case taken > 0:
			return f, nil
		case failed != nil && n > 0 && errors.Is(failed, io.EOF):
			return f, &foreignError{b[:n]}
		case errors.Is(failed, io.EOF):
			return f, fmt.Errorf("%w: %w", ErrHandshake, errHangUp)
		case failed != nil:
			return f, failed
		}
		if n == len(b) {
			b = append(b, make([]byte, need-n)...)
		}
	}
}

// How servers end a handshake without a word.
var (
	errHangUp       = errors.New("the server closed the connection without an answer; is this a client port of Proa? Does it require TLS?")
	errHangUpTLS    = errors.New("the server closed the connection; does it speak TLS?")
	errHangUpBehind = errors.New("the server closed the connection right behind it; does it require a client certificate?")
)

// isHangUp reports whether err says that the server has closed the connection. It may
// have sent the reason, which the network has lost.
func isHangUp(err error) bool {
	var e *net.OpError
	return errors.Is(err, errHangUp) || errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) ||
		errors.As(err, &e) && !e.Timeout() && !isAlert(err)
}

// isAlert reports whether err is the reason for which the server refuses TLS.
func isAlert(err error) bool {
	var e *net.OpError
	return errors.As(err, &e) && e.Op == "remote error"
}

func (ep *endpointState) tlsError(t *tls.Config, err error) error {
	return &TLSError{Endpoint: ep.name, ServerName: t.ServerName, Err: err}
}

// tlsAlone is in the answer of a port of Proa that speaks TLS alone to a HELLO without.
const tlsAlone = "which speaks TLS alone"

// tlsRequired returns what the answer to a HELLO without TLS means where the server
// speaks TLS alone, nil for other answers.
func tlsRequired(err error) error {
	var foreign *foreignError
	var e *Error
	switch {
	case errors.As(err, &foreign) && foreign.isAlert():
		return ErrTLSRequired
	case errors.As(err, &e) && strings.Contains(e.Message, tlsAlone):
		return fmt.Errorf("%w: %s", ErrTLSRequired, e.Message)
	}
	return nil
}

// unanswered words that a handshake has not ended in time; ctx has ended.
func unanswered(ctx context.Context, within time.Duration, err error) error {
	if errors.Is(ctx.Err(), context.DeadlineExceeded) && (errors.Is(err, os.ErrDeadlineExceeded) || errors.Is(err, context.DeadlineExceeded)) {
		return fmt.Errorf("%w: connected, but there was no answer to the handshake within %v; is this a client port of Proa?", ctx.Err(), within)
	}
	return fmt.Errorf("%w during the handshake: %w", ctx.Err(), err)
}
