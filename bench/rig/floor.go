//go:build linux

package rig

import (
	"bufio"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"strings"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/proa-kv/proa/bench"
	"github.com/proa-kv/proa/internal/spawn"
)

// The floors: what a fsynced write over TCP costs if a server did nothing
// else.

const (
	// BlockBytes is what the Raft log writes for one small PUT: everything is
	// padded to whole blocks of this size (raftlog.BlockBytes).
	BlockBytes = 4096
	// floorBytes is the size of the file that is written to, one segment of
	// the log.
	floorBytes = 64 << 20
)

// Disk measures writes to a file as the log has them: preallocated, really
// filled with zeros, durable. It is not safe for concurrent use.
type Disk struct {
	file  *os.File
	next  int64
	block []byte
}

// NewDisk creates the file to measure with, which is 64 MiB long. The caller
// removes it after Close.
func NewDisk(path string) (*Disk, error) {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return nil, err
	}
	d := &Disk{file: f, block: bench.NewValue(BlockBytes, 1)}
	// Not every file system can reserve space; the zeros do it then.
	_ = unix.Fallocate(int(f.Fd()), 0, 0, floorBytes)
	zeros := make([]byte, 1<<20)
	for off := int64(0); off < floorBytes && err == nil; off += int64(len(zeros)) {
		_, err = f.WriteAt(zeros, off)
	}
	if err = errors.Join(err, f.Sync()); err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return d, nil
}

// Close closes the file.
func (d *Disk) Close() error { return d.file.Close() }

// Measure writes block after block, each followed by fdatasync, for as long as
// said and at least once, and returns how long each pair took.
func (d *Disk) Measure(ctx context.Context, duration time.Duration) (pairs *bench.KindResult, err error) {
	pairs, _, err = d.write(ctx, d.block, duration)
	return pairs, err
}

// MeasureSequential does the same with chunks of so many bytes, 1 to 64 MiB, and
// returns how many bytes per second became durable. It is the rate at which the
// disk takes a log that is synced for each chunk.
func (d *Disk) MeasureSequential(ctx context.Context, chunkBytes int, duration time.Duration) (bytesPerSecond float64, err error) {
	if chunkBytes < 1 || chunkBytes > floorBytes {
		return 0, fmt.Errorf("chunks of %d bytes: 1 to %d are allowed", chunkBytes, floorBytes)
	}
	pairs, took, err := d.write(ctx, bench.NewValue(chunkBytes, 1), duration)
	if err != nil {
		return 0, err
	}
	return float64(pairs.Ops) * float64(chunkBytes) / took.Seconds(), nil
}

func (d *Disk) write(ctx context.Context, chunk []byte, duration time.Duration) (pairs *bench.KindResult, took time.Duration, err error) {
	pairs = new(bench.KindResult)
	fd := d.file.Fd()
	for begin := time.Now(); pairs.Ops == 0 || took < duration; took = time.Since(begin) {
		if err := ctx.Err(); err != nil {
			return nil, 0, err
		}
		if d.next+int64(len(chunk)) > floorBytes {
			d.next = 0
		}
		start := time.Now()
		if _, err := d.file.WriteAt(chunk, d.next); err != nil {
			return nil, 0, fmt.Errorf("writing: %w", err)
		}
		// Without telling the scheduler, which would make the floor higher
		// than it is.
		if _, _, errno := unix.RawSyscall(unix.SYS_FDATASYNC, fd, 0, 0); errno != 0 {
			return nil, 0, fmt.Errorf("fdatasync: %w", errno)
		}
		pairs.Record(time.Since(start))
		d.next += int64(len(chunk))
	}
	return pairs, took, nil
}

// Memory measures copies between random places of two areas that no cache
// holds. It is not safe for concurrent use.
type Memory struct {
	from, to []byte
	random   *rand.PCG
}

// memoryBytes is the size of an area, copyGroup how many copies are timed
// together: a clock takes about as long as a small copy.
const (
	memoryBytes = 64 << 20
	copyGroup   = 16
)

// NewMemory makes the areas to copy between, 128 MiB in all.
func NewMemory() *Memory {
	m := &Memory{from: bench.NewValue(memoryBytes, 1), to: make([]byte, memoryBytes), random: rand.NewPCG(3, 4)}
	copy(m.to, m.from) // so that its pages are there
	return m
}

