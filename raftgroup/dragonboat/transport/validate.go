package transport

import (
	"encoding/binary"
	"errors"
	"fmt"
	"sync"

	pb "github.com/lni/dragonboat/v4/raftpb"
)

// # What is believed of a message
//
// dragonboat takes its peers' word for everything: it panics where a message does not fit
// its log, an entry cannot be decoded, or a chunk is not the first of a snapshot that it
// knows how to read; and its panics end the process, since they come from its own
// goroutines. A peer may be damaged, of another program or of ill will. So no message comes
// to dragonboat before it has passed here: what no correct node can have sent is an error,
// which is to cost its sender the connection, and nobody else anything.
//
// checkMessage and checkChunk look at the form alone; Receive and ReceiveChunk call them.
// Place compares it with where the replica is, which the engine knows.
//
// What passes is a message that a correct node could have sent. A member that lies within
// these bounds is not found out: Raft tolerates crashes, not lies.
//
// dragonboat panics, too, where a replica is elected whose log has two changes of the
// membership that are not committed. No leader makes a second one before. One that lies is
// found out within its term (Changes), and its connection ends. It may claim another term
// with each message, though, faster than they are stored. So what counts is where a replica
// is elected: it gets no votes while its log is such (Place.Ignores). Another replica leads
// then, and commits or overwrites the changes. What is left is a group of one voter, which
// needs no vote: a node that sends it entries may end it.

// Bounds of what a message may claim. No log gets near them: a position of 2^62 takes a
// hundred thousand years at a million entries a second, and an election takes a good part
// of a second.
const (
	positionMax = 1 << 62
	termStepMax = 1 << 32 // how far a term may be ahead of this replica's

	membersMax = 1024
)

// ErrBehind says that a leader believes a replica to hold more than it does: one of the two
// has lost something, or lies. A leader that does not drop it, on one connection after the
// other, is right: this node's disk has lost what the node had confirmed.
var ErrBehind = errors.New("the local log ends before the entries that the leader has recorded as confirmed")

func damaged(format string, args ...any) error {
	return fmt.Errorf("%w: "+format, append([]any{ErrDamaged}, args...)...)
}

// shape is what a type of message may have.
type shape uint8

const (
	inTerm   shape = 1 << iota // a term; those without one are requests to whoever leads
	position                   // the position of an entry, with its term
	entries                    // entries
	rejects                    // a rejection
	hint                       // a hint that is not zero
)

// shapes are those of the messages between nodes; see remote.
var shapes = [len(remote)]shape{
	pb.NoOP: inTerm, pb.Propose: entries,
	pb.Replicate: inTerm | position | entries, pb.ReplicateResp: inTerm | rejects, pb.Heartbeat: inTerm, pb.HeartbeatResp: inTerm,
	pb.RequestVote: inTerm | position, pb.RequestVoteResp: inTerm | rejects,
	pb.RequestPreVote: inTerm | position, pb.RequestPreVoteResp: inTerm | rejects,
	pb.ReadIndex: hint, pb.ReadIndexResp: inTerm | hint, pb.LeaderTransfer: hint,
	pb.TimeoutNow: inTerm, pb.RateLimit: inTerm,
}

func (s shape) has(part shape) bool { return s&part != 0 }

// checkMessage returns why no correct node sends m, whatever the state of its replica; nil
// where one may.
func checkMessage(m *pb.Message) error {
	s := shapes[m.Type]
	switch {
	case m.From == m.To:
		return damaged("%v from replica %x to itself", m.Type, m.From)
	case (m.Term > 0) != s.has(inTerm):
		return damaged("%v of term %d", m.Type, m.Term)
	case max(m.Term, m.LogTerm, m.LogIndex, m.Commit) > positionMax || m.Type == pb.ReplicateResp && m.Hint > positionMax:
		return damaged("%v of term %d, log term %d, index %d, commit %d, hint %d", m.Type, m.Term, m.LogTerm, m.LogIndex, m.Commit, m.Hint)
	case m.LogTerm > 0 && !s.has(position) || m.LogTerm > m.Term:
		return damaged("%v of term %d after an entry of term %d", m.Type, m.Term, m.LogTerm)
	case m.Reject && !s.has(rejects):
		return damaged("%v with a rejection", m.Type)
	case m.Hint == 0 && s.has(hint):
		return damaged("%v without its context", m.Type)
	case len(m.Entries) > 0 && !s.has(entries):
		return damaged("%v with %d entries", m.Type, len(m.Entries))
	}
	switch m.Type {
	case pb.Replicate:
		return checkReplicate(m)
	case pb.Propose:
		return checkProposal(m)
	}
	return nil
}

