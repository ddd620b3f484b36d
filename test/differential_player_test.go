package test

import (
	"bufio"
	"errors"
	"fmt"
	"hash/crc64"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/proa-kv/proa/internal/testcluster"
	"github.com/proa-kv/proa/protocol"
)

// exchange is one request, and what became of it.
type exchange struct {
	operation
	shard int // -1: several
	ext   protocol.Extensions
	// recorded has the request sent once more after its reply, and the reply to that
	// compared: a session keeps no large values, so the reply depends on whether the first
	// one was lost.
	recorded bool

	id     uint64 // of the newest frame
	sent   int    // frames
	status protocol.Status
	before [][]byte // frames of the reply but for the last
	reply  []byte
	ended  bool
	// rendered is what was answered; before that, if not empty, what must be.
	rendered string
}

// player is the client of one cluster.
type player struct {
	t      *testing.T
	c      *testcluster.Cluster
	dealer *dealer
	events *transcript

	began time.Time
	at    int   // number of the node that is asked, from 0
	conn  *wire // nil: none is open
	ids   uint64
}

func newPlayer(t *testing.T, c *testcluster.Cluster, seed uint64, events *transcript) *player {
	p := &player{t: t, c: c, dealer: newDealer(seed), events: events, began: time.Now()}
	t.Cleanup(p.hangUp)
	return p
}

// leave has the next request go to the next node.
func (p *player) leave() {
	p.hangUp()
	p.at = (p.at + 1) % len(p.c.Nodes())
}

// turnTo has the next request go to n.
func (p *player) turnTo(n *testcluster.Node) {
	p.hangUp()
	p.at = p.c.ID(n) - 1
}

func (p *player) hangUp() {
	if p.conn != nil {
		_ = p.conn.nc.Close()
		p.conn = nil
	}
}

// ask sends requests, which concern different shards, until each is answered, and notes
// the replies in the transcript. during, if not nil, is called when they have been sent
// for the first time.
func (p *player) ask(during func(), requests ...*exchange) {
	p.t.Helper()
	poll := time.NewTicker(pollInterval)
	defer poll.Stop()
	patient := time.Second // how long a server may take
	for deadline := time.Now().Add(patience); ; <-poll.C {
		err := p.attempt(requests, patient, during)
		if err == nil {
			break
		}
		during = nil
		p.leave()
		patient = min(2*patient, 8*time.Second)
		if time.Now().After(deadline) {
			p.t.Fatalf("%s: not answered within %v: %v", requests[0].what, patience, err)
		}
	}
	for _, r := range requests {
		reply := p.render(r.operation, r.status, r.reply, r.before...)
		p.dealer.learn(r)
		p.events.add(r.what, reply, r.sent)
		if r.rendered != "" && r.rendered != reply {
			p.t.Errorf("%s: the reply is\n%s\nthe first one was\n%s", r.what, reply, r.rendered)
		}
		r.rendered = reply
	}
}

var errOut = errors.New("the node is paused or does not run")

// attempt sends what is not answered to one node. It returns an error if anything is left.
func (p *player) attempt(requests []*exchange, patient time.Duration, during func()) error {
	err := p.send(requests, patient)
	if during != nil {
		during()
	}
	if err != nil {
		return err
	}
	if !p.c.Nodes()[p.at].Running() {
		return errOut
	}
	for {
		left := 0
		for _, r := range requests {
			if !r.ended {
				left++
			}
		}
		if left == 0 {
			return nil
		}
		f, err := p.conn.next()
		if err != nil {
			return err
		}
		if err := p.take(requests, f); err != nil {
			return err
		}
	}
}

// send sends what is not answered.
func (p *player) send(requests []*exchange, patient time.Duration) error {
	if p.conn == nil {
		if err := p.dial(); err != nil {
			return err
		}
	}
	var frames []byte
	for _, r := range requests {
		if !r.ended {
			frames = p.frame(frames, r, patient)
		}
	}
	_, err := p.conn.nc.Write(frames)
	return err
}

func (p *player) frame(dst []byte, r *exchange, patient time.Duration) []byte {
	p.ids++
	r.id, r.before = p.ids, nil
	r.sent++
	r.ext.DeadlineMillis = uint32(patient / time.Millisecond)
	start := len(dst)
	dst = protocol.Begin(dst, uint8(r.code), protocol.FlagExtensions, r.id)
	dst = append(r.ext.AppendTo(dst), r.body...)
	return protocol.End(dst, start)
}

