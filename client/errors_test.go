package client

import (
	"strings"
	"testing"

	"github.com/proa-kv/proa/protocol"
)

// TestDroppedIsSaidOnce: the client and the server say the same of a dropped write,
// and who reads the error reads it once.
func TestDroppedIsSaidOnce(t *testing.T) {
	text := protocol.StatusDropped.Text()
	err := &Error{Op: "PUT", Status: protocol.StatusDropped, Message: text, Outcome: NotDone, Err: ErrDropped}
	if got := err.Error(); strings.Count(got, text) != 1 || got != "proa: PUT: "+text {
		t.Errorf("%q", got)
	}
}