// changesMax is how many changes of the membership are under way at a time.
const changesMax = 1

// checkReplicate checks that the entries of m follow on one another and on the one that m
// names as the one before them.
func checkReplicate(m *pb.Message) error {
	if (m.LogIndex == 0) != (m.LogTerm == 0) {
		return damaged("entries after entry %d of term %d", m.LogIndex, m.LogTerm)
	}
	term := max(m.LogTerm, 1)
	changes := 0
	for i := range m.Entries {
		e := &m.Entries[i]
		if want := m.LogIndex + 1 + uint64(i); e.Index != want || e.Index > positionMax {
			return damaged("entry %d where entry %d was expected", e.Index, want)
		}
		if e.Term < term || e.Term > m.Term {
			return damaged("entry %d of term %d, after term %d, in term %d", e.Index, e.Term, term, m.Term)
		}
		term = e.Term
		if isLeadersFirst(e) {
			continue
		}
		if err := checkEntry(e); err != nil {
			return err
		}
		if e.Type == pb.ConfigChangeEntry && e.Index > m.Commit {
			changes++
		}
	}
	if changes > changesMax {
		return damaged("%d changes of the membership, of which none is committed", changes)
	}
	return nil
}

// checkProposal checks the entries of a proposal that a follower passes on.
func checkProposal(m *pb.Message) error {
	if len(m.Entries) == 0 {
		return damaged("a proposal of nothing")
	}
	for i := range m.Entries {
		if err := checkEntry(&m.Entries[i]); err != nil {
			return err
		}
	}
	return nil
}

// isLeadersFirst says that e is the entry with which a term begins, or what takes the
// place of a change of the membership that comes too early.
func isLeadersFirst(e *pb.Entry) bool {
	return e.Type == pb.ApplicationEntry && len(e.Cmd) == 0 && e.Key|e.ClientID|e.SeriesID|e.RespondedTo == 0
}

// Of an encoded entry, whose command begins with it: no compression, no session.
const plainEntry = 0

// checkEntry checks that an entry is one that a node proposes: a command, of no session,
// or a change of the membership. dragonboat's sessions are not for state machines on disk.
func checkEntry(e *pb.Entry) error {
	if e.SeriesID|e.RespondedTo != 0 {
		return damaged("entry %d of a session", e.Index)
	}
	switch e.Type {
	case pb.EncodedEntry:
		if len(e.Cmd) < 2 || e.Cmd[0] != plainEntry || e.ClientID == 0 || e.Key == 0 {
			return damaged("entry %d of client %d, key %d, with %d bytes", e.Index, e.ClientID, e.Key, len(e.Cmd))
		}
		return nil
	case pb.ConfigChangeEntry:
		_, err := decodeConfigChange(e)
		return err
	}
	return damaged("entry %d of type %v", e.Index, e.Type)
}

// Payload returns the command of an entry that has passed: a view of it; nil if it has
// none.
func Payload(e *pb.Entry) []byte {
	if e.Type != pb.EncodedEntry {
		return nil
	}
	return e.Cmd[1:]
}

// decodeConfigChange returns the change of the membership that an entry holds.
func decodeConfigChange(e *pb.Entry) (c pb.ConfigChange, err error) {
	if err := c.Unmarshal(e.Cmd); err != nil {
		return c, damaged("entry %d: %w", e.Index, err)
	}
	switch c.Type {
	case pb.AddNode, pb.AddNonVoting:
		_, err = parseTarget(c.Address)
	case pb.RemoveNode:
	default: // no witnesses
		err = fmt.Errorf("type %d", c.Type)
	}
	if err != nil || c.ReplicaID == 0 || e.ClientID != 0 {
		return c, damaged("entry %d has a change of the membership about replica %x: %v", e.Index, c.ReplicaID, err)
	}
	return c, nil
}

// What a stream of a snapshot begins with: a header, then the record that there are no
// sessions, then what the state machine has written, and checksums.
const (
	headerBytes   = 1024
	headerVersion = 2
	sessionsBytes = 16
	sumBytes      = 4

	sessionsMax = 4096
)

