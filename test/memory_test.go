package test

import (
	"bufio"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"os"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/proa-kv/proa/internal/testcluster"
	"github.com/proa-kv/proa/protocol"
	"github.com/proa-kv/proa/server"
)

// memoryFull has TestMemoryBound put as much pressure on a server as a machine
// of one's own allows, for some seconds each, and print what clients notice.
var memoryFull = flag.Duration("memory", 0, "how long each load of TestMemoryBound at full size lasts; 0: its short form")

// pressure is a load that wants far more memory than the server may use.
type pressure struct {
	name    string
	readers int // that ask for ten large values each, and read nothing
	writers int // of large values, each again and again
	redis   int // the same over the Redis protocol
	value   int // bytes
}

// TestMemoryBound offers a server far more large requests and replies than it
// has memory for. It must stay within its memory, every writer must get its
// turn, and small requests must be answered all the while.
func TestMemoryBound(t *testing.T) {
	needs(t, server.Pauses) // large requests wait for one another
	memory, loads := 256, []pressure{
		{"clients that do not read", 40, 0, 0, 8 << 20},
		{"some writers", 0, 12, 0, 8 << 20},
		{"many writers", 0, 100, 0, 2 << 20},
		{"writers over the Redis protocol", 0, 0, 24, 8 << 20},
		{"both", 20, 20, 0, 4 << 20},
	}
	if *memoryFull > 0 {
		memory, loads = 512, []pressure{
			{"clients that do not read", 200, 0, 0, 15 << 20},
			{"some writers", 0, 20, 0, 8 << 20},
			{"many writers", 0, 500, 0, 8 << 20},
			{"writers over the Redis protocol", 0, 0, 20, 15 << 20},
			{"both", 200, 20, 0, 15 << 20},
		}
	}
	if testing.Short() {
		loads = loads[len(loads)-1:]
	}
	for _, load := range loads {
		t.Run(strings.ReplaceAll(load.name, " ", "-"), func(t *testing.T) {
			resp := testcluster.FreeAddress(t)
			node := testcluster.Start(t, testcluster.Config{Settings: []string{fmt.Sprintf("memory.max_memory_usage=%dMiB", memory), "raft.log_size_max=256MiB", "listen.resp=" + resp}})
			load.press(t, node, resp)
			peak := memoryPeak(t, node) >> 20
			t.Logf("%s: the server had at most %d MiB of %d", load.name, peak, memory)
			if most := int64(memory) * allowedPercent() / 100; !testcluster.Instrumented() && peak > most {
				t.Errorf("the server had %d MiB, %d are allowed with %d", peak, most, memory)
			}
			wellBehaved(t, node)
		})
	}
}

// allowedPercent is how much of its setting a server may take. What is promised is
// a tenth more, and full loads are held to that. On a machine that is busy with
// other tests the garbage collector gets on too slowly to be held to it.
func allowedPercent() int64 {
	if *memoryFull > 0 {
		return 110
	}
	return 125
}

// memoryPeak is the most memory that the process has had, in bytes.
func memoryPeak(t testing.TB, node *testcluster.Node) int64 {
	t.Helper()
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", node.PID()))
	if errors.Is(err, os.ErrNotExist) {
		t.Skip("the memory of a process is read from /proc, which this system does not have")
	}
	_, after, _ := strings.Cut(string(b), "VmHWM:")
	var kib int64
	if _, err := fmt.Sscan(after, &kib); err != nil {
		t.Fatal(err)
	}
	return kib << 10
}

