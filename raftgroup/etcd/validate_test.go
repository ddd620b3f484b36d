package etcd

import (
	"encoding/binary"
	"errors"
	"io"
	"log/slog"
	"math"
	"math/rand/v2"
	"strings"
	"testing"

	"go.etcd.io/raft/v3"
	"go.etcd.io/raft/v3/raftpb"

	"github.com/proa-kv/proa/command"
	"github.com/proa-kv/proa/internal/lograte"
	"github.com/proa-kv/proa/raftgroup/placement"
)

// Replicas of the groups in this file's tests; r1 is the one that is told.
var r1, r2, r3 = placement.ReplicaID(1, 1), placement.ReplicaID(2, 1), placement.ReplicaID(3, 1)

// entry returns a sound entry.
func entry(index, term uint64) raftpb.Entry {
	data := command.AppendEntryHeader(nil)
	command.SealEntry(data, 1, 0)
	return raftpb.Entry{Index: index, Term: term, Data: data}
}

func snapshotOf(index, term uint64, cs raftpb.ConfState) *raftpb.Snapshot {
	return &raftpb.Snapshot{Metadata: raftpb.SnapshotMetadata{Index: index, Term: term, ConfState: cs}}
}

func TestCheckForm(t *testing.T) {
	context := []raftpb.Entry{{Data: make([]byte, roundContextBytes)}}
	three := raftpb.ConfState{Voters: []uint64{r1, r2, r3}}
	for name, tt := range map[string]struct {
		m    raftpb.Message
		want string // "" where a correct node may send it
	}{
		"append":                           {raftpb.Message{Type: raftpb.MsgApp, Term: 5, Index: 9, LogTerm: 4, Commit: 3, Entries: []raftpb.Entry{entry(10, 4), entry(11, 5)}}, ""},
		"append, to an empty log":          {raftpb.Message{Type: raftpb.MsgApp, Term: 5, Entries: []raftpb.Entry{entry(1, 1)}}, ""},
		"append, nothing":                  {raftpb.Message{Type: raftpb.MsgApp, Term: 5, Index: 9, LogTerm: 4, Commit: 100}, ""},
		"append, a gap before":             {raftpb.Message{Type: raftpb.MsgApp, Term: 5, Index: 9, LogTerm: 4, Entries: []raftpb.Entry{entry(11, 5)}}, "entry 11 where entry 10 was expected"},
		"append, a gap inside":             {raftpb.Message{Type: raftpb.MsgApp, Term: 5, Index: 9, LogTerm: 4, Entries: []raftpb.Entry{entry(10, 5), entry(12, 5)}}, "entry 12 where entry 11 was expected"},
		"append, entries twice":            {raftpb.Message{Type: raftpb.MsgApp, Term: 5, Index: 9, LogTerm: 4, Entries: []raftpb.Entry{entry(10, 5), entry(10, 5)}}, "entry 10 where entry 11 was expected"},
		"append, terms fall":               {raftpb.Message{Type: raftpb.MsgApp, Term: 5, Index: 9, LogTerm: 4, Entries: []raftpb.Entry{entry(10, 5), entry(11, 4)}}, "entry 11 of term 4, after term 5"},
		"append, a later term":             {raftpb.Message{Type: raftpb.MsgApp, Term: 5, Index: 9, LogTerm: 4, Entries: []raftpb.Entry{entry(10, 6)}}, "entry 10 of term 6"},
		"append, an entry of no term":      {raftpb.Message{Type: raftpb.MsgApp, Term: 5, Entries: []raftpb.Entry{entry(1, 0)}}, "of term 0"},
		"append, after no term":            {raftpb.Message{Type: raftpb.MsgApp, Term: 5, Index: 9}, "after entry 9 of term 0"},
		"append, after the term":           {raftpb.Message{Type: raftpb.MsgApp, Term: 5, Index: 9, LogTerm: 6}, "after an entry of term 6"},
		"append, no entry":                 {raftpb.Message{Type: raftpb.MsgApp, Term: 5, Index: 9, LogTerm: 4, Entries: []raftpb.Entry{{Index: 10, Term: 5, Data: []byte("junk")}}}, "entry 10"},
		"append, no configuration":         {raftpb.Message{Type: raftpb.MsgApp, Term: 5, Index: 9, LogTerm: 4, Entries: []raftpb.Entry{{Type: raftpb.EntryConfChangeV2, Index: 10, Term: 5, Data: []byte("junk")}}}, "entry 10"},
		"append, no type":                  {raftpb.Message{Type: raftpb.MsgApp, Term: 5, Index: 9, LogTerm: 4, Entries: []raftpb.Entry{{Type: 7, Index: 10, Term: 5}}}, "unknown entry type 7"},
		"append, far":                      {raftpb.Message{Type: raftpb.MsgApp, Term: 5, Index: math.MaxUint64, LogTerm: 4, Entries: []raftpb.Entry{entry(0, 5)}}, "index 18446744073709551615"},
		"append, a snapshot":               {raftpb.Message{Type: raftpb.MsgApp, Term: 5, Snapshot: snapshotOf(1, 1, three)}, "snapshot"},
		"heartbeat":                        {raftpb.Message{Type: raftpb.MsgHeartbeat, Term: 5, Commit: 7}, ""},
		"heartbeat, no term":               {raftpb.Message{Type: raftpb.MsgHeartbeat, Commit: 7}, "of term 0"},
		"heartbeat, entries":               {raftpb.Message{Type: raftpb.MsgHeartbeat, Term: 5, Entries: []raftpb.Entry{entry(1, 1)}}, "1 entries"},
		"heartbeat, far commit":            {raftpb.Message{Type: raftpb.MsgHeartbeat, Term: 5, Commit: 1 << 63}, "commit"},
		"heartbeat, far term":              {raftpb.Message{Type: raftpb.MsgHeartbeat, Term: math.MaxUint64}, "term"},
		"heartbeat response":               {raftpb.Message{Type: raftpb.MsgHeartbeatResp, Term: 5}, ""},
		"append response":                  {raftpb.Message{Type: raftpb.MsgAppResp, Term: 5, Index: 7}, ""},
		"append response, rejection":       {raftpb.Message{Type: raftpb.MsgAppResp, Term: 5, Index: 7, Reject: true, RejectHint: 3, LogTerm: 2}, ""},
		"append response, far hint":        {raftpb.Message{Type: raftpb.MsgAppResp, Term: 5, Index: 7, Reject: true, RejectHint: math.MaxUint64}, "hint"},
		"vote":                             {raftpb.Message{Type: raftpb.MsgVote, Term: 5, Index: 7, LogTerm: 4}, ""},
		"vote, newer log than term":        {raftpb.Message{Type: raftpb.MsgVote, Term: 5, Index: 7, LogTerm: 6}, "after an entry of term 6"},
		"vote response":                    {raftpb.Message{Type: raftpb.MsgVoteResp, Term: 5}, ""},
		"question":                         {raftpb.Message{Type: raftpb.MsgReadIndex, Entries: context}, ""},
		"question, nothing asked":          {raftpb.Message{Type: raftpb.MsgReadIndex}, "context"},
		"question, a term":                 {raftpb.Message{Type: raftpb.MsgReadIndex, Term: 5, Entries: context}, "of term 5"},
		"question, another context":        {raftpb.Message{Type: raftpb.MsgReadIndex, Entries: []raftpb.Entry{{}}}, "context"},
		"answer":                           {raftpb.Message{Type: raftpb.MsgReadIndexResp, Term: 5, Index: 3, Entries: context}, ""},
		"answer, to nothing":               {raftpb.Message{Type: raftpb.MsgReadIndexResp, Term: 5, Index: 3}, "context"},
		"snapshot":                         {raftpb.Message{Type: raftpb.MsgSnap, Term: 5, Snapshot: snapshotOf(9, 4, three)}, ""},
		"snapshot, none":                   {raftpb.Message{Type: raftpb.MsgSnap, Term: 5}, "snapshot"},
		"snapshot, of nothing":             {raftpb.Message{Type: raftpb.MsgSnap, Term: 5, Snapshot: snapshotOf(0, 4, three)}, "entry 0"},
		"snapshot, later term":             {raftpb.Message{Type: raftpb.MsgSnap, Term: 5, Snapshot: snapshotOf(9, 6, three)}, "term 6"},
		"snapshot, nobody votes":           {raftpb.Message{Type: raftpb.MsgSnap, Term: 5, Snapshot: snapshotOf(9, 4, raftpb.ConfState{})}, "it has no voters"},
		"snapshot, one votes twice":        {raftpb.Message{Type: raftpb.MsgSnap, Term: 5, Snapshot: snapshotOf(9, 4, raftpb.ConfState{Voters: []uint64{r1, r1}})}, "configuration"},
		"snapshot, votes and learns":       {raftpb.Message{Type: raftpb.MsgSnap, Term: 5, Snapshot: snapshotOf(9, 4, raftpb.ConfState{Voters: []uint64{r1, r2}, Learners: []uint64{r2}})}, "configuration"},
		"snapshot, learns next for ever":   {raftpb.Message{Type: raftpb.MsgSnap, Term: 5, Snapshot: snapshotOf(9, 4, raftpb.ConfState{Voters: []uint64{r1}, LearnersNext: []uint64{r2}})}, "configuration"},
		"snapshot, the local storage":      {raftpb.Message{Type: raftpb.MsgSnap, Term: 5, Snapshot: snapshotOf(9, 4, raftpb.ConfState{Voters: []uint64{r1, raft.LocalAppendThread}})}, "invalid replica id"},
		"time out":                         {raftpb.Message{Type: raftpb.MsgTimeoutNow, Term: 5}, ""},
		"to itself":                        {raftpb.Message{Type: raftpb.MsgHeartbeat, Term: 5, From: r1}, "from replica"},
		"from the local storage":           {raftpb.Message{Type: raftpb.MsgAppResp, Term: 5, From: raft.LocalAppendThread}, "from replica"},
		"local: campaign":                  {raftpb.Message{Type: raftpb.MsgHup}, "never leaves"},
		"local: beat":                      {raftpb.Message{Type: raftpb.MsgBeat}, "never leaves"},
		"local: proposal":                  {raftpb.Message{Type: raftpb.MsgProp}, "never leaves"},
		"local: unreachable":               {raftpb.Message{Type: raftpb.MsgUnreachable}, "never leaves"},
		"local: snapshot sent":             {raftpb.Message{Type: raftpb.MsgSnapStatus}, "never leaves"},
		"local: check the quorum":          {raftpb.Message{Type: raftpb.MsgCheckQuorum}, "never leaves"},
		"local: transfer":                  {raftpb.Message{Type: raftpb.MsgTransferLeader}, "never leaves"},
		"local: forget":                    {raftpb.Message{Type: raftpb.MsgForgetLeader}, "never leaves"},
		"local: written":                   {raftpb.Message{Type: raftpb.MsgStorageAppendResp}, "never leaves"},
		"local: applied":                   {raftpb.Message{Type: raftpb.MsgStorageApplyResp}, "never leaves"},
		"a type that is not":               {raftpb.Message{Type: 1000}, "never leaves"},
		"a type below nothing":             {raftpb.Message{Type: -1}, "never leaves"},
		"with a node's messages to itself": {raftpb.Message{Type: raftpb.MsgHeartbeat, Term: 5, Responses: []raftpb.Message{{}}}, "to itself"},
	} {
		t.Run(name, func(t *testing.T) {
			m := tt.m
			m.To = r1
			if m.From == 0 {
				m.From = r2
			}
			expectNonsense(t, checkForm(&m), tt.want)
		})
	}
}

