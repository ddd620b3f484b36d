package transport

import (
	"encoding/binary"
	"errors"
	"math"
	"strings"
	"testing"

	pb "github.com/lni/dragonboat/v4/raftpb"
)

// replicate is a message with entries of each kind.
func replicate() pb.Message {
	return pb.Message{
		Type: pb.Replicate, To: 300, From: 2, ShardID: 3, Term: 5, LogTerm: 4, LogIndex: 6, Commit: 7,
		Entries: []pb.Entry{
			{Index: 7, Term: 5},
			command(8, 5),
			change(9, 5, pb.ConfigChange{Type: pb.AddNonVoting, ReplicaID: 4, Address: Target(4)}),
		},
	}
}

func command(index, term uint64) pb.Entry {
	return pb.Entry{Index: index, Term: term, Type: pb.EncodedEntry, Key: 1, ClientID: math.MaxUint64, Cmd: []byte("\x00cmd")}
}

func change(index, term uint64, c pb.ConfigChange) pb.Entry {
	return pb.Entry{Index: index, Term: term, Type: pb.ConfigChangeEntry, Key: 1, Cmd: pb.MustMarshal(&c)}
}

// chunk is one of a snapshot's, of which chunk 2 is the last.
func chunk(id uint64) pb.Chunk {
	c := pb.Chunk{
		ShardID: 3, ReplicaID: 300, From: 2, ChunkId: id, FileChunkId: id, Index: 9, Term: 5, OnDiskIndex: 9, Filepath: "snapshot-0000000000000009.gbsnap",
		Membership: pb.Membership{ConfigChangeId: 1, Addresses: map[uint64]string{2: "2"}, NonVotings: map[uint64]string{300: "300"}, Removed: map[uint64]bool{3: true}},
	}
	switch id {
	case 0:
		h := pb.MustMarshal(&pb.SnapshotHeader{Version: headerVersion})
		c.Data = make([]byte, headerBytes)
		binary.LittleEndian.PutUint64(c.Data, uint64(len(h)))
		copy(c.Data[8:], h)
		c.Data = binary.LittleEndian.AppendUint64(c.Data, sessionsMax)
		c.Data = binary.LittleEndian.AppendUint64(c.Data, 0)
		c.Data = append(c.Data, "state, sum"...)
	case 1:
		c.Data = []byte("more, sum")
	default:
		c.ChunkCount, c.FileChunkCount = pb.LastChunkCount, pb.LastChunkCount
		c.Data = []byte("tail")
	}
	c.ChunkSize = uint64(len(c.Data))
	return c
}

