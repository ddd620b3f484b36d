package dragonboat

import "testing"

// TestMatchesOfATerm: an answer may come before the pass knows that the replica leads, and
// what was confirmed in an earlier term may be gone.
func TestMatchesOfATerm(t *testing.T) {
	const replica = 7
	var mb membership
	expect := func(when string, term, index uint64) {
		t.Helper()
		if m := mb.matchOf(term, replica); m.index != index {
			t.Errorf("%s, of term %d: %d, want %d", when, term, m.index, index)
		}
	}
	expect("at first", 0, 0)
	mb.noteMatch(2, replica, 20, 1)
	expect("an answer", 2, 20)
	expect("an answer", 3, 0)
	mb.noteMatch(2, replica, 0, 2) // to a heartbeat
	expect("a later answer", 2, 20)
	mb.noteMatch(3, replica, 9, 3)
	mb.noteMatch(2, replica, 30, 4)
	expect("the next term", 3, 9)
	expect("the next term", 2, 0)
}
