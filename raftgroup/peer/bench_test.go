package peer

import (
	"bytes"
	"fmt"
	"os"
	"sync"
	"sync/atomic"
	"testing"

	"go.etcd.io/raft/v3/raftpb"
)

// The whole way over loopback: encode, one write, read, check, decode. A round
// waits for its messages to arrive, so that the queue stays short.
func benchmarkSend(b *testing.B, version uint16, batch []*raftpb.Message) {
	benchmarkRounds(b, version, len(batch), func(from *testNode) {
		for i, m := range batch {
			from.Send(2, uint32(i), m)
		}
		from.Transmit()
	})
}

// benchmarkRounds has a round send so many messages or frames to node 2. It counts the
// system calls of both nodes.
func benchmarkRounds(b *testing.B, version uint16, perRound int, round func(from *testNode)) {
	var arrived atomic.Int64
	wake := make(chan struct{}, 1)
	arrive := func(n int) {
		arrived.Add(int64(n))
		notify(wake)
	}
	to := startNode(b, 2, func(_ *Config, h *testHandler) {
		h.onMessages = func(_ uint64, batch []Message) { arrive(len(batch)) }
		h.frame = func(uint64, []byte) error { arrive(1); return nil }
	})
	from := startNode(b, 1, func(c *Config, _ *testHandler) { c.VersionMax = version })
	join(b, from, to)
	const window = 8 // rounds under way
	sent := int64(0)
	b.ReportAllocs()
	before := from.peerStatus(b, 2).BytesOut
	reads, writes := systemCalls()
	for b.Loop() {
		round(from)
		sent += int64(perRound)
		for sent-arrived.Load() > int64(window*perRound) {
			<-wake
		}
	}
	for arrived.Load() < sent {
		<-wake
	}
	b.ReportMetric(float64(sent)/b.Elapsed().Seconds(), "messages/s")
	b.ReportMetric(float64(from.peerStatus(b, 2).BytesOut-before)/float64(sent), "B/message")
	r, w := systemCalls()
	b.ReportMetric(float64(r-reads)/float64(b.N), "reads/op")
	b.ReportMetric(float64(w-writes)/float64(b.N), "writes/op")
}

// systemCalls returns how often this process has called read and write; 0 where that is
// not counted.
func systemCalls() (reads, writes int) {
	text, _ := os.ReadFile("/proc/self/io")
	_, text, _ = bytes.Cut(text, []byte("syscr:"))
	_, _ = fmt.Sscanf(string(text), "%d\nsyscw: %d", &reads, &writes)
	return reads, writes
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

// Frames of an engine's own: a round is one of each sender.
func BenchmarkSendFrame(b *testing.B) {
	for _, size := range []int{128, 10 << 10, 32 << 10, 256 << 10} {
		frame := make([]byte, size)
		b.Run(fmt.Sprintf("frame=%dB/senders=1", size), func(b *testing.B) {
			benchmarkRounds(b, versionNewest, 1, func(from *testNode) {
				if err := from.SendFrame(2, frame); err != nil {
					b.Error(err)
				}
			})
		})
		b.Run(fmt.Sprintf("frame=%dB/senders=4", size), func(b *testing.B) {
			const senders = 4
			var begin [senders]chan *testNode
			var sent sync.WaitGroup
			for i := range begin {
				begin[i] = make(chan *testNode)
				go func() {
					for from := range begin[i] {
						if err := from.SendFrame(2, frame); err != nil {
							b.Error(err)
						}
						sent.Done()
					}
				}()
				defer close(begin[i])
			}
			benchmarkRounds(b, versionNewest, senders, func(from *testNode) {
				sent.Add(senders)
				for _, c := range begin {
					c <- from
				}
				sent.Wait()
			})
		})
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
