package call

import (
	"errors"
	"fmt"
	"testing"

	"github.com/proa-kv/proa/command"
)

// An error keeps its class and its text on its way between nodes.
func TestPack(t *testing.T) {
	for _, class := range []error{nil, command.ErrInvalid, command.ErrRefused, command.ErrTimeout, command.ErrNotLeader, command.ErrNoQuorum, command.ErrBusy, errors.New("another")} {
		var sent error
		if class != nil {
			sent = fmt.Errorf("%w: why", class)
		}
		b, err := Pack([]byte(`{"a":1}`), sent)
		if err != nil {
			t.Fatal(err)
		}
		body, got := Unpack(b)
		switch {
		case sent == nil:
			if got != nil || string(body) != `{"a":1}` {
				t.Errorf("%s, %v", body, got)
			}
		case got == nil || got.Error() != sent.Error() || errors.Is(got, class) == (class.Error() == "another"):
			t.Errorf("%v became %v", sent, got)
		}
	}
	if _, err := Unpack([]byte("x")); err == nil {
		t.Error("accepted")
	}
}