func expectNonsense(t *testing.T, err error, want string) {
	t.Helper()
	switch {
	case want == "" && err != nil:
		t.Errorf("refused: %v", err)
	case want != "" && (!errors.Is(err, errNonsense) || !strings.Contains(err.Error(), want)):
		t.Errorf("got %v, want nonsense with %q", err, want)
	}
}

func TestCheckPlace(t *testing.T) {
	follower := place{id: r1, term: 5, leader: r2, last: 20}
	leader := place{id: r1, term: 5, leader: r1, leads: true, last: 20}
	for name, tt := range map[string]struct {
		p      place
		m      raftpb.Message
		want   string
		behind bool
	}{
		"the leader's":                    {follower, raftpb.Message{Type: raftpb.MsgHeartbeat, Term: 5, Commit: 20}, "", false},
		"more than there is":              {follower, raftpb.Message{Type: raftpb.MsgHeartbeat, Term: 5, Commit: 21}, "entry 21", true},
		"more than there is, next term":   {follower, raftpb.Message{Type: raftpb.MsgHeartbeat, From: r3, Term: 6, Commit: 1 << 40}, "entry 1099511627776", true},
		"more than there is, old":         {follower, raftpb.Message{Type: raftpb.MsgHeartbeat, From: r3, Term: 4, Commit: 21}, "", false},
		"append, commit past its end":     {follower, raftpb.Message{Type: raftpb.MsgApp, Term: 5, Index: 20, LogTerm: 5, Commit: 1 << 40}, "", false},
		"a second leader":                 {follower, raftpb.Message{Type: raftpb.MsgHeartbeat, From: r3, Term: 5}, "as the leader of term 5", false},
		"a second leader's entries":       {follower, raftpb.Message{Type: raftpb.MsgApp, From: r3, Term: 5}, "as the leader of term 5", false},
		"a second leader's snapshot":      {follower, raftpb.Message{Type: raftpb.MsgSnap, From: r3, Term: 5}, "as the leader of term 5", false},
		"a second leader's wish":          {follower, raftpb.Message{Type: raftpb.MsgTimeoutNow, From: r3, Term: 5}, "as the leader of term 5", false},
		"another leader's":                {leader, raftpb.Message{Type: raftpb.MsgApp, Term: 5}, "as the leader of term 5", false},
		"the next leader's":               {leader, raftpb.Message{Type: raftpb.MsgApp, Term: 6}, "", false},
		"a term out of reach":             {follower, raftpb.Message{Type: raftpb.MsgVote, Term: 6 + termStepMax}, "elections ahead", false},
		"confirmed":                       {leader, raftpb.Message{Type: raftpb.MsgAppResp, Term: 5, Index: 20}, "", false},
		"confirmed, more than was sent":   {leader, raftpb.Message{Type: raftpb.MsgAppResp, Term: 5, Index: 21}, "confirms entry 21", false},
		"refused, more than was sent":     {leader, raftpb.Message{Type: raftpb.MsgAppResp, Term: 5, Index: 21, Reject: true}, "", false},
		"confirmed to a leader before":    {follower, raftpb.Message{Type: raftpb.MsgAppResp, Term: 5, Index: 21}, "", false},
		"confirmed to a leader of a term": {leader, raftpb.Message{Type: raftpb.MsgAppResp, Term: 4, Index: 21}, "", false},
	} {
		t.Run(name, func(t *testing.T) {
			m := tt.m
			m.To = r1
			if m.From == 0 {
				m.From = r2
			}
			err := checkPlace(&m, &tt.p)
			if tt.behind {
				if !errors.Is(err, errBehind) || !strings.Contains(err.Error(), tt.want) {
					t.Errorf("got %v", err)
				}
				return
			}
			expectNonsense(t, err, tt.want)
		})
	}
}

