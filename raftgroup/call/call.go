// Package call has the form of requests that nodes send to one another: their
// verbs, and replies that keep the class of an error.
package call

import (
	"encoding/json"
	"errors"
	"fmt"

	"github.com/proa-kv/proa/command"
)

// Verbs.
const (
	Probe    = "probe"    // nodes outside the cluster, too: who are you? → datadir.Probe
	Join     = "join"     // nodes outside the cluster, too: placement.Request → datadir.JoinReply
	Announce = "announce" // placement.Node: my addresses or my version have changed
	Admin    = "admin"    // a verb of package command and its arguments
	Checksum = "checksum" // a shard and an index → command.ReplicaChecksum
	Balance  = "balance"  // spread the leaders now
)

// ErrNotAsked is an error of a request that was certainly not sent.
var ErrNotAsked = errors.New("raftgroup: the request was not sent to the node")

// reply is a reply on its way.
type reply struct {
	Class string          `json:"class,omitempty"`
	Error string          `json:"error,omitempty"`
	Reply json.RawMessage `json:"reply,omitempty"`
}

var classes = []struct {
	name string
	err  error
}{
	{"invalid", command.ErrInvalid}, {"refused", command.ErrRefused}, {"timeout", command.ErrTimeout},
	{"not leader", command.ErrNotLeader}, {"no quorum", command.ErrNoQuorum}, {"busy", command.ErrBusy},
}

// Pack encodes a reply, or the error in place of one.
func Pack(body []byte, err error) ([]byte, error) {
	p := reply{Reply: body}
	if err != nil {
		p.Error, p.Class = err.Error(), "failed"
		for _, c := range classes {
			if errors.Is(err, c.err) {
				p.Class = c.name
			}
		}
	}
	return json.Marshal(p)
}

// Error is an error with which another node has answered.
type Error struct {
	Class error
	Text  string
}

func (e *Error) Error() string { return e.Text }

// Unwrap returns the class of the error.
func (e *Error) Unwrap() error { return e.Class }

// Unpack returns what Pack has encoded. Its errors are those of an Error's class.
func Unpack(b []byte) ([]byte, error) {
	var p reply
	if err := json.Unmarshal(b, &p); err != nil {
		return nil, fmt.Errorf("invalid answer from another node: %w", err)
	}
	if p.Error == "" {
		return p.Reply, nil
	}
	for _, c := range classes {
		if c.name == p.Class {
			return nil, &Error{c.err, p.Error}
		}
	}
	return nil, errors.New(p.Error)
}
