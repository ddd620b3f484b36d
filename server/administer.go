package server

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/proa-kv/proa/access"
	"github.com/proa-kv/proa/bufpool"
	"github.com/proa-kv/proa/command"
	"github.com/proa-kv/proa/protocol"
)

// adminsMax bounds the administrative requests under way, each of which takes
// a goroutine.
const adminsMax = 16

// admin has an ADMIN request carried out by a goroutine of its own.
func (p *processor) admin(c *conn, f *protocol.Frame) {
	s := p.srv
	var m protocol.Admin
	if err := m.Decode(f.Body); err != nil {
		p.refuse(c, f.ID, err)
		return
	}
	if s.admins.Add(1) > adminsMax {
		s.admins.Add(-1)
		p.fail(c, f.ID, protocol.StatusBusy, retryQuorumMillis, fmt.Sprintf("%d administrative requests are already running; try again later", adminsMax))
		return
	}
	if !s.upstreams.begin(1) {
		s.admins.Add(-1)
		p.fail(c, f.ID, protocol.StatusShuttingDown, 0, "the server is shutting down; connect to another node")
		return
	}
	j := p.newJob(c, f)
	go s.administer(j, c.Remote())
}

// administer carries out one administrative request, of a client at an address.
func (s *Server) administer(j job, remote string) {
	defer s.upstreams.running.Done()
	var t touched
	defer t.send()
	answer, err := s.askBackend(&j, remote)
	s.admins.Add(-1) // before the answer: who has it may ask again
	if err == nil && len(answer) > bodyBytesMax {
		err = fmt.Errorf("the answer has %d bytes, which does not fit in a frame", len(answer))
	}
	if err != nil {
		s.failJob(&j, adminRefusal(err), &t)
		return
	}
	s.succeed(&j, answer, &t)
}

func (s *Server) askBackend(j *job, remote string) (answer []byte, err error) {
	var m protocol.Admin
	if err := m.Decode(j.request()); err != nil { // it did when it came in
		return nil, fmt.Errorf("%w: %w", command.ErrInvalid, err)
	}
	ctx, cancel := context.WithDeadline(s.upstreams.ctx, time.UnixMilli(j.deadline))
	defer cancel()
	verb := string(m.Verb)
	switch verb {
	case command.AdminUserSelf:
		answer, err = j.c.describe()
	case command.AdminUserPassword:
		answer, err = j.c.changePassword(ctx, remote, m.Args)
	default:
		answer, err = s.backend.Admin(ctx, verb, m.Args)
	}
	j.c.auditAdmin(remote, verb, m.Args, err)
	return answer, err
}

// succeed answers a job with OK and body.
func (s *Server) succeed(j *job, body []byte, t *touched) {
	out := bufpool.Get(protocol.HeaderBytes + marksBytesMax + len(body))
	out.B = protocol.End(append(beginFrame(out.B, uint8(protocol.StatusOK), protocol.FlagReply, j.id, &protocol.Extensions{Epoch: j.epoch}), body...), 0)
	j.c.put(out, j.charge, nil, t)
	j.release()
}

// adminRefusal translates why an administrative request failed.
func adminRefusal(err error) *refusal {
	r := &refusal{message: plain(err)}
	switch {
	case errors.Is(err, command.ErrInvalid):
		r.status = protocol.StatusBadRequest
	case errors.Is(err, command.ErrRefused):
		r.status = protocol.StatusRefused
	case errors.Is(err, command.ErrTimeout), errors.Is(err, context.DeadlineExceeded), errors.Is(err, context.Canceled):
		r.status = protocol.StatusTimeout
	case errors.Is(err, command.ErrBusy), errors.Is(err, access.ErrCrowded):
		r.status, r.retryMillis = protocol.StatusBusy, retryQuorumMillis
	default:
		r = refusalOf(err)
		r.message = plain(err)
	}
	return r
}

// plain is the sentence of err without the name of its class, which the status
// of the reply says.
func plain(err error) string {
	text := err.Error()
	for _, class := range []error{command.ErrInvalid, command.ErrRefused, command.ErrTimeout} {
		if rest, ok := strings.CutPrefix(text, class.Error()+": "); ok {
			return rest
		}
	}
	return text
}
