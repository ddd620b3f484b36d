package peer

import (
	"sync/atomic"
	"testing"

	"go.etcd.io/raft/v3/raftpb"
)

// The whole way over loopback: encode, one write, read, check, decode. A round
// waits for its messages to arrive, so that the queue stays short.
func benchmarkSend(b *testing.B, version uint16, batch []*raftpb.Message) {
	var arrived atomic.Int64
	wake := make(chan struct{}, 1)
	to := startNode(b, 2, func(_ *Config, h *testHandler) {
		h.onMessages = func(_ uint64, batch []Message) {
			arrived.Add(int64(len(batch)))
			notify(wake)
		}
	})
	from := startNode(b, 1, func(c *Config, _ *testHandler) { c.VersionMax = version })
	join(b, from, to)
	const window = 8 // rounds under way
	sent := int64(0)
	b.ReportAllocs()
	before := from.peerStatus(b, 2).BytesOut
	for b.Loop() {
		for i, m := range batch {
			from.Send(2, uint32(i), m)
		}
		from.Transmit()
		sent += int64(len(batch))
		for sent-arrived.Load() > window*int64(len(batch)) {
			<-wake
		}
	}
	for arrived.Load() < sent {
		<-wake
	}
	b.ReportMetric(float64(sent)/b.Elapsed().Seconds(), "messages/s")
	b.ReportMetric(float64(from.peerStatus(b, 2).BytesOut-before)/float64(sent), "B/message")
}

func BenchmarkSend(b *testing.B) {
	var beats []*raftpb.Message
	for i := range uint64(64) {
		beats = append(beats, heartbeat(i))
	}
	data := []*raftpb.Message{appendEntries(1, make([]byte, 32<<10))}
	var small []*raftpb.Message
	for i := range uint64(64) {
		small = append(small, appendEntries(i, make([]byte, 128)))
	}
	for _, version := range []uint16{1, 2} {
		name := map[uint16]string{1: "/version=1", 2: "/version=2"}[version]
		b.Run("heartbeats=64"+name, func(b *testing.B) { benchmarkSend(b, version, beats) })
		b.Run("append=32KiB"+name, func(b *testing.B) { benchmarkSend(b, version, data) })
		b.Run("append=64x128B"+name, func(b *testing.B) { benchmarkSend(b, version, small) })
	}
}

// The decoder against the generated one, which copies entry by entry.
func BenchmarkDecode(b *testing.B) {
	var batch []Message
	for i := range uint64(64) {
		batch = append(batch, Message{Shard: uint32(i), Raft: *appendEntries(i, make([]byte, 128), make([]byte, 128))})
	}
	p := encodeMessages(b, 1, batch)
	b.Run("own", func(b *testing.B) {
		b.ReportAllocs()
		b.SetBytes(int64(len(p)))
		var d decoder
		for b.Loop() {
			if _, err := d.decode(1, p); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("generated", func(b *testing.B) {
		b.ReportAllocs()
		b.SetBytes(int64(len(p)))
		for b.Loop() {
			for rest := p; len(rest) > 0; {
				n := le.Uint32(rest[4:])
				var m raftpb.Message
				if err := m.Unmarshal(rest[8 : 8+n]); err != nil {
					b.Fatal(err)
				}
				rest = rest[8+n:]
			}
		}
	})
}