// checkChunk returns why no correct node sends c, whatever the state of its replica.
func checkChunk(c *pb.Chunk) error {
	last := uint64(0)
	if c.ChunkCount == pb.LastChunkCount {
		last = pb.LastChunkCount
	}
	switch {
	case c.From == c.ReplicaID:
		return damaged("a snapshot of replica %x for itself", c.From)
	case c.Index == 0 || c.Index > positionMax || c.Term == 0 || c.Term > positionMax || c.OnDiskIndex > c.Index:
		return damaged("a snapshot of entry %d, term %d, with a state of entry %d", c.Index, c.Term, c.OnDiskIndex)
	case c.ChunkCount != last || c.FileChunkCount != last || c.FileChunkId != c.ChunkId || c.ChunkId > positionMax:
		return damaged("chunk %d of %d, and %d of %d in its file", c.ChunkId, c.ChunkCount, c.FileChunkId, c.FileChunkCount)
	case c.ChunkSize != uint64(len(c.Data)):
		return damaged("a chunk of %d bytes that has %d", c.ChunkSize, len(c.Data))
	case c.HasFileInfo || c.Witness || c.FileSize != 0 || c.Filepath != fmt.Sprintf("snapshot-%016X.gbsnap", c.Index):
		return damaged("a chunk of file %q, %d bytes", c.Filepath, c.FileSize)
	case c.ChunkId == 0 && last != 0:
		return damaged("a snapshot of one chunk")
	}
	if err := checkMembership(&c.Membership); err != nil {
		return err
	}
	if c.ChunkId == 0 {
		return checkBeginning(c.Data)
	}
	return nil
}

func checkMembership(m *pb.Membership) error {
	if m.ConfigChangeId == 0 || len(m.Addresses) == 0 || len(m.Witnesses) > 0 || len(m.Addresses)+len(m.NonVotings) > membersMax {
		return damaged("a membership of entry %d, %d voters, %d learners, %d witnesses", m.ConfigChangeId, len(m.Addresses), len(m.NonVotings), len(m.Witnesses))
	}
	for _, members := range []map[uint64]string{m.Addresses, m.NonVotings} {
		for id, address := range members {
			_, learns := m.NonVotings[id]
			_, votes := m.Addresses[id]
			if _, err := parseTarget(address); err != nil || id == 0 || m.Removed[id] || learns && votes {
				return damaged("a membership with replica %x at %q", id, address)
			}
		}
	}
	return nil
}

// checkBeginning checks the first chunk's data as far as dragonboat reads them itself.
func checkBeginning(p []byte) error {
	if len(p) <= headerBytes+sessionsBytes+sumBytes {
		return damaged("a snapshot that begins with %d bytes", len(p))
	}
	size := binary.LittleEndian.Uint64(p)
	if size > headerBytes-8-sumBytes {
		return damaged("a snapshot's header of %d bytes", size)
	}
	var h pb.SnapshotHeader
	if err := h.Unmarshal(p[8 : 8+size]); err != nil {
		return damaged("a snapshot's header: %w", err)
	}
	if h.Version != headerVersion || h.ChecksumType != pb.CRC32IEEE || h.CompressionType != pb.NoCompression {
		return damaged("a snapshot of version %d, checksum %d, compression %d", h.Version, h.ChecksumType, h.CompressionType)
	}
	sessions := p[headerBytes:]
	if binary.LittleEndian.Uint64(sessions) != sessionsMax || binary.LittleEndian.Uint64(sessions[8:]) != 0 {
		return damaged("a snapshot with sessions")
	}
	return nil
}

// Place is where a replica here is, as far as it matters to what it may be sent. What is
// durable of it is enough: of that a correct peer speaks, but for what this replica, as
// the leader of a term, sends before.
type Place struct {
	NodeOf func(replica uint64) uint64 // says whose a replica is

	Term uint64 // of the replica, durable
	Last uint64 // index of the last durable entry, or of a snapshot behind it

	Votes bool // the replica is a voter, which it remains until it is removed

	// Leader is the replica that leads LeaderTerm, 0 where none is known.
	Leader, LeaderTerm uint64

	Sent    *Sent    // what this replica has sent
	Changes *Changes // what it was sent

	// Pending says how many changes of the membership the log has that are not committed.
	Pending func() int
}