// TestMessages: what a correct node sends passes, and each thing that none does is found.
func TestMessages(t *testing.T) {
	of := func(kind pb.MessageType, f func(m *pb.Message)) pb.Message {
		m := pb.Message{Type: kind, To: 1, From: 2}
		if f != nil {
			f(&m)
		}
		return m
	}
	term := func(m *pb.Message) { m.Term = 3 }
	rejected := func(m *pb.Message) { m.Term, m.Reject, m.LogIndex, m.Hint = 3, true, 4, 2 }
	context := func(m *pb.Message) { m.Hint, m.HintHigh = math.MaxUint64, 1 }
	for _, m := range []pb.Message{
		replicate(), of(pb.Replicate, term), of(pb.Heartbeat, term), of(pb.HeartbeatResp, term), of(pb.NoOP, term), of(pb.TimeoutNow, term), of(pb.RateLimit, term),
		of(pb.ReplicateResp, rejected), of(pb.RequestVoteResp, rejected), of(pb.RequestPreVoteResp, rejected),
		of(pb.RequestVote, func(m *pb.Message) { m.Term, m.LogTerm, m.LogIndex, m.Hint = 3, 2, 5, m.From }),
		of(pb.ReadIndex, context), of(pb.LeaderTransfer, context), of(pb.SnapshotReceived, nil),
		of(pb.ReadIndexResp, func(m *pb.Message) { term(m); context(m) }),
		of(pb.Propose, func(m *pb.Message) { m.Entries = []pb.Entry{command(0, 0), replicate().Entries[2]} }),
	} {
		if err := checkMessage(&m); err != nil {
			t.Errorf("%v: %v", m.Type, err)
		}
	}
	change := func(f func(m *pb.Message)) pb.Message {
		m := replicate()
		f(&m)
		return m
	}
	first := func(f func(e *pb.Entry)) pb.Message { return change(func(m *pb.Message) { f(&m.Entries[0]) }) }
	second := func(f func(e *pb.Entry)) pb.Message { return change(func(m *pb.Message) { f(&m.Entries[1]) }) }
	third := func(c pb.ConfigChange) pb.Message {
		return change(func(m *pb.Message) { m.Entries[2].Cmd = pb.MustMarshal(&c) })
	}
	for name, m := range map[string]pb.Message{
		"to itself":                 change(func(m *pb.Message) { m.From = m.To }),
		"no term":                   change(func(m *pb.Message) { m.Term = 0 }),
		"vote in no term":           of(pb.RequestPreVote, nil),
		"proposal of a term":        of(pb.Propose, func(m *pb.Message) { m.Term, m.Entries = 1, []pb.Entry{command(0, 0)} }),
		"snapshot received in term": of(pb.SnapshotReceived, term),
		"term":                      change(func(m *pb.Message) { m.Term = positionMax + 1 }),
		"position":                  change(func(m *pb.Message) { m.LogIndex = positionMax + 1 }),
		"commit":                    change(func(m *pb.Message) { m.Commit = math.MaxUint64 }),
		"confirmation":              of(pb.ReplicateResp, func(m *pb.Message) { m.Term, m.LogIndex = 1, math.MaxUint64 }),
		"rejection":                 of(pb.ReplicateResp, func(m *pb.Message) { m.Term, m.Reject, m.Hint = 1, true, math.MaxUint64 }),
		"log term":                  change(func(m *pb.Message) { m.LogTerm = 6 }),
		"log term of a heartbeat":   of(pb.Heartbeat, func(m *pb.Message) { m.Term, m.LogTerm = 2, 1 }),
		"rejecting heartbeat":       of(pb.Heartbeat, func(m *pb.Message) { m.Term, m.Reject = 1, true }),
		"read without context":      of(pb.ReadIndex, nil),
		"transfer to nobody":        of(pb.LeaderTransfer, nil),
		"heartbeat with entries":    of(pb.Heartbeat, func(m *pb.Message) { m.Term, m.Entries = 1, []pb.Entry{command(1, 1)} }),
		"proposal of nothing":       of(pb.Propose, nil),
		"proposal of a first entry": of(pb.Propose, func(m *pb.Message) { m.Entries = []pb.Entry{{}} }),
		"position without a term":   change(func(m *pb.Message) { m.LogTerm = 0 }),
		"term without a position":   change(func(m *pb.Message) { m.LogIndex = 0 }),
		"gap":                       first(func(e *pb.Entry) { e.Index++ }),
		"no term of an entry":       of(pb.Replicate, func(m *pb.Message) { m.Term, m.Entries = 1, []pb.Entry{{Index: 1}} }),
		"term of before":            first(func(e *pb.Entry) { e.Term = 3 }),
		"terms fall":                second(func(e *pb.Entry) { e.Term = 4 }),
		"term of later":             first(func(e *pb.Entry) { e.Term = 6 }),
		"metadata":                  second(func(e *pb.Entry) { e.Type = pb.MetadataEntry }),
		"plain command":             second(func(e *pb.Entry) { e.Type = pb.ApplicationEntry }),
		"first with a key":          first(func(e *pb.Entry) { e.Key = 1 }),
		"compressed":                second(func(e *pb.Entry) { e.Cmd = []byte("\x02\xff\xff\xff\xff\xff\xff\xff\xff\x7f") }),
		"version":                   second(func(e *pb.Entry) { e.Cmd[0] = 1 << 4 }),
		"has a session":             second(func(e *pb.Entry) { e.Cmd[0] = 1 }),
		"empty":                     second(func(e *pb.Entry) { e.Cmd = nil }),
		"nothing":                   second(func(e *pb.Entry) { e.Cmd = e.Cmd[:1] }),
		"no client":                 second(func(e *pb.Entry) { e.ClientID = 0 }),
		"no key":                    second(func(e *pb.Entry) { e.Key = 0 }),
		"series":                    second(func(e *pb.Entry) { e.SeriesID = 1 }),
		"new session":               second(func(e *pb.Entry) { *e = pb.Entry{Index: 8, Term: 5, Key: 1, ClientID: 1, SeriesID: math.MaxUint64 - 1} }),
		"responded to":              second(func(e *pb.Entry) { e.RespondedTo = 1 }),
		"change that is none":       change(func(m *pb.Message) { m.Entries[2].Cmd = []byte{0xff} }),
		"change of nobody":          third(pb.ConfigChange{Type: pb.RemoveNode}),
		"witness":                   third(pb.ConfigChange{Type: pb.AddWitness, ReplicaID: 4, Address: "4"}),
		"unknown change":            third(pb.ConfigChange{Type: 77, ReplicaID: 4, Address: "4"}),
		"two changes":               change(func(m *pb.Message) { e := m.Entries[2]; e.Index++; m.Entries = append(m.Entries, e) }),
		"address":                   third(pb.ConfigChange{Type: pb.AddNode, ReplicaID: 4, Address: "localhost:1"}),
	} {
		err := checkMessage(&m)
		if !errors.Is(err, ErrDamaged) {
			t.Errorf("%s: %v", name, err)
		} else {
			t.Logf("%s: %v", name, err)
		}
		if err := New(nil, nil).Receive(2, appendMessage(nil, &m)); !errors.Is(err, ErrDamaged) {
			t.Errorf("%s: received: %v", name, err)
		}
	}
	if m := replicate(); string(Payload(&m.Entries[1])) != "cmd" || Payload(&m.Entries[0]) != nil || Payload(&m.Entries[2]) != nil {
		t.Error("payloads")
	}
}

