package server

import (
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"sync"
	"testing"

	"github.com/proa-kv/proa/protocol"
)

// The benchmarks in this file serve real requests over loopback by a real node
// with fdatasync. Client and server share the process, and the client
// allocates nothing per request, so allocs/op are the server's.

// exchange sends request over nc and reads its reply into buf.
func exchange(nc net.Conn, request, buf []byte) (status protocol.Status, err error) {
	if _, err := nc.Write(request); err != nil {
		return 0, err
	}
	if _, err := io.ReadFull(nc, buf[:protocol.HeaderBytes]); err != nil {
		return 0, err
	}
	n := binary.LittleEndian.Uint32(buf)
	_, err = io.ReadFull(nc, buf[protocol.HeaderBytes:n])
	return protocol.Status(buf[5]), err
}

// serveBench measures conns connections that each have one request at a time, on each
// way to drive sockets.
func serveBench(b *testing.B, conns int, request func(conn int) []byte) {
	for _, t := range Transports {
		b.Run(t.Name, func(b *testing.B) { serveBenchOn(b, t.Name, conns, request) })
	}
}

func serveBenchOn(b *testing.B, transport string, conns int, request func(conn int) []byte) {
	_, addr := live(b, Config{Transport: transport})
	dialers := make([]*dialer, conns)
	for i := range dialers {
		dialers[i] = dial(b, addr)
	}
	if f := dialers[0].put("key000", string(make([]byte, 128))); protocol.Status(f.Code) != protocol.StatusOK {
		b.Fatal(protocol.Status(f.Code))
	}
	b.ReportAllocs()
	b.ResetTimer()
	var wg sync.WaitGroup
	for i, d := range dialers {
		wg.Add(1)
		go func() {
			defer wg.Done()
			buf := make([]byte, 4096)
			req := request(i)
			for range b.N / conns {
				if status, err := exchange(d.nc, req, buf); err != nil || status != protocol.StatusOK {
					b.Errorf("%v, %v", status, err)
					return
				}
			}
		}()
	}
	wg.Wait()
}

func BenchmarkServedPing(b *testing.B) {
	serveBench(b, 1, func(int) []byte { return frame(protocol.OpPing, 9, nil) })
}

func BenchmarkServedGet(b *testing.B) {
	serveBench(b, 1, func(int) []byte { return frame(protocol.OpGet, 9, []byte("key000")) })
}

func BenchmarkServedGet64(b *testing.B) {
	serveBench(b, 64, func(int) []byte { return frame(protocol.OpGet, 9, []byte("key000")) })
}

func putRequest(i int) []byte {
	m := protocol.Put{Key: fmt.Appendf(nil, "key%03d", i), Value: make([]byte, 128)}
	return frame(protocol.OpPut, 9, m.AppendTo(nil))
}

func BenchmarkServedPut(b *testing.B)   { serveBench(b, 1, putRequest) }
func BenchmarkServedPut64(b *testing.B) { serveBench(b, 64, putRequest) }

// Over a cluster without Raft or disk: what the network layer itself costs.

func clusterBench(b *testing.B, copies, node int, request func(fc *fakeCluster) []byte) {
	fc := newFakeCluster(b, Config{}, 2, 2, copies)
	fc.set(fc.key(0, 0), string(make([]byte, 128)))
	d := fc.nodes[uint64(node)].client()
	buf := make([]byte, 4096)
	req := request(fc)
	b.ReportAllocs()
	for b.Loop() {
		if status, err := exchange(d.nc, req, buf); err != nil || status != protocol.StatusOK {
			b.Fatalf("%v, %v", status, err)
		}
	}
}

func getOfShard0(fc *fakeCluster) []byte { return frame(protocol.OpGet, 9, []byte(fc.key(0, 0))) }

func BenchmarkGetAtLeader(b *testing.B)   { clusterBench(b, 1, 1, getOfShard0) }
func BenchmarkGetForwarded(b *testing.B)  { clusterBench(b, 1, 2, getOfShard0) }
func BenchmarkGetAtFollower(b *testing.B) { clusterBench(b, 2, 2, getOfShard0) }