// Measure copies so many bytes, 1 to 1 MiB, from a random place to another for
// as long as said, and returns how long a copy took: means of 16 copies each.
func (m *Memory) Measure(ctx context.Context, copyBytes int, duration time.Duration) (copies *bench.KindResult, err error) {
	if copyBytes < 1 || copyBytes > 1<<20 {
		return nil, fmt.Errorf("copies of %d bytes: 1 to %d are allowed", copyBytes, 1<<20)
	}
	copies = new(bench.KindResult)
	places := uint64(memoryBytes - copyBytes + 1)
	for begin := time.Now(); time.Since(begin) < duration || copies.Ops == 0; {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		start := time.Now()
		for range copyGroup {
			from, to := m.random.Uint64()%places, m.random.Uint64()%places
			copy(m.to[to:to+uint64(copyBytes)], m.from[from:])
		}
		copies.Record(time.Since(start) / copyGroup)
	}
	return copies, nil
}

// EchoArgument or BlobArgument, as its only argument, makes a program a server
// of one of the floors: it calls ServeFloor first thing.
const (
	EchoArgument = "echo-server"
	BlobArgument = "blob-server"
)

// ServeFloor serves until it is killed if args, those behind the program's name,
// ask for the server of a floor: one that sends back what it reads, or one that
// answers each request with as many bytes as it asks for. It reports whether they
// do. The server says its address on standard output first. One thread, one
// level-triggered epoll, one read and one write each: what a server in C would do.
func ServeFloor(args []string) (bool, error) {
	if len(args) != 1 {
		return false, nil
	}
	switch args[0] {
	case EchoArgument:
		buf := make([]byte, 64<<10)
		return true, serve(func(fd int) error { return echo(fd, buf) })
	case BlobArgument:
		s := blobs{pool: bench.NewValue(blobPoolBytes, 1)}
		return true, serve(s.answer)
	}
	return false, nil
}

// StartEcho starts the echo server, for messages of so many bytes. It ends with
// the lab.
func (l *Lab) StartEcho(bytes int) (*Server, error) { return l.startFloor(EchoArgument, Echo{bytes}) }

// StartBlobs starts the server of blobs of so many bytes. It ends with the lab.
func (l *Lab) StartBlobs(bytes int) (*Server, error) { return l.startFloor(BlobArgument, Blob{bytes}) }

// startFloor starts this program in another process.
func (l *Lab) startFloor(name string, codec bench.Codec) (*Server, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	cmd := commandOf(self, name)
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	p, err := spawn.Launch(name, "", cmd)
	if err != nil {
		return nil, err
	}
	c := &Cluster{Kind: Kind{Name: name}, Cluster: &spawn.Cluster{Nodes: []*Node{{Process: p, ID: 1}}}}
	l.Cleanup(c.Stop)
	line, err := bufio.NewReader(out).ReadString('\n')
	if err != nil {
		return nil, fmt.Errorf("%s: no address: %w", name, err)
	}
	c.Nodes[0].Client = strings.TrimSpace(line)
	return newServer(c, codec), nil
}

// serve accepts connections and has answer called where there is something to
// read on one.
func serve(answer func(fd int) error) error {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	defer l.Close()
	listener, err := l.(*net.TCPListener).File()
	if err != nil {
		return err
	}
	defer listener.Close()
	epoll, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	if err != nil {
		return err
	}
	accepting := int(listener.Fd())
	if err := add(epoll, accepting); err != nil {
		return err
	}
	fmt.Println(l.Addr())
	events := make([]unix.EpollEvent, 128)
	for {
		// The scheduler does not know of the wait: nothing else runs here.
		n, _, errno := unix.RawSyscall6(unix.SYS_EPOLL_PWAIT, uintptr(epoll), uintptr(unsafe.Pointer(&events[0])), uintptr(len(events)), ^uintptr(0), 0, 0)
		if errno == unix.EINTR {
			continue
		}
		if errno != 0 {
			return errno
		}
		for _, ev := range events[:n] {
			if int(ev.Fd) == accepting {
				err = accept(epoll, accepting)
			} else {
				err = answer(int(ev.Fd))
			}
			if err != nil {
				return err
			}
		}
	}
}

func add(epoll, fd int) error {
	return unix.EpollCtl(epoll, unix.EPOLL_CTL_ADD, fd, &unix.EpollEvent{Events: unix.EPOLLIN, Fd: int32(fd)})
}

func accept(epoll, listener int) error {
	fd, _, err := unix.Accept4(listener, unix.SOCK_CLOEXEC)
	if err != nil {
		if err == unix.EAGAIN || err == unix.ECONNABORTED || err == unix.EINTR {
			return nil
		}
		return err
	}
	return errors.Join(unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_NODELAY, 1), add(epoll, fd))
}