// TestChunks likewise.
func TestChunks(t *testing.T) {
	for id := range uint64(3) {
		c := chunk(id)
		if err := checkChunk(&c); err != nil {
			t.Errorf("chunk %d: %v", id, err)
		}
	}
	header := func(h pb.SnapshotHeader) func(c *pb.Chunk) {
		return func(c *pb.Chunk) { copy(c.Data[8:], pb.MustMarshal(&h)) }
	}
	for name, f := range map[string]func(c *pb.Chunk){
		"for itself":          func(c *pb.Chunk) { c.From = c.ReplicaID },
		"no index":            func(c *pb.Chunk) { c.Index = 0 },
		"index":               func(c *pb.Chunk) { c.Index = math.MaxUint64 },
		"no term":             func(c *pb.Chunk) { c.Term = 0 },
		"term":                func(c *pb.Chunk) { c.Term = math.MaxUint64 },
		"state":               func(c *pb.Chunk) { c.OnDiskIndex = 10 },
		"count":               func(c *pb.Chunk) { c.ChunkCount = 1 },
		"count of the file":   func(c *pb.Chunk) { c.FileChunkCount = 3 },
		"place in the file":   func(c *pb.Chunk) { c.FileChunkId = 1 },
		"size":                func(c *pb.Chunk) { c.ChunkSize++ },
		"other file":          func(c *pb.Chunk) { c.HasFileInfo = true },
		"witness":             func(c *pb.Chunk) { c.Witness = true },
		"file's size":         func(c *pb.Chunk) { c.FileSize = 1 },
		"file's name":         func(c *pb.Chunk) { c.Filepath = ".." },
		"one chunk":           func(c *pb.Chunk) { c.ChunkCount, c.FileChunkCount = pb.LastChunkCount, pb.LastChunkCount },
		"no membership":       func(c *pb.Chunk) { c.Membership = pb.Membership{} },
		"no change of it":     func(c *pb.Chunk) { c.Membership.ConfigChangeId = 0 },
		"witnesses":           func(c *pb.Chunk) { c.Membership.Witnesses = map[uint64]string{7: "7"} },
		"learner and voter":   func(c *pb.Chunk) { c.Membership.NonVotings[2] = "2" },
		"removed voter":       func(c *pb.Chunk) { c.Membership.Removed[2] = true },
		"member 0":            func(c *pb.Chunk) { c.Membership.Addresses[0] = "1" },
		"address of a member": func(c *pb.Chunk) { c.Membership.Addresses[2] = "two" },
		"too many members": func(c *pb.Chunk) {
			for id := range uint64(membersMax) {
				c.Membership.Addresses[1000+id] = "7"
			}
		},
		"short": func(c *pb.Chunk) { c.Data = c.Data[:headerBytes-1]; c.ChunkSize = uint64(len(c.Data)) },
		"state alone": func(c *pb.Chunk) {
			c.Data = c.Data[:headerBytes+sessionsBytes+sumBytes]
			c.ChunkSize = uint64(len(c.Data))
		},
		"header's size": func(c *pb.Chunk) { binary.LittleEndian.PutUint64(c.Data, headerBytes-8) },
		"header":        func(c *pb.Chunk) { c.Data[8] = 0xff },
		"version":       header(pb.SnapshotHeader{Version: 1}),
		"checksum":      header(pb.SnapshotHeader{Version: 2, ChecksumType: 9}),
		"compression":   header(pb.SnapshotHeader{Version: 2, CompressionType: pb.Snappy}),
		"sessions":      func(c *pb.Chunk) { c.Data[headerBytes+8] = 1 },
	} {
		c := chunk(0)
		f(&c)
		if err := checkChunk(&c); !errors.Is(err, ErrDamaged) {
			t.Errorf("%s: %v", name, err)
		} else {
			t.Logf("%s: %v", name, err)
		}
		if _, err := New(nil, nil).ReceiveChunk(encodeChunk(&c), anyChunk); !errors.Is(err, ErrDamaged) {
			t.Errorf("%s: received: %v", name, err)
		}
	}
}