// BenchmarkCheckMessage is what each message of another node costs more.
func BenchmarkCheckMessage(b *testing.B) {
	l := newLone(b, 1)
	g := l.groups[0]
	term := g.Term.Load() + 1
	m := raftpb.Message{Type: raftpb.MsgApp, From: r2, To: g.id, Term: term, Index: g.last, LogTerm: term, Entries: []raftpb.Entry{entry(g.last+1, term)}}
	b.ReportAllocs()
	for b.Loop() {
		if err := checkForm(&m); err != nil {
			b.Fatal(err)
		}
		if ok, err := g.vouched(l.Engine, &m); !ok || err != nil {
			b.Fatal(ok, err)
		}
	}
}

// FuzzMessages tells a replica what the bytes say. Whatever passes the checks
// must be survived by Raft.
func FuzzMessages(f *testing.F) {
	rng := rand.New(rand.NewPCG(1, 2))
	for n := range 64 {
		seed := make([]byte, 16+16*n)
		for i := range seed {
			seed[i] = byte(rng.Uint32())
		}
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, data []byte) { tellAll(t, data) })
}

func TestRandomMessages(t *testing.T) {
	rng := rand.New(rand.NewPCG(3, 4))
	told := 0
	data := make([]byte, 600)
	for range 3000 {
		for i := range data {
			data[i] = byte(rng.Uint32())
			if rng.IntN(3) > 0 {
				data[i] %= 8 // what is likely to pass
			}
		}
		told += tellAll(t, data)
	}
	if told < 3000 {
		t.Errorf("only %d messages came to Raft", told)
	}
}

