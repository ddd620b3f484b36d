//go:build linux

package bench

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"fmt"
	"io"
	"maps"
	"net"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"

	"github.com/proa-kv/proa/protocol"
)

// request is one request as the fake server understood it.
type request struct {
	op         string // PING, GET, PUT or HELLO
	id         uint64
	key, value string
}

// fake is a server of either protocol over a map, with bad habits on demand.
type fake struct {
	resp    bool
	answer  func(request) []byte // instead of the proper reply, if not nil
	reverse bool                 // answer what arrived together back to front
	chunk   int                  // write so many bytes at a time, 0 for all
	silent  bool                 // after the greeting
	hangUp  int                  // close after so many requests, 0 for never

	ln    net.Listener
	group sync.WaitGroup

	mu    sync.Mutex
	data  map[string]string
	seen  map[string]int // requests by op
	conns map[net.Conn]bool
}

// start serves on address until the test ends.
func (s *fake) start(t testing.TB, network, address string) Target {
	t.Helper()
	var err error
	if s.ln, err = net.Listen(network, address); err != nil {
		t.Fatal(err)
	}
	s.data, s.seen, s.conns = map[string]string{}, map[string]int{}, map[net.Conn]bool{}
	s.group.Go(func() {
		for {
			c, err := s.ln.Accept()
			if err != nil {
				return
			}
			s.mu.Lock()
			s.conns[c] = true
			s.mu.Unlock()
			s.group.Go(func() { s.serve(c) })
		}
	})
	t.Cleanup(func() {
		s.ln.Close()
		s.mu.Lock()
		for c := range s.conns {
			c.Close()
		}
		s.mu.Unlock()
		s.group.Wait()
	})
	target := Target{Address: s.ln.Addr().String(), Codec: Proa{}}
	if s.resp {
		target.Codec = RESP{}
	}
	if network == "unix" {
		target.Address = "unix://" + address
	}
	return target
}

func (s *fake) serve(c net.Conn) {
	defer c.Close()
	in := bufio.NewReaderSize(c, 1<<16)
	var out [][]byte
	for n := 0; ; n++ {
		r, err := s.read(in)
		if err != nil || s.hangUp > 0 && n == s.hangUp {
			return
		}
		if reply := s.reply(r, n == 0); reply != nil {
			out = append(out, reply)
		}
		if in.Buffered() > 0 && len(out) < 1000 {
			continue
		}
		if s.reverse {
			slices.Reverse(out)
		}
		if !s.write(c, bytes.Join(out, nil)) {
			return
		}
		out = out[:0]
	}
}

func (s *fake) write(c net.Conn, b []byte) bool {
	for len(b) > 0 {
		n := len(b)
		if s.chunk > 0 {
			n = min(n, s.chunk)
		}
		if _, err := c.Write(b[:n]); err != nil {
			return false
		}
		b = b[n:]
	}
	return true
}

func (s *fake) reply(r request, greeting bool) []byte {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !greeting {
		s.seen[r.op]++
		if s.silent {
			return nil
		}
		if s.answer != nil {
			if b := s.answer(r); b != nil {
				return b
			}
		}
	}
	value, found := s.data[r.key]
	if r.op == "PUT" {
		s.data[r.key] = r.value
	}
	if s.resp {
		switch {
		case r.op == "PING":
			return []byte("+PONG\r\n")
		case r.op == "PUT":
			return []byte("+OK\r\n")
		case !found:
			return []byte("$-1\r\n")
		}
		return appendBulk(nil, []byte(value))
	}
	switch {
	case r.op == "HELLO":
		m := protocol.HelloReply{Version: protocol.Version}
		return proaReply(r.id, protocol.StatusOK, m.AppendTo(nil))
	case r.op == "PING":
		return proaReply(r.id, protocol.StatusOK, nil)
	case r.op == "PUT":
		return proaReply(r.id, protocol.StatusOK, written())
	case !found:
		return proaReply(r.id, protocol.StatusNotFound, nil)
	}
	return proaReply(r.id, protocol.StatusOK, row(value))
}

// rows returns a copy of what is stored.
func (s *fake) rows() map[string]string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return maps.Clone(s.data)
}

// count returns how many requests of a kind have arrived.
func (s *fake) count(op string) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.seen[op]
}

func (s *fake) read(in *bufio.Reader) (r request, err error) {
	if s.resp {
		return readRESP(in)
	}
	head, err := in.Peek(4)
	if err != nil {
		return r, err
	}
	b := make([]byte, binary.LittleEndian.Uint32(head))
	if _, err := io.ReadFull(in, b); err != nil {
		return r, err
	}
	f, _, _, err := protocol.Next(b, protocol.FrameBytesMax)
	if err != nil {
		return r, err
	}
	r = request{op: protocol.Opcode(f.Code).String(), id: f.ID}
	switch r.op {
	case "GET":
		r.key = string(f.Body)
	case "PUT":
		var m protocol.Put
		err = m.Decode(f.Body)
		r.key, r.value = string(m.Key), string(m.Value)
	}
	return r, err
}

func readRESP(in *bufio.Reader) (r request, err error) {
	n, err := readCount(in, '*')
	if err != nil {
		return r, err
	}
	words := make([]string, n)
	for i := range words {
		size, err := readCount(in, '$')
		if err != nil {
			return r, err
		}
		b := make([]byte, size+2)
		if _, err := io.ReadFull(in, b); err != nil {
			return r, err
		}
		words[i] = string(b[:size])
	}
	words = append(words, "", "")
	r = request{op: words[0], key: words[1], value: words[2]}
	if r.op == "SET" {
		r.op = "PUT"
	}
	return r, nil
}

func readCount(in *bufio.Reader, kind byte) (int, error) {
	line, err := in.ReadString('\n')
	if err != nil {
		return 0, err
	}
	if line[0] != kind {
		return 0, fmt.Errorf("got %q", line)
	}
	return strconv.Atoi(strings.TrimSpace(line[1:]))
}