// TestPlace compares messages with where a replica is.
func TestPlace(t *testing.T) {
	sent := new(Sent)
	for _, m := range []pb.Message{
		{Type: pb.Replicate, Term: 4, LogIndex: 90}, {Type: pb.Replicate, Term: 5, LogIndex: 10, Entries: make([]pb.Entry, 3)},
		{Type: pb.Replicate, Term: 5, LogIndex: 11}, {Type: pb.Replicate, Term: 3, LogIndex: 99}, {Type: pb.Heartbeat, Term: 5, LogIndex: 99},
	} {
		sent.Note(&m)
	}
	p := Place{NodeOf: func(replica uint64) uint64 { return replica / 100 }, Term: 5, Last: 12, Leader: 201, LeaderTerm: 6, Sent: sent}
	for _, c := range []struct {
		name string
		m    pb.Message
		want error
	}{
		{"heartbeat", pb.Message{Type: pb.Heartbeat, Term: 6, Commit: 12}, nil},
		{"commit beyond the log", pb.Message{Type: pb.Heartbeat, Term: 6, Commit: 13}, ErrBehind},
		{"entries may be committed before they are here", pb.Message{Type: pb.Replicate, Term: 6, Commit: 99}, nil},
		{"of another node", pb.Message{Type: pb.Heartbeat, Term: 6, From: 301}, ErrDamaged},
		{"another leader", pb.Message{Type: pb.Heartbeat, Term: 6, From: 202}, ErrDamaged},
		{"another leader's entries", pb.Message{Type: pb.Replicate, Term: 6, From: 202}, ErrDamaged},
		{"another leader's transfer", pb.Message{Type: pb.TimeoutNow, Term: 6, From: 202}, ErrDamaged},
		{"leader of another term", pb.Message{Type: pb.TimeoutNow, Term: 7, From: 202}, nil},
		{"far ahead", pb.Message{Type: pb.RequestVote, Term: 6 + termStepMax}, ErrDamaged},
		{"confirms what was sent", pb.Message{Type: pb.ReplicateResp, Term: 5, LogIndex: 13}, nil},
		{"confirms more", pb.Message{Type: pb.ReplicateResp, Term: 5, LogIndex: 14}, ErrDamaged},
		{"rejects more", pb.Message{Type: pb.ReplicateResp, Term: 5, LogIndex: 14, Reject: true}, nil},
		{"confirms in a term that was not led here", pb.Message{Type: pb.ReplicateResp, Term: 4, LogIndex: 14}, nil},
		{"member", pb.Message{Type: pb.Replicate, Term: 6, Entries: []pb.Entry{change(1, 1, pb.ConfigChange{Type: pb.AddNode, ReplicaID: 401, Address: "4"})}}, nil},
		{"member elsewhere", pb.Message{Type: pb.Replicate, Term: 6, Entries: []pb.Entry{change(1, 1, pb.ConfigChange{Type: pb.AddNode, ReplicaID: 401, Address: "3"})}}, ErrDamaged},
	} {
		if c.m.From == 0 {
			c.m.From = 201
		}
		err := p.Check(2, &c.m)
		if !errors.Is(err, c.want) || (c.want == nil) != (err == nil) {
			t.Errorf("%s: %v", c.name, err)
		} else if err != nil {
			t.Logf("%s: %v", c.name, err)
		}
	}
	p.Last = 20
	if err := p.Check(2, &pb.Message{Type: pb.ReplicateResp, From: 201, Term: 5, LogIndex: 20}); err != nil {
		t.Errorf("what is durable may be confirmed: %v", err)
	}
	p.Sent = nil
	if err := p.Check(2, &pb.Message{Type: pb.ReplicateResp, From: 201, Term: 5, LogIndex: 99}); err != nil {
		t.Error(err)
	}
	good := pb.Chunk{From: 201, Term: 5, Membership: pb.Membership{Addresses: map[uint64]string{201: "2"}, NonVotings: map[uint64]string{101: "1"}}}
	if err := p.CheckChunk(2, &good); err != nil {
		t.Error(err)
	}
	for name, f := range map[string]func(c *pb.Chunk){
		"sender":   func(c *pb.Chunk) { c.From = 301 },
		"term":     func(c *pb.Chunk) { c.Term = 6 },
		"voter":    func(c *pb.Chunk) { c.Membership.Addresses = map[uint64]string{201: "3"} },
		"learners": func(c *pb.Chunk) { c.Membership.NonVotings = map[uint64]string{301: "2"} },
	} {
		c := good
		f(&c)
		if err := p.CheckChunk(2, &c); !errors.Is(err, ErrDamaged) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if err := p.Check(2, &pb.Message{Type: pb.Heartbeat, Term: 6, From: 201, Commit: 99}); !strings.Contains(err.Error(), "node 2 says that entry 99 is committed and stored here, but the last entry here is 20") {
		t.Error(err)
	}
}

// TestSources: a node that sends in the name of ever more replicas is forgotten, and
// nobody else.
func TestSources(t *testing.T) {
	var s sources
	ms := make([]pb.Message, 1)
	for i := range uint64(sourcesMax) {
		ms[0] = pb.Message{ShardID: i % 9, From: i}
		if s.address(1, ms) != "1" {
			t.Fatal("replica", i)
		}
	}
	for range 2 {
		if a := s.address(1, []pb.Message{{ShardID: 1, From: sourcesMax}}); a != "" {
			t.Errorf("one more: %q", a)
		}
	}
	if a, b := s.address(1, ms), s.address(2, []pb.Message{{ShardID: 1, From: sourcesMax}}); a != "1" || b != "2" {
		t.Errorf("%q, %q", a, b)
	}
	if n := testing.AllocsPerRun(100, func() { s.address(1, ms) }); n > 1 {
		t.Errorf("%v allocations for a replica that is known", n)
	}
}