// told is a replica with the storage a test can do without disks.
type told struct {
	t       *testing.T
	node    *raft.RawNode
	storage *raft.MemoryStorage
	conf    raftpb.ConfState
	picks   []byte
	steps   int
}

// tellAll makes messages of data and returns how many have come to Raft.
func tellAll(t *testing.T, data []byte) int {
	r := &told{t: t, storage: raft.NewMemoryStorage(), picks: data, conf: raftpb.ConfState{Voters: []uint64{r1, r2, r3}}}
	kind := r.pick() % 4
	if kind != 3 { // 3: a replica that holds nothing yet
		must(t, r.storage.ApplySnapshot(*snapshotOf(1, 1, r.conf)))
		must(t, r.storage.Append([]raftpb.Entry{entry(2, 1), entry(3, 2), entry(4, 2), entry(5, 3)}))
		must(t, r.storage.SetHardState(raftpb.HardState{Term: 3, Commit: 3}))
	} else {
		r.conf = raftpb.ConfState{}
	}
	var err error
	r.node, err = raft.NewRawNode(&raft.Config{
		ID: r1, ElectionTick: 10, HeartbeatTick: 9, Storage: r.storage, MaxSizePerMsg: 1 << 20, MaxInflightMsgs: 4,
		CheckQuorum: true, PreVote: true, DisableProposalForwarding: true, StepDownOnRemoval: true,
		Logger: &raftLogger{slog.New(slog.NewTextHandler(io.Discard, nil)), &lograte.Line{}},
	})
	must(t, err)
	if kind == 1 || kind == 2 {
		must(t, r.node.Campaign())
		r.drain()
	}
	if kind == 2 {
		for _, answer := range []raftpb.MessageType{raftpb.MsgPreVoteResp, raftpb.MsgVoteResp} {
			must(t, r.node.Step(raftpb.Message{Type: answer, Term: 4, From: r2, To: r1}))
			r.drain()
		}
		if r.node.BasicStatus().RaftState != raft.StateLeader {
			t.Fatal("it does not lead")
		}
	}
	for len(r.picks) > 0 {
		m := r.message()
		if !r.tell(&m) {
			break
		}
	}
	return r.steps
}

