package transport

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"testing"

	pb "github.com/lni/dragonboat/v4/raftpb"
)

// learner is an entry that adds a learner.
func learner(index, term uint64) pb.Entry {
	return change(index, term, pb.ConfigChange{Type: pb.AddNonVoting, ReplicaID: 401, Address: "4"})
}

// changing is a message with one change of the membership.
func changing(term, index, commit uint64) pb.Message {
	return pb.Message{
		Type: pb.Replicate, From: 201, Term: term, LogIndex: index - 2, LogTerm: 1, Commit: commit,
		Entries: []pb.Entry{command(index-1, term), learner(index, term)},
	}
}

// TestChanges compares changes of the membership with one another.
func TestChanges(t *testing.T) {
	type sent struct{ term, index, commit uint64 }
	for name, x := range map[string]struct {
		sent []sent
		last bool // the last one is not refused
	}{
		"one":                                   {[]sent{{5, 10, 8}}, true},
		"the same again":                        {[]sent{{5, 10, 8}, {5, 10, 8}}, true},
		"committed":                             {[]sent{{5, 10, 8}, {5, 12, 10}}, true},
		"both committed":                        {[]sent{{5, 10, 8}, {5, 12, 12}}, true},
		"late":                                  {[]sent{{5, 12, 10}, {5, 10, 8}}, true},
		"not committed":                         {[]sent{{5, 10, 8}, {5, 12, 9}}, false},
		"not committed, the later one first":    {[]sent{{5, 12, 9}, {5, 10, 8}}, false},
		"not committed, with another between":   {[]sent{{5, 10, 8}, {5, 6, 4}, {5, 12, 9}}, false},
		"not committed, with the same between":  {[]sent{{5, 12, 9}, {5, 12, 11}, {5, 10, 8}}, false},
		"not committed, with a far one between": {[]sent{{5, 10, 8}, {5, 100, 99}, {5, 12, 9}}, true}, // entry 100 says that it is
		"not committed, behind a far one":       {[]sent{{5, 100, 9}, {5, 10, 8}}, false},
		"of a later term":                       {[]sent{{5, 10, 8}, {6, 12, 8}}, true},
		"of an earlier term":                    {[]sent{{6, 12, 8}, {5, 10, 8}}, true},
	} {
		var c Changes
		for i, s := range x.sent {
			m := changing(s.term, s.index, s.commit)
			err := c.check(&m)
			if want := i < len(x.sent)-1 || x.last; (err == nil) != want || err != nil && !errors.Is(err, ErrDamaged) {
				t.Errorf("%s: message %d: %v", name, i, err)
			} else if err != nil {
				t.Logf("%s: %v", name, err)
			}
		}
	}
}

// TestChangesOfALeader: whatever a leader sends, in whatever order it arrives, is taken.
func TestChangesOfALeader(t *testing.T) {
	r := rand.New(rand.NewPCG(5, 6))
	for range 1000 {
		var ms []pb.Message
		var c Changes
		committed, last, pending := uint64(0), uint64(0), uint64(0)
		var log []pb.Entry
		for range 60 {
			switch r.IntN(4) {
			case 0:
				committed += r.Uint64N(last - committed + 1)
			case 1:
				if last++; pending <= committed {
					pending = last
					log = append(log, learner(last, 5))
					continue
				}
				log = append(log, command(last, 5))
			case 2:
				last++
				log = append(log, command(last, 5))
			default:
				from := r.Uint64N(last + 1)
				ms = append(ms, pb.Message{Type: pb.Replicate, From: 201, Term: 5, LogIndex: from, Commit: committed, Entries: log[from:last:last]})
			}
		}
		if r.IntN(2) == 0 {
			r.Shuffle(len(ms), func(i, j int) { ms[i], ms[j] = ms[j], ms[i] })
		}
		for i := range ms {
			if err := c.check(&ms[i]); err != nil {
				t.Fatalf("%+v: %v", ms[i], err)
			}
		}
	}
}

// TestTwoChanges: a leader that lies does not have a replica elected whose log has two
// changes of the membership that are not committed, whether it says them in one term or in
// two, at once. When they are committed the replica may lead.
func TestTwoChanges(t *testing.T) {
	v := newVictim(t, 100_000)
	defer v.close()
	v.settle()
	at := v.place().Last
	append1 := func(from, term, index, before, commit uint64) error {
		e := learner(index, term)
		return v.receive(nodeOf(from), pb.Message{Type: pb.Replicate, From: from, Term: term, LogIndex: index - 1, LogTerm: before, Commit: commit, Entries: []pb.Entry{e}})
	}
	must(t, append1(201, 5, at+1, 1, at))
	if err := append1(201, 5, at+2, 5, at); !errors.Is(err, ErrDamaged) {
		t.Errorf("a second change in one term: %v", err)
	}
	must(t, append1(201, 6, at+2, 5, at)) // of another term, before the first is stored
	must(t, v.receive(2, pb.Message{Type: pb.TimeoutNow, From: 201, Term: 6}))
	if err := v.receive(2, pb.Message{Type: pb.RequestVoteResp, From: 201, Term: 7}); !errors.Is(err, ErrDamaged) {
		t.Errorf("a vote that was not asked for yet: %v", err)
	}
	for v.settle(); v.place().Term < 7; v.settle() { // it does not stand before it has carried out what was committed
		must(t, v.receive(2, pb.Message{Type: pb.TimeoutNow, From: 201, Term: 6}))
	}
	if n := v.pending(); n != 2 {
		t.Fatalf("the log has %d changes that are not committed", n)
	}
	for _, from := range []uint64{201, 301} {
		must(t, v.receive(nodeOf(from), pb.Message{Type: pb.RequestVoteResp, From: from, Term: 7}))
		must(t, v.receive(nodeOf(from), pb.Message{Type: pb.RequestPreVoteResp, From: from, Term: 8}))
	}
	v.settle()
	if leader, _, ok, err := v.nh.GetLeaderID(shard); err != nil || ok {
		t.Errorf("replica %d leads, %v", leader, err)
	}
	must(t, v.receive(3, pb.Message{Type: pb.Replicate, From: 301, Term: 8, LogIndex: at + 2, LogTerm: 6, Commit: at + 2}))
	for v.place().Term < 9 {
		must(t, v.receive(3, pb.Message{Type: pb.TimeoutNow, From: 301, Term: 8}))
		v.settle()
	}
	must(t, v.receive(3, pb.Message{Type: pb.RequestVoteResp, From: 301, Term: 9}))
	v.settle()
	if leader, _, ok, err := v.nh.GetLeaderID(shard); err != nil || !ok || leader != self {
		t.Error(fmt.Sprint("it does not lead when all is committed: ", leader, ok, err))
	}
}
