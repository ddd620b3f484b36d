package server

import (
	"context"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/proa-kv/proa/bufpool"
	"github.com/proa-kv/proa/command"
	"github.com/proa-kv/proa/protocol"
	"github.com/proa-kv/proa/raftgroup"
)

// slowDisk is a backend whose disk stalls: commits and reads wait for gate.
type slowDisk struct {
	single
	stalled atomic.Bool
	gate    chan struct{}
	waiting atomic.Int32
}

func (d *slowDisk) wait() {
	if d.stalled.Load() {
		d.waiting.Add(1)
		<-d.gate
		d.waiting.Add(-1)
	}
}

// slowWrite is a write whose Sync waits for the gate.
type slowWrite struct {
	command.Write
	disk *slowDisk
}

func (w slowWrite) Sync() {
	w.disk.wait()
	w.Write.Sync()
}

func (d *slowDisk) Prepare() command.Write {
	if w := d.Node.Prepare(); w != nil {
		return slowWrite{w, d}
	}
	return nil
}

func (d *slowDisk) ReadCached(*bufpool.Buffer, int, []byte, uint64, int) (command.Row, command.ReadState) {
	return command.Row{}, command.ReadMiss
}

func (d *slowDisk) ReadLocalCached(*bufpool.Buffer, int, []byte, uint64, int) (command.Row, command.ReadState) {
	return command.Row{}, command.ReadMiss
}

func (d *slowDisk) Read(dst *bufpool.Buffer, shard int, key []byte, now uint64, valueMax int) (command.Row, command.ReadState) {
	d.wait()
	return d.Node.Read(dst, shard, key, now, valueMax)
}

// TestPollingDoesNotWaitForTheDisk stalls the disk in the middle of a commit
// and of reads, more of them than there are threads: every other connection
// must still be polled (M3), and everything be answered when the disk goes on.
func TestPollingDoesNotWaitForTheDisk(t *testing.T) {
	transports(t, func(t *testing.T, cfg Config) {
		n, err := raftgroup.Open(raftgroup.Options{Dir: t.TempDir(), RowCacheBytes: 1 << 20})
		if err != nil {
			t.Fatal(err)
		}
		d := &slowDisk{single: single{n}, gate: make(chan struct{})}
		cfg.Threads = 4
		s, err := newOver(t, cfg, d)
		if err != nil {
			t.Fatal(err)
		}
		n.Start(s.Drive)
		addr, err := listenOver(s, s.Listen)
		if err != nil {
			t.Fatal(err)
		}
		go func() { _ = s.Serve() }()
		t.Cleanup(func() {
			_ = s.Close()
			if err := n.Close(context.Background()); err != nil {
				t.Error(err)
			}
		})

		release := sync.OnceFunc(func() {
			d.stalled.Store(false)
			close(d.gate)
		})
		t.Cleanup(release) // so that a test that failed ends

		writer, other := dial(t, addr), dial(t, addr)
		var readers []*dialer
		for range 8 {
			readers = append(readers, dial(t, addr))
		}
		ping := func(when string) {
			t.Helper()
			if f := other.call(protocol.OpPing, nil); protocol.Status(f.Code) != protocol.StatusOK {
				t.Fatalf("%s: %v", when, protocol.Status(f.Code))
			}
		}
		writer.put("k", "v")
		// Long enough after the last read that only writes have come lately.
		eventually(t, "nothing but writes", func() bool {
			writer.put("k", "v")
			return time.Now().UnixMilli()%(2*writesOnlyForTest) == 0
		})
		d.stalled.Store(true)
		put := protocol.Put{Key: []byte("k"), Value: []byte("late")}
		writer.send(protocol.OpPut, put.AppendTo(nil))
		eventually(t, "the commit waits", func() bool { return d.waiting.Load() > 0 })
		ping("during a commit")
		for _, r := range readers {
			r.send(protocol.OpGet, []byte("k"))
		}
		eventually(t, "reads wait", func() bool { return d.waiting.Load() > 1 })
		ping("during reads")
		for range 20 {
			ping("again")
		}
		release()
		if f := writer.receive(); protocol.Status(f.Code) != protocol.StatusOK {
			t.Errorf("the stalled PUT: %v", protocol.Status(f.Code))
		}
		for _, r := range readers {
			if f := r.receive(); protocol.Status(f.Code) != protocol.StatusOK {
				t.Errorf("a stalled GET: %v", protocol.Status(f.Code))
			}
		}
	})
}

// writesOnlyForTest is longer than the time after which a loop that saw only
// writes is given up by the timer.
const writesOnlyForTest = 20