// echo answers what can be read from fd. The connection blocks on writing,
// which is good enough for the one client there is.
func echo(fd int, buf []byte) error {
	n, err := unix.Read(fd, buf)
	if err == unix.EINTR {
		return nil
	}
	if err == nil && n > 0 {
		err = writeAll(fd, buf[:n])
	}
	if err != nil || n == 0 {
		return unix.Close(fd)
	}
	return nil
}

// writeAll writes all of b to a socket that blocks.
func writeAll(fd int, b []byte) error {
	for len(b) > 0 {
		n, err := unix.Write(fd, b)
		if err != nil && err != unix.EINTR {
			return err
		}
		b = b[max(n, 0):]
	}
	return nil
}

// Echo is the Codec of the echo server: whatever the operation, it sends so many
// bytes and expects as many.
type Echo struct{ Bytes int }

// Ordered returns true.
func (Echo) Ordered() bool { return true }

// AppendGreeting appends one message.
func (c Echo) AppendGreeting(dst []byte) []byte { return c.AppendRequest(dst, 0, 0, nil, nil) }

// ParseGreeting expects it back.
func (c Echo) ParseGreeting(b []byte) (int, error) {
	_, n, err := c.ParseReply(b, 0)
	return n, err
}

// AppendRequest appends one message.
func (c Echo) AppendRequest(dst []byte, _ bench.Op, _ uint32, _, _ []byte) []byte {
	for range c.Bytes {
		dst = append(dst, 'e')
	}
	return dst
}

// ParseReply expects a message.
func (c Echo) ParseReply(b []byte, _ bench.Op) (r bench.Reply, n int, err error) {
	if len(b) < c.Bytes {
		return r, 0, nil
	}
	return r, c.Bytes, nil
}

var _ bench.Codec = Echo{}

const (
	// blobRequestBytes is the length of a request for a blob: how many bytes
	// it is to have, little-endian.
	blobRequestBytes = 8
	// blobPoolBytes is from how many bytes on the server's blobs repeat. They
	// do not all come from the processor's cache, as rows do not.
	blobPoolBytes = 64 << 20
)

// blobs hands out parts of a pool, one behind the other: what a server of large
// values does if it has nothing to look up. The system copies the bytes from memory
// to a socket, and the client's system from there to the client; that is all.
type blobs struct {
	pool    []byte
	at      int
	request [blobRequestBytes]byte
}

// answer answers one request, for at most bench.ValueBytesMax. What has arrived behind it wakes the server
// again.
func (s *blobs) answer(fd int) error {
	n, _, err := unix.Recvfrom(fd, s.request[:], unix.MSG_WAITALL)
	if err == unix.EINTR {
		return nil
	}
	size := binary.LittleEndian.Uint64(s.request[:])
	if err != nil || n < len(s.request) || size > bench.ValueBytesMax {
		return unix.Close(fd)
	}
	if writeAll(fd, s.take(int(size))) != nil {
		return unix.Close(fd)
	}
	return nil
}

// take returns the next part of the pool.
func (s *blobs) take(size int) []byte {
	if s.at+size > len(s.pool) {
		s.at = 0
	}
	b := s.pool[s.at : s.at+size]
	s.at += size
	return b
}

// Blob is the Codec of the server of blobs: whatever the operation, it asks for
// so many bytes, 1..bench.ValueBytesMax, which count as a value that was found.
type Blob struct{ Bytes int }

// Ordered returns true.
func (Blob) Ordered() bool { return true }

// AppendGreeting asks for one byte.
func (Blob) AppendGreeting(dst []byte) []byte { return Blob{1}.AppendRequest(dst, 0, 0, nil, nil) }

// ParseGreeting expects it.
func (Blob) ParseGreeting(b []byte) (int, error) { return min(len(b), 1), nil }

// AppendRequest appends a request.
func (c Blob) AppendRequest(dst []byte, _ bench.Op, _ uint32, _, _ []byte) []byte {
	return binary.LittleEndian.AppendUint64(dst, uint64(c.Bytes))
}

// ParseReply expects a blob.
func (c Blob) ParseReply(b []byte, _ bench.Op) (r bench.Reply, n int, err error) {
	if len(b) < c.Bytes {
		return r, 0, nil
	}
	return bench.Reply{ValueBytes: c.Bytes}, c.Bytes, nil
}

var _ bench.Codec = Blob{}
