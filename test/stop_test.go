package test

import (
	"fmt"
	"io"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/proa-kv/proa/internal/testcluster"
	"github.com/proa-kv/proa/protocol"
)

// TestStopIsBounded stops a server in the midst of what would keep it busy for
// minutes: long queues of wide reads, scans whose pages nobody takes, writers.
// It must end in its time, cleanly, and have lost nothing.
func TestStopIsBounded(t *testing.T) {
	resp := testcluster.FreeAddress(t)
	node := testcluster.Start(t, testcluster.Config{
		Settings: append([]string{"node.shutdown_timeout=2s"}, smallStores...), Args: []string{"--resp-listen", resp},
	})
	w := greetWire(t, node)
	const rows = 2000
	value := strings.Repeat("v", 4<<10)
	for i := range rows {
		w.write(request(protocol.OpPut, uint64(i+10), putBody(fmt.Sprintf("{t}%04d", i), value)))
	}
	for range rows {
		if f := w.receive(); protocol.Status(f.Code) != protocol.StatusOK {
			t.Fatalf("PUT was answered with %v", protocol.Status(f.Code))
		}
	}

	mget := []byte("*401\r\n$4\r\nMGET\r\n")
	for i := range 400 {
		mget = fmt.Appendf(mget, "$7\r\n{t}%04d\r\n", i*5)
	}
	var wg sync.WaitGroup
	defer wg.Wait()
	begun := make(chan struct{}, 64)
	load := func(address string, first, request []byte, reads bool) {
		nc, err := net.Dial("tcp", address)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { nc.Close() })
		if reads {
			wg.Go(func() { _, _ = io.Copy(io.Discard, nc) })
		}
		wg.Go(func() {
			defer nc.Close()
			_, _ = nc.Write(first)
			for i := 0; ; i++ {
				if i == 20 {
					begun <- struct{}{}
				}
				_ = nc.SetWriteDeadline(time.Now().Add(time.Minute)) // a guard
				if _, err := nc.Write(request); err != nil {
					return
				}
			}
		})
	}
	const readers = 24
	for range readers {
		load(resp, nil, mget, true)
	}
	for range 8 {
		load(node.Address(), request(protocol.OpHello, 1, helloBody()), request(protocol.OpScan, 2, scanBody("", rows, nil)), false)
	}
	for range readers {
		<-begun
	}
	began := time.Now()
	node.Terminate()
	if status := node.AwaitExit(); status != 0 { // fails the test after a minute
		t.Errorf("exit status %d", status)
	}
	t.Logf("the stop took %v", time.Since(began).Round(time.Millisecond))
	node.Verify()
	node.Start()
	w = greetWire(t, node)
	for i := range rows {
		if f := w.call(protocol.OpExists, fmt.Appendf(nil, "{t}%04d", i)); protocol.Status(f.Code) != protocol.StatusOK {
			t.Fatalf("key %d after the stop: %v", i, protocol.Status(f.Code))
		}
	}
}
