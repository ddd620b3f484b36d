package transport

import (
	"context"
	"encoding/hex"
	"errors"
	"math"
	"reflect"
	"runtime"
	"slices"
	"testing"

	"github.com/lni/dragonboat/v4/config"
	"github.com/lni/dragonboat/v4/raftio"
	pb "github.com/lni/dragonboat/v4/raftpb"
)

// everything is a message with all that can be in one.
func everything() pb.Message {
	return pb.Message{
		Type: pb.Replicate, To: 300, From: 2, ShardID: 3, Term: 4, LogTerm: 5, LogIndex: 6, Commit: 7, Reject: true, Hint: math.MaxUint64, HintHigh: 9,
		Entries: []pb.Entry{
			{Index: 7, Term: 4, Type: pb.EncodedEntry, Key: 1, ClientID: math.MaxUint64, SeriesID: 2, RespondedTo: 3, Cmd: []byte("cmd")},
			{Index: 8, Term: 4},
		},
	}
}

// TestLayout fixes the bytes on the wire.
func TestLayout(t *testing.T) {
	m := everything()
	want := "0c01" + "03" + "ac02" + "02" + "04" + "05" + "06" + "07" + "ffffffffffffffffff01" + "09" + "02" +
		"0704" + "02" + "01" + "ffffffffffffffffff01" + "0203" + "03636d64" +
		"0804" + "00" + "00000000" + "00"
	if got := hex.EncodeToString(appendMessage(nil, &m)); got != want {
		t.Errorf("%s, want %s", got, want)
	}
}

func TestRoundTrip(t *testing.T) {
	for _, ms := range [][]pb.Message{
		{everything()},
		{{Type: pb.Heartbeat, To: 1, From: 2}, everything(), {Type: pb.TimeoutNow, To: math.MaxUint64, From: math.MaxUint64, ShardID: math.MaxUint64}},
	} {
		frame, n, err := encodeMessages(ms)
		if err != nil || n != len(ms) {
			t.Fatal(n, err)
		}
		if got, err := decodeMessages(frame); err != nil || !reflect.DeepEqual(got, ms) {
			t.Errorf("%+v, %v, want %+v", got, err, ms)
		}
	}
}

// TestFramesAreBounded: the sender keeps to what the receiver wants.
func TestFramesAreBounded(t *testing.T) {
	small := pb.Message{Type: pb.Heartbeat, To: 1, From: 2}
	large := pb.Message{Type: pb.Replicate, To: 1, From: 2, Entries: []pb.Entry{{Cmd: make([]byte, frameBytesTarget)}}}
	full := pb.Message{Type: pb.Replicate, To: 1, From: 2, Entries: make([]pb.Entry, EntriesPerFrameMax)}
	for name, c := range map[string]struct {
		ms     []pb.Message
		frames []int // messages of each
	}{
		"small":                 {slices.Repeat([]pb.Message{small}, 5), []int{5}},
		"large":                 {[]pb.Message{small, large, small, large, large}, []int{1, 1, 1, 1, 1}},
		"as many entries as go": {[]pb.Message{full, small}, []int{1, 1}},
	} {
		var frames []int
		for ms := c.ms; len(ms) > 0; {
			frame, n, err := encodeMessages(ms)
			if err != nil {
				t.Fatal(name, err)
			}
			if got, err := decodeMessages(frame); err != nil || len(got) != n {
				t.Fatalf("%s: %d messages, %v, want %d", name, len(got), err, n)
			}
			frames = append(frames, n)
			ms = ms[n:]
		}
		if !slices.Equal(frames, c.frames) {
			t.Errorf("%s: frames of %v messages, want %v", name, frames, c.frames)
		}
	}
	one := everything()
	if _, err := decodeMessages(appendMessage(appendMessage(nil, &full), &one)); !errors.Is(err, ErrDamaged) {
		t.Errorf("entries of two messages: %v", err)
	}
	full.Entries = append(full.Entries, pb.Entry{})
	if _, _, err := encodeMessages([]pb.Message{full}); !errors.Is(err, ErrTooLarge) {
		t.Errorf("too many entries: %v", err)
	}
	many := slices.Repeat(appendMessage(nil, &small), MessagesPerFrameMax)
	if ms, err := decodeMessages(many); err != nil || len(ms) != MessagesPerFrameMax {
		t.Errorf("%d messages, %v", len(ms), err)
	}
	if _, err := decodeMessages(appendMessage(many, &small)); !errors.Is(err, ErrDamaged) {
		t.Errorf("one message more: %v", err)
	}
}