// tell does what Engine does with a message. It returns false where the node
// would stop.
func (r *told) tell(m *raftpb.Message) bool {
	last, err := r.storage.LastIndex()
	must(r.t, err)
	s := r.node.BasicStatus()
	p := place{id: r1, term: s.Term, leader: s.Lead, leads: s.RaftState == raft.StateLeader, last: last}
	if m.Type == raftpb.MsgReadIndex && !p.leads || checkForm(m) != nil || checkPlace(m, &p) != nil {
		return true
	}
	r.steps++
	_ = r.node.Step(*m)
	if r.pick()%4 == 0 {
		r.node.Tick()
	}
	return r.drain()
}

func (r *told) drain() bool {
	for r.node.HasReady() {
		rd := r.node.Ready()
		if !raft.IsEmptySnap(rd.Snapshot) {
			must(r.t, r.storage.ApplySnapshot(rd.Snapshot))
			r.conf = rd.Snapshot.Metadata.ConfState
		}
		if !raft.IsEmptyHardState(rd.HardState) {
			must(r.t, r.storage.SetHardState(rd.HardState))
		}
		must(r.t, r.storage.Append(rd.Entries))
		for i := range rd.CommittedEntries {
			e := &rd.CommittedEntries[i]
			if e.Type == raftpb.EntryNormal {
				continue
			}
			cc, err := decodeConfChange(e)
			if err != nil || checkConfChange(&r.conf, cc) != nil {
				return false // the node stops with an error
			}
			r.conf = *r.node.ApplyConfChange(cc)
		}
		r.node.Advance(rd)
	}
	return true
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func (r *told) pick() byte {
	if len(r.picks) == 0 {
		return 0
	}
	b := r.picks[0]
	r.picks = r.picks[1:]
	return b
}

// number returns a small number, or one at some edge.
func (r *told) number() uint64 {
	edges := []uint64{1 << 40, positionMax - 1, positionMax, positionMax + 1, 1 << 63, math.MaxUint64 - 1, math.MaxUint64, termStepMax}
	b := r.pick()
	switch {
	case b < 224:
		return uint64(b % 8)
	case b < 232:
		return edges[b-224]
	}
	n := min(8, len(r.picks))
	var word [8]byte
	copy(word[:], r.picks[:n])
	r.picks = r.picks[n:]
	return binary.LittleEndian.Uint64(word[:])
}

func (r *told) replica() uint64 {
	return []uint64{r2, r2, r2, r3, r3, placement.ReplicaID(4, 1), r1, 0, raft.LocalAppendThread, placement.ReplicaID(2, 0)}[r.pick()%10]
}

func (r *told) message() raftpb.Message {
	types := []raftpb.MessageType{raftpb.MsgApp, raftpb.MsgHeartbeat, raftpb.MsgAppResp, raftpb.MsgSnap, raftpb.MsgVote, raftpb.MsgHeartbeatResp, raftpb.MsgReadIndex, raftpb.MsgTimeoutNow}
	m := raftpb.Message{Type: types[r.pick()%8], To: r1, From: r.replica(), Term: 3 + r.number(), Index: r.number(), LogTerm: r.number(), Commit: r.number()}
	if b := r.pick(); b > 200 {
		m.Type = raftpb.MessageType(b%30) - 1
	}
	m.Reject, m.RejectHint = r.pick()%4 == 3, r.number()
	switch r.pick() % 4 {
	case 0:
		m.Context = make([]byte, roundContextBytes)
	case 1:
		m.Context = campaignTransfer
	}
	if m.Type == raftpb.MsgReadIndex {
		m.Term = 0
	}
	if (m.Type == raftpb.MsgReadIndex || m.Type == raftpb.MsgReadIndexResp) && r.pick()%8 > 0 {
		m.Entries = []raftpb.Entry{{Data: make([]byte, roundContextBytes)}}
	}
	if m.Type == raftpb.MsgApp || r.pick() > 240 {
		for i := range r.pick() % 5 {
			m.Entries = append(m.Entries, r.entry(m.Index+1+uint64(i)))
		}
	}
	if m.Type == raftpb.MsgSnap || r.pick() > 240 {
		m.Snapshot = snapshotOf(r.number(), r.number(), r.configuration())
	}
	return m
}

func (r *told) entry(index uint64) raftpb.Entry {
	e := entry(index, 3+r.number())
	if r.pick() > 240 {
		e.Index = r.number()
	}
	switch r.pick() % 8 {
	case 1:
		e.Data = nil
	case 2:
		e.Type = raftpb.EntryType(r.pick() % 4)
	case 3, 4:
		var cc raftpb.ConfChangeV2
		cc.Transition = raftpb.ConfChangeTransition(r.pick() % 4)
		for range r.pick() % 4 {
			cc.Changes = append(cc.Changes, raftpb.ConfChangeSingle{Type: raftpb.ConfChangeType(r.pick() % 5), NodeID: r.replica()})
		}
		e.Type = raftpb.EntryConfChangeV2
		e.Data, _ = cc.Marshal()
	}
	return e
}

func (r *told) configuration() (cs raftpb.ConfState) {
	for _, set := range []*[]uint64{&cs.Voters, &cs.Learners, &cs.VotersOutgoing, &cs.LearnersNext} {
		for range r.pick() % 4 {
			*set = append(*set, r.replica())
		}
		if r.pick()%2 == 0 {
			*set = nil
		}
	}
	if r.pick()%2 == 0 {
		cs = raftpb.ConfState{Voters: []uint64{r1, r2, r3}}
	}
	cs.AutoLeave = r.pick()%4 == 3
	return cs
}
