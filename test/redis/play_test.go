package redis

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"
)

// player plays one case to one server.
type player struct {
	target      *target
	connections map[string]*connection
	replies     map[*group][]string
}

// play returns the lines each group of the case was answered with. After an
// error the connections are out of step, so that there are no more.
func play(s *scene, at *target) (map[*group][]string, error) {
	p := player{target: at, connections: map[string]*connection{}, replies: map[*group][]string{}}
	defer p.close()
	for _, g := range s.groups {
		got, err := p.group(g)
		p.replies[g] = got
		if err != nil {
			return p.replies, fmt.Errorf("line %d: %w", g.line, err)
		}
	}
	return p.replies, p.finish()
}

func (p *player) group(g *group) ([]string, error) {
	deadline := time.Now().Add(*replyTimeout)
	for {
		got, err := p.once(g)
		if err != nil || !g.until || time.Now().After(deadline) {
			return got, err
		}
		if ok, err := matches(g.wanted(p.target.name), got); ok || err != nil {
			return got, err
		}
	}
}

// once sends what the group sends and reads its replies.
func (p *player) once(g *group) ([]string, error) {
	c := p.connections[g.connection]
	if c == nil {
		var err error
		if c, err = dial(p.target.address); err != nil {
			return nil, err
		}
		p.connections[g.connection] = c
	}
	if g.scan {
		return scan(c, g)
	}
	if err := transmit(c, g); err != nil {
		return nil, err
	}
	raw, err := collect(c, g)
	lines := linesOf(raw)
	if err == nil && g.closed {
		lines = append(lines, closedLine)
		c.close()
		delete(p.connections, g.connection)
	}
	return lines, err
}

// Lines that data cannot make.
const (
	closedLine = `\(closed)`  // the end of a connection
	noKeysLine = `\(no keys)` // a scan that finds nothing
)

func transmit(c *connection, g *group) error {
	chunk := max(1, len(g.payload))
	if g.bytewise {
		chunk = 1
	}
	for part := range slices.Chunk(g.payload, chunk) {
		err := c.send(part)
		if err != nil && !(g.closed && gone(err)) {
			return err
		}
	}
	if g.halfclose {
		return c.CloseWrite()
	}
	return nil
}

// gone reports whether a server has closed the connection while it was being
// written to.
func gone(err error) bool {
	return errors.Is(err, syscall.ECONNRESET) || errors.Is(err, syscall.EPIPE)
}

// collect reads the replies of a group.
func collect(c *connection, g *group) ([]byte, error) {
	if g.closed {
		return c.rest()
	}
	var raw []byte
	for i := range g.replies {
		r, err := c.read()
		if err != nil {
			return append(raw, r.raw...), fmt.Errorf("reply %d of %d: %w", i+1, g.replies, err)
		}
		if g.unordered {
			r.raw = r.sorted()
		}
		raw = append(raw, r.raw...)
	}
	return raw, nil
}

// scanRoundsMax bounds a scan whose cursor never becomes 0.
const scanRoundsMax = 1000

// scan carries out SCAN until its cursor is 0 and returns the keys.
func scan(c *connection, g *group) ([]string, error) {
	words, err := splitWords(strings.TrimPrefix(g.commands[0], "> "))
	if err != nil {
		return nil, err
	}
	var keys []string
	for range scanRoundsMax {
		if err := c.send(appendCommand(nil, words...)); err != nil {
			return nil, err
		}
		r, err := c.read()
		if err != nil {
			return nil, err
		}
		if len(r.elements) != 2 {
			return linesOf(r.raw), nil
		}
		for _, k := range r.elements[1].elements {
			keys = append(keys, escaped([]byte(k.text())))
		}
		if words[1] = r.elements[0].text(); words[1] == "0" {
			if keys == nil {
				return []string{noKeysLine}, nil
			}
			slices.Sort(keys)
			return slices.Compact(keys), nil
		}
	}
	return nil, fmt.Errorf("the cursor of SCAN is not 0 after %d rounds", scanRoundsMax)
}

// finish looks for replies that nobody expected: it says on each connection
// that nothing more comes, and nothing more may come back.
func (p *player) finish() error {
	var err error
	for name, c := range p.connections {
		if e := c.CloseWrite(); e != nil && !errors.Is(e, syscall.ENOTCONN) {
			err = errors.Join(err, fmt.Errorf("connection %q: %w", name, e))
			continue
		}
		surplus, e := c.rest()
		if e != nil {
			err = errors.Join(err, fmt.Errorf("connection %q is not closed by the server: %w", name, e))
		}
		if len(surplus) > 0 {
			err = errors.Join(err, fmt.Errorf("connection %q: nobody expected %q", name, bytes.Clone(surplus[:min(len(surplus), 200)])))
		}
	}
	return err
}

func (p *player) close() {
	for _, c := range p.connections {
		c.close()
	}
}

// judge compares what a server answered in a case with what it is to answer.
func judge(t *testing.T, s *scene, at *target, got map[*group][]string) {
	t.Helper()
	for _, g := range s.groups {
		lines, played := got[g]
		if !played {
			return
		}
		want := g.wanted(at.name)
		ok, err := matches(want, lines)
		if err != nil {
			t.Fatalf("line %d: %v", g.line, err)
		}
		if !ok {
			t.Errorf("line %d:\n%s", g.line, difference(g, at.name, want, lines))
		}
	}
}

// difference shows commands and replies for people.
func difference(g *group, name string, want, got []string) string {
	var b strings.Builder
	for _, c := range g.commands {
		fmt.Fprintf(&b, "    %s\n", c)
	}
	written := asWritten("", got)
	for i := range max(len(want), len(written)) {
		switch {
		case i < len(want) && i < len(written) && want[i] == written[i]:
			fmt.Fprintf(&b, "    %s\n", want[i])
			continue
		case i < len(want):
			fmt.Fprintf(&b, "  - %-40s (expected)\n", want[i])
		}
		if i < len(written) {
			fmt.Fprintf(&b, "  + %-40s (%s)\n", written[i], name)
		}
	}
	return b.String()
}