// TestDamaged has frames that no correct node sends.
func TestDamaged(t *testing.T) {
	change := func(f func(m *pb.Message)) []byte {
		m := everything()
		f(&m)
		return appendMessage(nil, &m)
	}
	frames := map[string][]byte{
		"cut":            appendMessage(nil, &pb.Message{Type: pb.Ping, To: 1, From: 2})[:11],
		"flags":          append([]byte{byte(pb.Ping), 2}, change(func(*pb.Message) {})[2:]...),
		"to nobody":      change(func(m *pb.Message) { m.To = 0 }),
		"from nobody":    change(func(m *pb.Message) { m.From = 0 }),
		"entry type":     change(func(m *pb.Message) { m.Entries[0].Type = 4 }),
		"unknown":        change(func(m *pb.Message) { m.Type = 29 }),
		"lying count":    {byte(pb.Ping), 0, 1, 1, 1, 1, 1, 1, 1, 1, 1, 255, 255, 255, 255, 15},
		"second one cut": append(change(func(*pb.Message) {}), byte(pb.Ping)),
	}
	for _, local := range []pb.MessageType{
		pb.LocalTick, pb.Election, pb.LeaderHeartbeat, pb.ConfigChangeEvent, pb.SnapshotStatus, pb.Unreachable,
		pb.CheckQuorum, pb.BatchedReadIndex, pb.InstallSnapshot, pb.LogQuery,
	} {
		frames[local.String()] = change(func(m *pb.Message) { m.Type = local })
	}
	for name, p := range frames {
		if ms, err := decodeMessages(p); !errors.Is(err, ErrDamaged) {
			t.Errorf("%s: %+v, %v", name, ms, err)
		}
	}
	chunk := pb.Chunk{ShardID: 1, ReplicaID: 2, From: 3}
	for name, f := range map[string]func(c *pb.Chunk){
		"poison":      func(c *pb.Chunk) { c.ChunkCount = pb.PoisonChunkCount },
		"to nobody":   func(c *pb.Chunk) { c.ReplicaID = 0 },
		"from nobody": func(c *pb.Chunk) { c.From = 0 },
	} {
		c := chunk
		f(&c)
		if _, err := decodeChunk(encodeChunk(&c)); !errors.Is(err, ErrDamaged) {
			t.Errorf("chunk, %s: %v", name, err)
		}
	}
}

// FuzzMessages decodes frames of messages: what is accepted means the same when encoded
// again.
func FuzzMessages(f *testing.F) {
	m := everything()
	f.Add(appendMessage(nil, &m))
	f.Add(appendMessage(appendMessage(nil, &pb.Message{Type: pb.Heartbeat, To: 1, From: 2}), &m))
	f.Add([]byte{byte(pb.Ping), 0, 1, 1, 1, 1, 1, 1, 1, 1, 1, 255, 255, 255, 255, 15})
	f.Fuzz(func(t *testing.T, p []byte) {
		ms, err := decodeMessages(p)
		if err != nil {
			return
		}
		var again []byte
		for i := range ms {
			from := len(again)
			if again = appendMessage(again, &ms[i]); len(again)-from > messageBytesMax(&ms[i]) {
				t.Fatalf("message %d has %d bytes, at most %d were foretold", i, len(again)-from, messageBytesMax(&ms[i]))
			}
		}
		ms2, err := decodeMessages(again)
		if err != nil || !reflect.DeepEqual(ms, ms2) {
			t.Fatalf("%+v, encoded again %+v, %v", ms, ms2, err)
		}
	})
}

