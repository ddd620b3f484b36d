package protocol

import (
	"strings"
	"testing"
)

// isName reports whether s is how the documentation spells a status or opcode.
func isName(s string) bool {
	return s != "" && strings.Trim(s, "ABCDEFGHIJKLMNOPQRSTUVWXYZ_") == ""
}

func TestStatusTable(t *testing.T) {
	names := map[string]Status{}
	for s := Status(0); s < statusEnd; s++ {
		if !s.Known() || !isName(s.String()) || s.Text() == "" {
			t.Errorf("status %d: name %q, text %q", s, s, s.Text())
		}
		if other, twice := names[s.String()]; twice {
			t.Errorf("statuses %d and %d are both called %v", other, s, s)
		}
		names[s.String()] = s
		if s.Retry() && s.Outcome() == Unknown {
			t.Errorf("%v may be retried without a session although its outcome is unknown", s)
		}
		if s.CarriesResult() != (s == StatusOK || s == StatusNotFound || s == StatusConditionFailed) {
			t.Errorf("%v: CarriesResult is %v", s, s.CarriesResult())
		}
	}
	for _, s := range []Status{statusEnd, 255} {
		if s.Known() || s.Retry() || s.CarriesResult() || s.Outcome() != Unknown || s.String() != "UNKNOWN_STATUS" || s.Text() == "" {
			t.Errorf("status %d is not treated as unknown", s)
		}
	}
}

func TestOpcodeTable(t *testing.T) {
	names := map[string]bool{}
	for o := Opcode(1); o < opcodeEnd; o++ {
		if !o.Known() || !isName(o.String()) || names[o.String()] {
			t.Errorf("opcode %d: name %q is missing or not unique", o, o)
		}
		names[o.String()] = true
	}
	for _, o := range []Opcode{0, opcodeEnd, 255} {
		if o.Known() || o.String() != "UNKNOWN" {
			t.Errorf("opcode %d is known", o)
		}
	}
	if len(opcodeNames) != int(opcodeEnd) {
		t.Errorf("%d opcode names for %d opcodes", len(opcodeNames), opcodeEnd)
	}
}

func TestNames(t *testing.T) {
	for want, got := range map[string]string{
		"linearizable": Linearizable.String(), "session": SessionReads.String(), "stale": Stale.String(),
		"unknown": Consistency(3).String(), "done": Done.String(), "not done": NotDone.String(),
	} {
		if got != want {
			t.Errorf("%q, want %q", got, want)
		}
	}
	if Unknown.String() != "unknown" {
		t.Error(Unknown.String())
	}
}