// Check returns why no correct node, and why not the node from, sends m to a replica that
// is there. The error wraps ErrDamaged or ErrBehind.
func (p *Place) Check(from uint64, m *pb.Message) error {
	if p.NodeOf(m.From) != from {
		return damaged("%v from replica %x by node %d", m.Type, m.From, from)
	}
	if m.Term > p.Term+termStepMax {
		return damaged("%v of term %d, %d elections ahead", m.Type, m.Term, m.Term-p.Term)
	}
	switch m.Type {
	case pb.Replicate, pb.Heartbeat, pb.TimeoutNow, pb.ReadIndexResp:
		// Only a term's leader sends them, and a term has one.
		if m.Term == p.LeaderTerm && p.Leader != 0 && p.Leader != m.From {
			return damaged("%v of replica %x as the leader of term %d, which replica %x leads", m.Type, m.From, m.Term, p.Leader)
		}
	}
	if m.Type == pb.Heartbeat && m.Commit > p.Last {
		// A leader sends no replica a higher commit index than that has confirmed.
		return fmt.Errorf("%w: node %d says that entry %d is committed and stored here, but the last entry here is %d", ErrBehind, from, m.Commit, p.Last)
	}
	if m.Type == pb.ReplicateResp && !m.Reject {
		if sent, led := p.Sent.in(m.Term); led && m.LogIndex > max(sent, p.Last) {
			return damaged("node %d confirms entry %d, but the log ends at %d", from, m.LogIndex, max(sent, p.Last))
		}
	}
	if m.Type == pb.RequestVoteResp && !m.Reject && m.Term > p.Term {
		return damaged("a vote in term %d, in which this replica has asked for none: it is in term %d", m.Term, p.Term)
	}
	if m.Type == pb.Replicate {
		if err := p.Changes.check(m); err != nil {
			return err
		}
	}
	for i := range m.Entries {
		if e := &m.Entries[i]; e.Type == pb.ConfigChangeEntry {
			c, err := decodeConfigChange(e)
			if err != nil {
				return err
			}
			if c.Type != pb.RemoveNode && c.Address != Target(p.NodeOf(c.ReplicaID)) {
				return damaged("entry %d has replica %x at %q", e.Index, c.ReplicaID, c.Address)
			}
		}
	}
	return nil
}

// Ignores reports whether dragonboat must not get a message that has passed Check: a vote
// for a replica whose log has more changes of the membership under way than a leader's.
func (p *Place) Ignores(m *pb.Message) bool {
	granted := (m.Type == pb.RequestVoteResp || m.Type == pb.RequestPreVoteResp) && !m.Reject
	open := m.Term >= p.Term && (p.Leader == 0 || p.LeaderTerm < m.Term)
	return granted && open && p.Pending != nil && p.Pending() > changesMax
}

// CheckChunk is Check for a chunk of a snapshot. A replica has confirmed its leader's term
// before it is sent one.
func (p *Place) CheckChunk(from uint64, c *pb.Chunk) error {
	if p.NodeOf(c.From) != from || c.Term > p.Term {
		return damaged("a snapshot of term %d, by node %d of replica %x, in term %d", c.Term, from, c.From, p.Term)
	}
	if _, learns := c.Membership.NonVotings[c.ReplicaID]; learns && p.Votes {
		return damaged("a membership in which replica %x, a voter, is a learner", c.ReplicaID)
	}
	for _, members := range []map[uint64]string{c.Membership.Addresses, c.Membership.NonVotings} {
		for id, address := range members {
			if address != Target(p.NodeOf(id)) {
				return damaged("a membership with replica %x at %q", id, address)
			}
		}
	}
	return nil
}

// Sent is how far a replica has sent its log in the last term that it has led. dragonboat
// sends entries before they are durable, so that a follower may confirm what is not. Its
// methods may be called from any goroutine.
type Sent struct {
	mu          sync.Mutex
	term, index uint64
}

// Note takes in a message that the replica sends.
func (s *Sent) Note(m *pb.Message) {
	if m.Type != pb.Replicate {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	switch index := m.LogIndex + uint64(len(m.Entries)); {
	case m.Term > s.term:
		s.term, s.index = m.Term, index
	case m.Term == s.term:
		s.index = max(s.index, index)
	}
}

// in returns how far the log was sent in a term, if it is that one.
func (s *Sent) in(term uint64) (index uint64, led bool) {
	if s == nil {
		return 0, false
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.index, s.term == term && term > 0
}