// FuzzChunk decodes chunks.
func FuzzChunk(f *testing.F) {
	f.Add(encodeChunk(&pb.Chunk{ShardID: 1, ReplicaID: 2, From: 3}))
	f.Add(encodeChunk(&pb.Chunk{
		ShardID: 1, ReplicaID: 2, From: 3, ChunkId: 4, ChunkSize: 4, ChunkCount: pb.LastChunkCount, Data: []byte("data"), Index: 5, Term: 6,
		Membership: pb.Membership{Addresses: map[uint64]string{1: "1"}, Removed: map[uint64]bool{2: true}, NonVotings: map[uint64]string{3: "3"}, Witnesses: map[uint64]string{4: "4"}},
		Filepath:   "f", FileSize: 7, HasFileInfo: true, FileInfo: pb.SnapshotFile{Filepath: "g", Metadata: []byte("m")}, Witness: true,
	}))
	f.Fuzz(func(t *testing.T, p []byte) {
		c, err := decodeChunk(p)
		if err != nil {
			return
		}
		if again, err := decodeChunk(encodeChunk(&c)); err != nil || !reflect.DeepEqual(len(c.Data), len(again.Data)) || c.Index != again.Index {
			t.Fatalf("%+v, encoded again %+v, %v", c, again, err)
		}
	})
}

// pipe is a link to another transport, in memory.
type pipe struct {
	to     *Transport
	closed int
}

func anyChunk(*pb.Chunk) error { return nil }

var errDown = errors.New("down")

func (p *pipe) Connected(node uint64) error {
	if node != 2 {
		return errDown
	}
	return nil
}

func (p *pipe) Send(_ uint64, frame []byte) error { return p.to.Receive(1, frame) }

func (p *pipe) Stream(_ context.Context, node uint64) (Stream, error) {
	return pipeStream{p}, p.Connected(node)
}

type pipeStream struct{ *pipe }

func (s pipeStream) Send(frame []byte) error {
	if wanted, err := s.to.ReceiveChunk(frame, anyChunk); !wanted {
		return errors.Join(err, errDown)
	}
	return nil
}

func (s pipeStream) Close() { s.closed++ }

func TestTransport(t *testing.T) {
	var got []pb.MessageBatch
	var chunks []pb.Chunk
	c := config.NodeHostConfig{DeploymentID: 77}
	receiver := New(nil, nil)
	to := receiver.Create(c, func(b pb.MessageBatch) { got = append(got, b) }, func(c pb.Chunk) bool {
		chunks = append(chunks, c)
		return c.ChunkId < 1
	})
	link := &pipe{to: receiver}
	from := New(link, nil).Create(c, nil, nil)
	conn, err := from.GetConnection(t.Context(), Target(2))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	batch := pb.MessageBatch{Requests: []pb.Message{replicate()}}
	send := func() {
		t.Helper()
		if err := conn.SendMessageBatch(batch); err != nil {
			t.Fatal(err)
		}
	}
	send()
	if len(got) > 0 {
		t.Error("a handler was called before Start")
	}
	if err := to.Start(); err != nil {
		t.Fatal(err)
	}
	send()
	want := pb.MessageBatch{Requests: batch.Requests, DeploymentId: c.GetDeploymentID(), SourceAddress: "1", BinVer: raftio.TransportBinVersion}
	if len(got) != 1 || !reflect.DeepEqual(got[0], want) {
		t.Errorf("%+v, want %+v", got, want)
	}
	stream, err := from.GetSnapshotConnection(t.Context(), Target(2))
	if err != nil {
		t.Fatal(err)
	}
	for id := range uint64(2) {
		c := chunk(id)
		err := stream.SendChunk(c)
		if (err == nil) != (id == 0) {
			t.Errorf("chunk %d: %v", id, err)
		}
	}
	stream.Close()
	if len(chunks) != 2 || string(chunks[1].Data) != string(chunk(1).Data) || link.closed != 1 {
		t.Errorf("chunks %+v, closed %d times", chunks, link.closed)
	}
	if err := receiver.Receive(1, []byte{1}); !errors.Is(err, ErrDamaged) {
		t.Errorf("a damaged frame: %v", err)
	}
	if err := to.Close(); err != nil {
		t.Fatal(err)
	}
	send()
	if wanted, err := receiver.ReceiveChunk(encodeChunk(&chunks[0]), anyChunk); wanted || err != nil || len(got) != 1 || len(chunks) != 2 {
		t.Errorf("after Close: %v, %v; %d batches, %d chunks", wanted, err, len(got), len(chunks))
	}
	if _, err := from.GetConnection(t.Context(), Target(3)); !errors.Is(err, errDown) {
		t.Errorf("to a node that is down: %v", err)
	}
	for _, target := range []string{"", "0", "-1", "localhost:7401"} {
		_, err := from.GetConnection(t.Context(), target)
		_, serr := from.GetSnapshotConnection(t.Context(), target)
		if !errors.Is(err, ErrTarget) || !errors.Is(serr, ErrTarget) || receiver.Validate(target) {
			t.Errorf("target %q: %v, %v", target, err, serr)
		}
	}
	if !receiver.Validate("12") {
		t.Error("a number of a node is not valid")
	}
}

