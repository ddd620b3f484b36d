package raftlog

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"sync/atomic"
	"syscall"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"
)

// BenchmarkDurableWrite compares ways to make what the log has gathered
// durable: write past the page cache and fdatasync, one call after the other,
// and both linked in one submission to io_uring, waited for in the same call.
// Beside the elapsed time stands the processor time of this process, kernel
// workers that act for it included. See docs/adr/0009.
func BenchmarkDurableWrite(b *testing.B) {
	for _, size := range []int{BlockBytes, 16 * BlockBytes, 256 * BlockBytes} {
		b.Run(fmt.Sprintf("calls/%dKiB", size>>10), func(b *testing.B) {
			f := directFileOf(b)
			benchDurable(b, size, func(p []byte, offset int64) error {
				if _, err := unix.Pwrite(f, p, offset); err != nil {
					return err
				}
				return unix.Fdatasync(f)
			})
		})
		b.Run(fmt.Sprintf("uring/%dKiB", size>>10), func(b *testing.B) {
			f := directFileOf(b)
			u, err := newUring(8)
			if err != nil {
				b.Skipf("io_uring: %v", err)
			}
			defer u.close()
			benchDurable(b, size, func(p []byte, offset int64) error { return u.writeAndSync(f, p, offset) })
		})
	}
}

const durableFileBytes = 64 << 20

func directFileOf(b *testing.B) int {
	b.Helper()
	dir, err := os.MkdirTemp(".", "uring-") // /tmp may be memory
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { os.RemoveAll(dir) })
	path := filepath.Join(dir, "log")
	if err := os.WriteFile(path, make([]byte, durableFileBytes), 0o600); err != nil {
		b.Fatal(err)
	}
	fd, err := unix.Open(path, unix.O_RDWR|unix.O_DIRECT, 0)
	if err != nil {
		b.Skipf("direct writes: %v", err)
	}
	b.Cleanup(func() { unix.Close(fd) })
	if err := unix.Fsync(fd); err != nil {
		b.Fatal(err)
	}
	return fd
}

func benchDurable(b *testing.B, size int, write func(p []byte, offset int64) error) {
	memory, err := unix.Mmap(-1, 0, size, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_ANON|unix.MAP_PRIVATE)
	if err != nil {
		b.Fatal(err)
	}
	defer unix.Munmap(memory)
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	offset := int64(0)
	before := processNanos()
	for b.Loop() {
		if err := write(memory, offset); err != nil {
			b.Fatal(err)
		}
		if offset += int64(size); offset+int64(size) > durableFileBytes {
			offset = 0
		}
	}
	b.ReportMetric(float64(processNanos()-before)/float64(b.N), "cpu-ns/op")
}

func processNanos() int64 {
	var u unix.Rusage
	_ = unix.Getrusage(unix.RUSAGE_SELF, &u)
	return u.Utime.Nano() + u.Stime.Nano()
}

// uring is an io_uring with as much as the benchmark needs.
type uring struct {
	fd                     int
	ring, entries          []byte
	sqTail, cqHead, cqTail *uint32
	sqMask, cqMask         uint32
	sqArray                unsafe.Pointer
	cqes                   unsafe.Pointer
}

// The offsets in struct io_uring_params that matter here.
type uringParams struct {
	sqEntries, cqEntries, flags, sqThreadCPU, sqThreadIdle, features, wqFD uint32
	_                                                                      [3]uint32
	sq                                                                     struct {
		head, tail, ringMask, ringEntries, flags, dropped, array, _ uint32
		_                                                           uint64
	}
	cq struct {
		head, tail, ringMask, ringEntries, overflow, cqes, flags, _ uint32
		_                                                           uint64
	}
}

const (
	uringSingleMmap  = 1 << 0
	uringOpFsync     = 3
	uringOpWrite     = 23
	uringDatasync    = 1 << 0
	uringLink        = 1 << 2
	uringGetEvents   = 1 << 0
	uringOffSQEs     = 0x10000000
	uringEntryBytes  = 64
	uringResultBytes = 16
)

func newUring(depth uint32) (*uring, error) {
	var p uringParams
	fd, _, errno := unix.Syscall(unix.SYS_IO_URING_SETUP, uintptr(depth), uintptr(unsafe.Pointer(&p)), 0)
	if errno != 0 {
		return nil, errno
	}
	u := &uring{fd: int(fd)}
	if p.features&uringSingleMmap == 0 {
		unix.Close(u.fd)
		return nil, errors.New("rings in two mappings")
	}
	size := max(p.sq.array+4*p.sqEntries, p.cq.cqes+uringResultBytes*p.cqEntries)
	var err error
	if u.ring, err = unix.Mmap(u.fd, 0, int(size), unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED|unix.MAP_POPULATE); err != nil {
		unix.Close(u.fd)
		return nil, err
	}
	if u.entries, err = unix.Mmap(u.fd, uringOffSQEs, int(uringEntryBytes*p.sqEntries), unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED|unix.MAP_POPULATE); err != nil {
		u.close()
		return nil, err
	}
	at := func(offset uint32) unsafe.Pointer { return unsafe.Pointer(&u.ring[offset]) }
	u.sqTail, u.cqHead, u.cqTail = (*uint32)(at(p.sq.tail)), (*uint32)(at(p.cq.head)), (*uint32)(at(p.cq.tail))
	u.sqMask, u.cqMask = *(*uint32)(at(p.sq.ringMask)), *(*uint32)(at(p.cq.ringMask))
	u.sqArray, u.cqes = at(p.sq.array), at(p.cq.cqes)
	return u, nil
}

func (u *uring) close() {
	if u.entries != nil {
		_ = unix.Munmap(u.entries)
	}
	_ = unix.Munmap(u.ring)
	unix.Close(u.fd)
}

// uringEntry is struct io_uring_sqe.
type uringEntry struct {
	opcode, flags uint8
	_             uint16
	fd            int32
	offset        uint64
	address       uint64
	length        uint32
	opFlags       uint32
	data          uint64
	_             [3]uint64
}

func (u *uring) put(e uringEntry) {
	tail := *u.sqTail
	i := tail & u.sqMask
	*(*uringEntry)(unsafe.Pointer(&u.entries[i*uringEntryBytes])) = e
	*(*uint32)(unsafe.Add(u.sqArray, 4*i)) = i
	atomic.StoreUint32(u.sqTail, tail+1)
}

// writeAndSync writes p and then syncs, as one submission, and waits for both.
func (u *uring) writeAndSync(fd int, p []byte, offset int64) error {
	u.put(uringEntry{opcode: uringOpWrite, flags: uringLink, fd: int32(fd), offset: uint64(offset),
		address: uint64(uintptr(unsafe.Pointer(&p[0]))), length: uint32(len(p))})
	u.put(uringEntry{opcode: uringOpFsync, fd: int32(fd), opFlags: uringDatasync})
	if _, _, errno := unix.Syscall6(unix.SYS_IO_URING_ENTER, uintptr(u.fd), 2, 2, uringGetEvents, 0, 0); errno != 0 {
		return errno
	}
	for range 2 {
		head := *u.cqHead
		if head == atomic.LoadUint32(u.cqTail) {
			return errors.New("io_uring: a completion is missing")
		}
		result := *(*int32)(unsafe.Add(u.cqes, uringResultBytes*(head&u.cqMask)+8))
		atomic.StoreUint32(u.cqHead, head+1)
		if result < 0 {
			return syscall.Errno(-result)
		}
	}
	return nil
}