// press runs the load beside a client of small requests. resp is where the node
// speaks the Redis protocol.
func (p *pressure) press(t *testing.T, node *testcluster.Node, resp string) {
	calm := small(t, node, 200, nil)
	for i := range 4 {
		if f := greetWire(t, node).call(protocol.OpPut, putBody(fmt.Sprint("big", i), strings.Repeat("x", p.value))); protocol.Status(f.Code) != protocol.StatusOK {
			t.Fatalf("a large PUT was answered with %v", protocol.Status(f.Code))
		}
	}
	var ask []byte
	for i := range 10 {
		ask = append(ask, request(protocol.OpGet, uint64(100+i), fmt.Append(nil, "big", i%4))...)
	}
	for range p.readers {
		greetWire(t, node).write(ask)
	}
	done := make(chan struct{})
	wires := make([]*wire, p.writers)
	for i := range wires {
		wires[i] = greetWire(t, node)
		// On a machine of its own a client would not take the memory for
		// sockets that the server's kernel has.
		_ = wires[i].nc.(*net.TCPConn).SetWriteBuffer(256 << 10)
	}
	var acked [600]atomic.Int64 // by second
	frame := request(protocol.OpPut, 1, putBody("large", strings.Repeat("y", p.value)))
	start := time.Now()
	ack := func() { acked[min(int(time.Since(start).Seconds()), len(acked)-1)].Add(1) }
	go func() {
		defer close(done)
		var all sync.WaitGroup
		for i := range p.redis {
			all.Go(func() {
				if err := p.setOften(t, resp, i, start, ack); err != nil {
					t.Errorf("writer %d over the Redis protocol: %v", i, err)
				}
			})
		}
		for i, w := range wires {
			all.Go(func() {
				for again := true; again; again = time.Since(start) < *memoryFull {
					if err := w.insist(frame); err != nil {
						t.Errorf("writer %d: %v", i, err)
						return
					}
					ack()
				}
			})
		}
		all.Wait()
		<-time.After(time.Until(start.Add(*memoryFull)))
	}()
	loaded := small(t, node, 200, done)
	if *memoryFull == 0 {
		return
	}
	var perSecond []int64
	for i := range int(memoryFull.Seconds()) {
		perSecond = append(perSecond, acked[i].Load())
	}
	t.Logf("%s: small PUT p50 %v p99 %v (calm p50 %v p99 %v, %.1f times); large PUTs per second %v, %d MB/s", p.name,
		quantile(loaded, .5), quantile(loaded, .99), quantile(calm, .5), quantile(calm, .99),
		float64(quantile(loaded, .99))/float64(quantile(calm, .99)), perSecond, sum(perSecond)*int64(p.value)/1e6/int64(max(1, len(perSecond))))
}

// setOften has client i set one of a few large values, again and again until
// memoryFull has passed since start. Its connection stays open: what it has sent
// must cost nothing any more. Each that is answered is told to ack.
func (p *pressure) setOften(t *testing.T, resp string, i int, start time.Time, ack func()) error {
	nc, err := net.Dial("tcp", resp)
	if err != nil {
		return err
	}
	t.Cleanup(func() { _ = nc.Close() })
	r := bufio.NewReader(nc)
	set := fmt.Appendf(nil, "*3\r\n$3\r\nSET\r\n$4\r\nbig%d\r\n$%d\r\n%s\r\n", i%4, p.value, strings.Repeat("z", p.value))
	for again := true; again; again = time.Since(start) < *memoryFull {
		if _, err := nc.Write(set); err != nil {
			return err
		}
		_ = nc.SetReadDeadline(time.Now().Add(patience))
		switch line, err := r.ReadString('\n'); {
		case err != nil:
			return err
		case line != "+OK\r\n":
			return fmt.Errorf("answered with %q", line)
		}
		ack()
	}
	return nil
}

func sum(list []int64) (n int64) {
	for _, x := range list {
		n += x
	}
	return n
}

// insist sends a request until it is carried out.
func (w *wire) insist(frame []byte) error {
	for {
		if _, err := w.nc.Write(frame); err != nil {
			return err
		}
		_ = w.nc.SetReadDeadline(time.Now().Add(patience))
		head, err := w.r.Peek(4)
		if err != nil {
			return err
		}
		b := make([]byte, int(head[0])|int(head[1])<<8)
		if _, err := io.ReadFull(w.r, b); err != nil {
			return err
		}
		f, _, _, err := protocol.Next(b, protocol.FrameBytesMax)
		switch s := protocol.Status(f.Code); {
		case err != nil:
			return err
		case s == protocol.StatusOK && f.ID != 0:
			return nil
		case s != protocol.StatusBusy || f.ID == 0:
			return fmt.Errorf("answered with %v: %q", s, f.Body)
		}
	}
}

// small writes small rows, one after the other: at least n, and until done. It
// returns how long each took, in order.
func small(t *testing.T, node *testcluster.Node, n int, done <-chan struct{}) []time.Duration {
	t.Helper()
	w := greetWire(t, node)
	var took []time.Duration
	for i := 0; ; i++ {
		if i >= n {
			select {
			case <-done:
				slices.Sort(took)
				return took
			default:
				if done == nil {
					slices.Sort(took)
					return took
				}
			}
		}
		start := time.Now()
		if f := w.call(protocol.OpPut, putBody(fmt.Sprint("small", i%1000), "value")); protocol.Status(f.Code) != protocol.StatusOK {
			t.Fatalf("small PUT number %d was answered with %v", i, protocol.Status(f.Code))
		}
		took = append(took, time.Since(start))
	}
}

// quantile returns what a part of the sorted durations stay under.
func quantile(sorted []time.Duration, part float64) time.Duration {
	return sorted[min(int(part*float64(len(sorted))), len(sorted)-1)].Round(time.Microsecond)
}