// TestConfirmations: a snapshot's confirmation reaches dragonboat once, and one of nothing
// does not; messages beside it do.
func TestConfirmations(t *testing.T) {
	got := 0
	r := New(&pipe{}, nil)
	tr := r.Create(config.NodeHostConfig{}, func(b pb.MessageBatch) {
		for i := range b.Requests {
			if b.Requests[i].Type == pb.SnapshotReceived {
				got++
			}
		}
		if n := len(b.Requests); b.Requests[n-1].Type != pb.Replicate {
			t.Errorf("%d messages, without the last one", n)
		}
	}, nil)
	must(t, tr.Start())
	confirmed, other := pb.Message{Type: pb.SnapshotReceived, To: 1, From: 2}, replicate()
	receive := func(node uint64, want int) {
		t.Helper()
		got = 0
		must(t, r.Receive(node, appendMessage(appendMessage(appendMessage(nil, &confirmed), &confirmed), &other)))
		if got != want {
			t.Errorf("%d confirmations, want %d", got, want)
		}
	}
	receive(2, 0)
	_, err := tr.GetSnapshotConnection(t.Context(), Target(2))
	must(t, err)
	if _, err := tr.GetSnapshotConnection(t.Context(), Target(3)); !errors.Is(err, errDown) {
		t.Error(err)
	}
	receive(3, 0)
	receive(2, 1)
	receive(2, 0)
}

// TestCloseWaits: no handler runs when Close has returned.
func TestCloseWaits(t *testing.T) {
	r := New(nil, nil)
	entered, leave := make(chan struct{}), make(chan struct{})
	done := false
	to := r.Create(config.NodeHostConfig{}, func(pb.MessageBatch) {
		close(entered)
		<-leave
		done = true
	}, nil)
	if err := to.Start(); err != nil {
		t.Fatal(err)
	}
	m := replicate()
	go func() { _ = r.Receive(1, appendMessage(nil, &m)) }()
	<-entered
	closed := make(chan error)
	go func() { closed <- to.Close() }()
	for r.inUse.TryRLock() { // until Close waits
		r.inUse.RUnlock()
		select {
		case err := <-closed:
			t.Fatalf("Close has returned before the handler: %v", err)
		default:
			runtime.Gosched()
		}
	}
	close(leave)
	if err := <-closed; err != nil || !done {
		t.Errorf("%v, the handler has run: %v", err, done)
	}
}