// dial connects to the node whose turn it is.
func (p *player) dial() error {
	n := p.c.Nodes()[p.at]
	if !n.Running() {
		return errOut
	}
	nc, err := net.DialTimeout("tcp", n.Address(), answerTimeout)
	if err != nil {
		return err
	}
	p.conn = &wire{t: p.t, nc: nc, r: bufio.NewReaderSize(nc, 64<<10)}
	p.ids++
	if _, err := nc.Write(request(protocol.OpHello, p.ids, helloBody())); err != nil {
		return err
	}
	f, err := p.conn.next()
	if err == nil && protocol.Status(f.Code) != protocol.StatusOK {
		err = fmt.Errorf("HELLO was answered with %v", protocol.Status(f.Code))
	}
	return err
}

// take takes one frame of the server in. An error means that the requests without a reply
// are to be sent again.
func (p *player) take(requests []*exchange, f protocol.Frame) error {
	for _, r := range requests {
		if r.id != f.ID || r.ended {
			continue
		}
		r.status, r.reply = protocol.Status(f.Code), f.Body
		switch {
		case f.Flags&protocol.FlagMore != 0:
			r.before = append(r.before, f.Body)
			return nil
		case !r.answered():
			return fmt.Errorf("answered with %v: %.200q", r.status, r.reply)
		case r.recorded:
			r.recorded = false
			return p.send([]*exchange{r}, answerTimeout)
		}
		r.ended = true
		return nil
	}
	return fmt.Errorf("a frame with status %v and id %d", protocol.Status(f.Code), f.ID)
}

// answered reports whether the reply is the last word on the request.
func (r *exchange) answered() bool {
	if !lastWord(r.status) {
		return false
	}
	var m protocol.BatchReply
	if r.code == protocol.OpBatch || r.code == protocol.OpDeleteRange {
		if r.status == protocol.StatusOK && m.Decode(r.reply) == nil {
			for _, part := range m.Results {
				if !lastWord(part.Status) {
					return false
				}
			}
		}
	}
	return true
}

// lastWord reports whether a status is no reason to send the request again, within its
// session if it is a write.
func lastWord(s protocol.Status) bool {
	switch s {
	case protocol.StatusTimeout, protocol.StatusDeadlineExceeded:
		return false
	}
	return !s.Retry()
}

// render returns what a reply says and engines must agree on. It leaves out
//   - extensions: which node has answered, the epoch of the map;
//   - how much longer a row lives, which depends on the time of day, but not whether it
//     expires. When it does is in the reply to EXPIRY;
//   - that time, where it was given relative to the time of day: it must be about right;
//   - the cursor of a SCAN, which is the server's own, but not whether there is one;
//   - the sentence of CROSS_SHARD: engines have different reasons.
func (p *player) render(o operation, s protocol.Status, body []byte, before ...[]byte) string {
	if len(body) == 0 {
		return s.String()
	}
	if s == protocol.StatusCrossShard {
		return s.String()
	}
	if !s.CarriesResult() {
		var m protocol.ErrorReply
		if err := m.Decode(body); err != nil {
			return p.undecoded(o, s, body, err)
		}
		return fmt.Sprintf("%v %s", s, m.Message)
	}
	text, err := p.renderResult(o, body, before)
	if err != nil {
		return p.undecoded(o, s, body, err)
	}
	return s.String() + " " + text
}

func (p *player) undecoded(o operation, s protocol.Status, body []byte, err error) string {
	p.t.Errorf("%s: a reply of status %v and %d bytes: %v", o.what, s, len(body), err)
	return err.Error()
}

func (p *player) renderResult(o operation, body []byte, before [][]byte) (string, error) {
	switch o.code {
	case protocol.OpGet, protocol.OpExists:
		var m protocol.RowReply
		err := m.Decode(body)
		return renderRow(m.Version, m.TTLMillis, m.Value), err
	case protocol.OpGetRange:
		var m protocol.RangeReply
		err := m.Decode(body)
		return fmt.Sprintf("version %d, %d bytes, %s", m.Version, m.Length, renderValue(m.Part)), err
	case protocol.OpExpiry:
		var m protocol.ExpiryReply
		err := m.Decode(body)
		return fmt.Sprintf("version %d, %s", m.Version, p.renderTime(m.ExpireAtMillis)), err
	case protocol.OpWatch:
		var m protocol.WatchReply
		err := m.Decode(body)
		return fmt.Sprintf("version %d, revision %d", m.Version, m.Revision), err
	case protocol.OpIncr, protocol.OpAppend, protocol.OpSetRange:
		var m protocol.IncrReply
		err := m.Decode(body)
		return fmt.Sprintf("version %d, %d", m.Version, m.Value), err
	case protocol.OpIncrFloat:
		var m protocol.FloatReply
		err := m.Decode(body)
		return fmt.Sprintf("version %d, %s", m.Version, m.Text), err
	case protocol.OpBatch, protocol.OpDeleteRange:
		var m protocol.BatchReply
		err := m.Decode(body)
		return p.renderParts(o, o.then, m.Results), err
	case protocol.OpTxn:
		var m protocol.TxnReply
		err := m.Decode(body)
		branch := o.els
		if m.Succeeded {
			branch = o.then
		}
		return fmt.Sprintf("succeeded %v%s", m.Succeeded, p.renderParts(o, branch, m.Results)), err
	case protocol.OpMGet:
		return renderRows(append(before, body))
	case protocol.OpScan:
		return renderPage(append(before, body))
	}
	var m protocol.WriteReply
	err := m.Decode(body)
	text := fmt.Sprintf("version %d", m.Version)
	if m.HasPrevious {
		text += fmt.Sprintf(", before %s, omitted %v", renderRow(m.PreviousVersion, m.PreviousTTLMillis, m.PreviousValue), m.PreviousOmitted)
	}
	return text, err
}

// renderParts renders the results of the operations of a BATCH or TXN, or those of the
// shards in a DELETE_RANGE.
func (p *player) renderParts(o operation, parts []operation, results protocol.OpResults) string {
	var b strings.Builder
	if o.code != protocol.OpDeleteRange && len(parts) != len(results) {
		p.t.Errorf("%s: %d results for %d operations", o.what, len(results), len(parts))
		return ""
	}
	for i, r := range results {
		part := operation{what: o.what, code: protocol.OpDelete}
		if o.code != protocol.OpDeleteRange {
			part = parts[i]
		}
		fmt.Fprintf(&b, "\n      %s", p.render(part, r.Status, r.Body))
	}
	return b.String()
}

func renderRows(frames [][]byte) (string, error) {
	var b strings.Builder
	for _, body := range frames {
		var m protocol.MGetReply
		if err := m.Decode(body); err != nil {
			return "", err
		}
		for _, r := range m.Rows {
			fmt.Fprintf(&b, "\n      %v %s", r.Status, renderRow(r.Version, r.TTLMillis, r.Value))
		}
	}
	return b.String(), nil
}

// renderPage renders a page of a SCAN, whose last frame has the cursor.
func renderPage(frames [][]byte) (string, error) {
	var b strings.Builder
	more := false
	for _, body := range frames {
		var m protocol.ScanReply
		if err := m.Decode(body); err != nil {
			return "", err
		}
		more = len(m.Cursor) > 0
		for _, r := range m.Rows {
			fmt.Fprintf(&b, "\n      %s: %s", r.Key, renderRow(r.Version, r.TTLMillis, r.Value))
		}
	}
	return fmt.Sprintf("more %v%s", more, b.String()), nil
}

func renderRow(version, ttl uint64, value []byte) string {
	return fmt.Sprintf("version %d, expires %v, %s", version, ttl > 0, renderValue(value))
}

// renderValue renders a short value as it is, and of a long one what tells it from others.
func renderValue(v []byte) string {
	if len(v) <= 100 {
		return fmt.Sprintf("%q", v)
	}
	return fmt.Sprintf("%.20q and so on, %d bytes, checksum %016x", v, len(v), crc64.Checksum(v, crc64.MakeTable(crc64.ECMA)))
}

// renderTime renders a time of expiry.
func (p *player) renderTime(millis uint64) string {
	if off := time.UnixMilli(int64(millis)).Sub(p.began.Add(relativeTTL)); off.Abs() < time.Hour {
		return "expires relative to the time of day"
	}
	return fmt.Sprintf("expires at %d", millis)
}

// repeatAll repeats all writes whose results are kept.
func (p *player) repeatAll() {
	p.t.Helper()
	for _, r := range p.dealer.kept() {
		p.ask(nil, repeated(r))
	}
}

// contents reads everything, shard by shard.
func (p *player) contents() {
	p.t.Helper()
	for shard := range differentialShards {
		p.ask(nil, &exchange{operation: watch(key(shard, "row", 0))})
		var cursor []byte
		for page := 0; page == 0 || len(cursor) > 0; page++ {
			m := protocol.Scan{CountMax: 100, BytesMax: protocol.ScanBytesMax, Cursor: cursor}
			r := &exchange{operation: operation{what: fmt.Sprintf("page %d of shard %d", page, shard), code: protocol.OpScan, body: m.AppendTo(nil)}}
			r.ext.Shard, r.ext.HasShard = uint16(shard), true
			p.ask(nil, r)
			for _, body := range append(r.before, r.reply) {
				var m protocol.ScanReply
				if err := m.Decode(body); err != nil || r.status != protocol.StatusOK {
					p.t.Fatalf("%s: %v, %v", r.what, r.status, err)
				}
				for _, found := range m.Rows {
					if found.TTLMillis > 0 {
						p.ask(nil, &exchange{operation: expiry(string(found.Key))})
					}
				}
				cursor = m.Cursor
			}
		}
	}
}
