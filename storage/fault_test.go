package storage

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/cockroachdb/pebble/v2/vfs/errorfs"

	"github.com/proa-kv/proa/bufpool"
	"github.com/proa-kv/proa/command"
	"github.com/proa-kv/proa/internal/leaktest"
)

// faultyTables makes operations of the kinds on tables fail while it is on.
func faultyTables(fs vfs.FS, err error, kinds ...errorfs.OpKind) (vfs.FS, *errorfs.Toggle) {
	toggle := &errorfs.Toggle{Injector: errorfs.InjectorFunc(func(op errorfs.Op) error {
		for _, kind := range kinds {
			if op.Kind == kind && strings.HasSuffix(op.Path, ".sst") {
				return err
			}
		}
		return nil
	})}
	return errorfs.Wrap(fs, toggle), toggle
}

// logBuffer is a log that several goroutines write.
type logBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *logBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *logBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

func TestFailedFlushIsFatal(t *testing.T) {
	for name, kinds := range map[string][]errorfs.OpKind{
		"create": {errorfs.OpCreate},
		"write":  {errorfs.OpFileWrite},
		"sync":   {errorfs.OpFileSync, errorfs.OpFileSyncData},
	} {
		t.Run(name, func(t *testing.T) {
			mem := vfs.NewCrashableMem()
			fs, faults := faultyTables(mem, syscall.ENOSPC, kinds...)
			o := testOptions(fs)
			var log logBuffer
			o.Logger = slog.New(slog.NewTextHandler(&log, nil))
			fatal := make(chan error, 10)
			o.OnFatal = func(err error) { fatal <- err }
			s := open(t, o)
			do(t, s, 1, put("a", "1"))
			if err := s.Flush(); err != nil {
				t.Fatal(err)
			}
			do(t, s, 1, put("b", "2"))
			faults.On()
			if err := s.Flush(); !errors.Is(err, ErrFailed) || !errors.Is(err, syscall.ENOSPC) {
				t.Errorf("flush: %v", err)
			}
			if err := <-fatal; !errors.Is(err, syscall.ENOSPC) {
				t.Errorf("told %v", err)
			}
			faults.Off() // now it would go well, which must not count

			var d delivered
			err := s.Apply([]Entry{{Index: 3, Data: entryOf(1, put("c", "3"))}}, &d)
			if !errors.Is(err, ErrFailed) || len(d.results) > 0 {
				t.Errorf("apply: %v, %d results", err, len(d.results))
			}
			if err := s.FlushAsync(); !errors.Is(err, ErrFailed) {
				t.Errorf("flush again: %v", err)
			}
			if s.Durable(0) != 1 || s.Applied(0) != 2 {
				t.Errorf("durable %d, applied %d", s.Durable(0), s.Applied(0))
			}
			diff(t, "reads go on", get(t, s, 0, "b", 1), read{"2", 2, 0, true})
			if err := s.Close(); !errors.Is(err, ErrFailed) {
				t.Errorf("close: %v", err)
			}
			if len(fatal) != 0 {
				t.Error("told more than once")
			}
			if n := strings.Count(log.String(), "level=ERROR"); n != 1 {
				t.Errorf("%d errors logged:\n%s", n, log.String())
			}
			after := open(t, testOptions(mem.CrashClone(vfs.CrashCloneCfg{})))
			if after.Applied(0) < 1 {
				t.Errorf("what was durable is lost: applied %d", after.Applied(0))
			}
			closeStore(t, after)
		})
	}
}

// TestCloseWhileAWriteHangs has the store fail while the disk does not return
// from a flush's sync: of a file, or of the directory that has it.
func TestCloseWhileAWriteHangs(t *testing.T) {
	for name, path := range map[string]func(string) bool{
		"file":      inFlush,
		"directory": func(path string) bool { return path == "data" },
	} {
		t.Run(name, func(t *testing.T) { closeWhileSyncHangs(t, path) })
	}
}

func closeWhileSyncHangs(t *testing.T, path func(string) bool) {
	release, hangs := make(chan struct{}), make(chan struct{})
	var once sync.Once
	hang := &errorfs.Toggle{Injector: errorfs.InjectorFunc(func(op errorfs.Op) error {
		if (op.Kind == errorfs.OpFileSync || op.Kind == errorfs.OpFileSyncData) && path(op.Path) {
			once.Do(func() { close(hangs) })
			<-release
		}
		return nil
	})}
	s := open(t, testOptions(errorfs.Wrap(vfs.NewMem(), hang)))
	do(t, s, 1, put("a", "1"))
	hang.On()
	flushed := make(chan error)
	go func() { flushed <- s.Flush() }()
	<-hangs
	s.fatal.raise("something else failed", syscall.EIO)
	if err := <-flushed; !errors.Is(err, syscall.EIO) {
		t.Errorf("flush: %v", err)
	}
	if err := s.Close(); !errors.Is(err, ErrFailed) || !errors.Is(err, errAbandoned) {
		t.Errorf("close: %v", err)
	}
	close(release)
	s.background.Wait() // leave no goroutine behind
	if s.Durable(0) != 0 {
		t.Error("a flush that ended after the failure counts")
	}
	if err := errors.Join(s.db.Close(), s.cache.close()); err != nil {
		t.Error(err)
	}
}

func TestFailedDrainIsFatal(t *testing.T) {
	mem := vfs.NewCrashableMem()
	o := testOptions(mem)
	fatal := make(chan error, 10)
	o.OnFatal = func(err error) { fatal <- err }
	s := open(t, o)
	g := newGate(s)
	do(t, s, 1, put("a", "1"))
	if err := s.Flush(); err != nil {
		t.Fatal(err)
	}
	do(t, s, 2, put("a", "2"), put("b", "2"))
	g.Lock()
	g.err = syscall.EIO
	rotateTable(s)
	do(t, s, 3, put("a", "3")) // into the other table, before anybody knows
	g.Unlock()
	if err := <-fatal; !errors.Is(err, syscall.EIO) {
		t.Errorf("told %v", err)
	}
	err := s.Apply([]Entry{{Index: 4, Data: entryOf(1, put("c", "3"))}}, &delivered{})
	if !errors.Is(err, ErrFailed) || !errors.Is(err, syscall.EIO) {
		t.Errorf("apply: %v", err)
	}
	for name, err := range map[string]error{"flush": s.Flush(), "flush async": s.FlushAsync()} {
		if !errors.Is(err, ErrFailed) {
			t.Errorf("%s: %v", name, err)
		}
	}
	s.cache.segments = nil // reads go to the tables
	diff(t, "a, still", get(t, s, 0, "a", 1), read{"3", 4, 0, true})
	diff(t, "b, still", get(t, s, 0, "b", 1), read{"2", 3, 0, true})
	if rows := scan(t, s, ScanOptions{Shards: []int{0}}); len(rows) != 2 {
		t.Errorf("scan: %v", rows)
	}
	if s.Durable(0) != 1 || s.Applied(0) != 3 {
		t.Errorf("durable %d, applied %d", s.Durable(0), s.Applied(0))
	}
	if err := s.Close(); !errors.Is(err, ErrFailed) || len(fatal) != 0 {
		t.Errorf("close: %v, told %d times more", err, len(fatal))
	}
	after := open(t, testOptions(mem))
	defer closeStore(t, after)
	diff(t, "applied afterwards", after.Applied(0), uint64(1))
	diff(t, "a afterwards", get(t, after, 0, "a", 1), read{"1", 1, 0, true})
	diff(t, "b afterwards", get(t, after, 0, "b", 1), read{})
}

// What is flushed after the store failed does not reach Pebble, and the owner,
// who had the error returned, is not told again.
func TestNoFlushAfterAFailure(t *testing.T) {
	o := testOptions(nil)
	o.OnFatal = func(err error) { t.Errorf("told %v", err) }
	s := open(t, o)
	do(t, s, 1, put("a", "1"))
	if err := s.Flush(); err != nil {
		t.Fatal(err)
	}
	do(t, s, 1, put("a", "2"))
	if err := s.Apply([]Entry{{Index: 3, Data: []byte("not an entry")}}, &delivered{}); !errors.Is(err, ErrFailed) {
		t.Errorf("apply: %v", err)
	}
	rotateTable(s)
	if err := s.flusher.flush(s.memtables.immutable); !errors.Is(err, ErrFailed) {
		t.Errorf("drain: %v", err)
	}
	if m, err := readMeta(s.db, 0); err != nil || m.applied != 1 {
		t.Errorf("Pebble has %+v, error %v", m, err)
	}
	diff(t, "a, still", get(t, s, 0, "a", 1), read{"2", 2, 0, true})
	if err := s.Close(); !errors.Is(err, ErrFailed) {
		t.Errorf("close: %v", err)
	}
}

// Apply that waits for room hears of a failed drain.
func TestFailedFlushEndsTheWaitForRoom(t *testing.T) {
	o := testOptions(nil)
	s := open(t, o)
	g := newGate(s)
	g.Lock()
	g.err = syscall.EIO
	applied := make(chan error)
	go func() {
		var err error
		for i := uint64(1); err == nil; i++ {
			err = s.Apply([]Entry{{Index: i, Data: entryOf(1, put("k", strings.Repeat("v", 10_000)))}}, &delivered{})
		}
		applied <- err
	}()
	<-g.waits
	g.Unlock()
	if err := <-applied; !errors.Is(err, syscall.EIO) {
		t.Errorf("apply: %v", err)
	}
	if err := s.Close(); !errors.Is(err, ErrFailed) {
		t.Errorf("close: %v", err)
	}
}

// Where Pebble cannot go on, the owner is told, and nothing panics: the
// goroutine that has found out stays where it is, with the locks it holds, and
// Close leaves the database behind.
func TestFatalfTellsAndStays(t *testing.T) {
	if !leaktest.InOwnProcess(t) {
		return
	}
	for name, closes := range map[string]bool{"running": false, "closing": true} {
		t.Run(name, func(t *testing.T) {
			mem := vfs.NewMem()
			fs, faults := faultyManifest(mem, syscall.ENOSPC)
			o := testOptions(fs)
			told := make(chan error, 1)
			o.OnFatal = func(err error) { told <- err }
			s := open(t, o)
			do(t, s, 1, put("a", "1"))
			faults.On()
			if !closes {
				notify(s.flusher.asked)
				if err := <-told; !errors.Is(err, syscall.ENOSPC) || !strings.Contains(err.Error(), "MANIFEST") {
					t.Errorf("told %v", err)
				}
			}
			if err := s.Close(); !errors.Is(err, syscall.ENOSPC) || !errors.Is(err, errAbandoned) {
				t.Errorf("close: %v", err)
			}
			if closes {
				<-told
			}
			if _, _, err := s.Checksum(0); !errors.Is(err, ErrClosed) {
				t.Errorf("afterwards: %v", err)
			}
		})
	}
}

// faultyManifest lets writes to Pebble's manifest fail while they are on.
func faultyManifest(fs vfs.FS, err error) (vfs.FS, *errorfs.Toggle) {
	toggle := &errorfs.Toggle{Injector: errorfs.InjectorFunc(func(op errorfs.Op) error {
		if op.Kind.ReadOrWrite() == errorfs.OpIsWrite && strings.Contains(op.Path, "MANIFEST") {
			return err
		}
		return nil
	})}
	return errorfs.Wrap(fs, toggle), toggle
}

// TestOpenSurvivesEveryFailure lets each operation of the file system fail in
// turn while a store is made, and while one with rows is opened: Open returns
// the error, or does without, but never panics; and what is there can be opened
// when the disk is well again.
func TestOpenSurvivesEveryFailure(t *testing.T) {
	t.Parallel()
	if !leaktest.InOwnProcess(t) {
		return
	}
	filled := vfs.NewCrashableMem()
	s := open(t, testOptions(filled))
	for i := range uint64(8) { // enough files for a compaction as soon as it is opened
		do(t, s, i+1, put("a", fmt.Sprint(i)), put(fmt.Sprint("b", i), "v"))
		if err := s.Flush(); err != nil {
			t.Fatal(err)
		}
	}
	closeStore(t, s)
	step := int32(1)
	if testing.Short() {
		step = 3
	}
	for name, c := range map[string]struct {
		fs  *vfs.MemFS
		err error
	}{
		"new, broken":    {vfs.NewCrashableMem(), syscall.EIO},
		"new, full":      {vfs.NewCrashableMem(), syscall.ENOSPC},
		"filled, broken": {filled, syscall.EIO},
		"filled, full":   {filled, syscall.ENOSPC},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			all := vfs.CrashCloneCfg{UnsyncedDataPercent: 100, RNG: rand.New(rand.NewPCG(1, 2))}
			refused := 0
			for n := int32(0); ; n += step {
				mem := c.fs.CrashClone(all)
				var count atomic.Int32
				o := testOptions(errorfs.Wrap(mem, errorfs.InjectorFunc(func(op errorfs.Op) error {
					if errors.Is(c.err, syscall.ENOSPC) && op.Kind.ReadOrWrite() == errorfs.OpIsRead {
						return nil
					}
					at := count.Add(1) - 1
					if at == n || (at > n && errors.Is(c.err, syscall.ENOSPC)) { // what is full stays full
						return c.err
					}
					return nil
				})))
				s, err := Open(o)
				if err == nil {
					_ = s.Close()
				} else if refused++; !errors.Is(err, c.err) {
					t.Errorf("operation %d: %v", n, err)
				}
				reached := count.Load() > n
				after := open(t, testOptions(mem.CrashClone(all)))
				if c.fs == filled {
					diff(t, fmt.Sprintf("after the failure of operation %d", n), get(t, after, 0, "a", 1), read{"7", 15, 0, true})
				}
				closeStore(t, after)
				if !reached {
					t.Logf("%d operations, %d of them refused the store", n, refused)
					break
				}
			}
			if refused == 0 {
				t.Error("no failure was reported")
			}
		})
	}
}

func TestReadErrors(t *testing.T) {
	mem := vfs.NewMem()
	s := open(t, testOptions(mem))
	commands := cmds{put("a", "1")}
	for i := range 300 { // more than Open reads
		commands = append(commands, put(fmt.Sprint("b", i), strings.Repeat("v", 1000)))
	}
	do(t, s, 1, commands...)
	closeStore(t, s)

	broken := errors.New("broken disk")
	fs, faults := faultyTables(mem, broken, errorfs.OpFileReadAt)
	s = open(t, testOptions(fs))
	s.cache.segments = nil // reads go to the database
	faults.On()
	b := bufpool.Get(0)
	defer b.Release()
	b.B = append(b.B, "kept"...)
	if _, _, err := s.Append(b, 0, []byte("a"), 1, command.AnyValue); !errors.Is(err, broken) || string(b.B) != "kept" {
		t.Errorf("read: %v, buffer %q", err, b.B)
	}
	if err := s.Scan(ScanOptions{Shards: []int{0}}, func(_, _ []byte, _ command.Row) bool { return true }); !errors.Is(err, broken) {
		t.Errorf("scan: %v", err)
	}
	if _, _, err := s.Checksum(0); !errors.Is(err, broken) {
		t.Errorf("checksum: %v", err)
	}
	var d delivered
	err := s.Apply([]Entry{{Index: 2, Data: entryOf(1, put("c", "3"), incr("a", 1))}}, &d)
	if !errors.Is(err, broken) || !errors.Is(err, ErrFailed) || len(d.results) > 0 {
		t.Errorf("apply: %v, %d results", err, len(d.results))
	}
	faults.Off()
	diff(t, "a", get(t, s, 0, "a", 1), read{"1", 1, 0, true})
	diff(t, "c", get(t, s, 0, "c", 1), read{})
	if err := s.Close(); !errors.Is(err, ErrFailed) {
		t.Errorf("close: %v", err)
	}
}

func TestOpenReadError(t *testing.T) {
	mem := vfs.NewMem()
	s := open(t, testOptions(mem))
	do(t, s, 1, in(1, 1, 0, putTTL("a", "1", 5)))
	closeStore(t, s)
	broken := errors.New("broken disk")
	fs, faults := faultyTables(mem, broken, errorfs.OpFileReadAt, errorfs.OpOpen)
	faults.On()
	if s, err := Open(testOptions(fs)); err == nil {
		closeStore(t, s)
		t.Error("opens although no table can be read")
	}
}

func TestOpenRefuses(t *testing.T) {
	mem := vfs.NewMem()
	o := testOptions(mem)
	s := open(t, o)
	if err := s.Apply([]Entry{{Shard: 1, Index: 1}}, &delivered{}); err != nil {
		t.Fatal(err)
	}
	if again, err := Open(o); err == nil {
		closeStore(t, again)
		t.Error("opens twice")
	}
	closeStore(t, s)
	for name, change := range map[string]func(*Options){
		"fewer shards":    func(o *Options) { o.Shards = 1 },
		"no shards":       func(o *Options) { o.Shards = 0 },
		"too many shards": func(o *Options) { o.Shards = ShardsMax + 1 },
		"no directory":    func(o *Options) { o.Dir = "" },
	} {
		bad := o
		change(&bad)
		if s, err := Open(bad); err == nil {
			closeStore(t, s)
			t.Error(name)
		}
	}
	o.Shards = 3 // more is fine
	closeStore(t, open(t, o))
}

func TestDefaults(t *testing.T) {
	o, err := Options{Dir: "x", Shards: 1}.withDefaults()
	if err != nil || o.FS == nil || o.Logger == nil || o.BlockCacheBytes != BlockCacheBytesDefault ||
		o.RowCacheBytes != RowCacheBytesDefault || o.MemtableBytes != MemtableBytesDefault || o.SessionRetention != SessionRetentionDefault {
		t.Errorf("%+v, error %v", o, err)
	}
}

func TestAfterClose(t *testing.T) {
	s := open(t, testOptions(nil))
	do(t, s, 1, put("k", "v"))
	closeStore(t, s)
	closeStore(t, s)
	b := bufpool.Get(0)
	defer b.Release()
	_, _, readErr := s.Append(b, 0, []byte("k"), 1, command.AnyValue)
	_, _, sumErr := s.Checksum(0)
	for name, err := range map[string]error{
		"apply":       s.Apply([]Entry{{Index: 2}}, &delivered{}),
		"flush":       s.Flush(),
		"flush async": s.FlushAsync(),
		"read":        readErr,
		"scan":        s.Scan(ScanOptions{Shards: []int{0}}, nil),
		"checksum":    sumErr,
	} {
		if !errors.Is(err, ErrClosed) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, hit := s.AppendCached(b, 0, []byte("k"), 1, true); hit != command.ReadMiss {
		t.Errorf("cache: %v", hit)
	}
	if s.Stats() != (Stats{}) || s.Applied(0) != 1 || s.Durable(0) != 1 {
		t.Errorf("%+v, applied %d, durable %d", s.Stats(), s.Applied(0), s.Durable(0))
	}
}

// Readers, scans and flushes while the store is closed: an answer or ErrClosed.
func TestCloseDuringUse(t *testing.T) {
	s := open(t, testOptions(nil))
	do(t, s, 1, put("k", "v"))
	var wg sync.WaitGroup
	use := func(f func() error) {
		wg.Go(func() {
			for {
				if err := f(); err != nil {
					if !errors.Is(err, ErrClosed) {
						t.Error(err)
					}
					return
				}
			}
		})
	}
	started := make(chan struct{}, 100)
	use(func() error {
		b := bufpool.Get(0)
		defer b.Release()
		_, _, err := s.Append(b, 0, []byte("absent"), 1, command.AnyValue)
		s.AppendCached(b, 0, []byte("k"), 1, true)
		return err
	})
	use(func() error {
		return s.Scan(ScanOptions{Shards: []int{0, 1}}, func(_, _ []byte, _ command.Row) bool { return true })
	})
	use(func() error {
		select {
		case started <- struct{}{}:
		default:
		}
		_, _, err := s.Checksum(0)
		return err
	})
	use(s.FlushAsync)
	for range 50 {
		<-started
	}
	closeStore(t, s)
	wg.Wait()
}

func TestFlushTellsWhenDurableIsUpToDate(t *testing.T) {
	o := testOptions(nil)
	var s *Store
	flushed := make(chan [2]uint64, 100)
	o.OnFlush = func() { flushed <- [2]uint64{s.Durable(0), s.Durable(1)} }
	s = open(t, o)
	defer closeStore(t, s)
	do(t, s, 1, put("k", "v"))
	if s.Durable(0) != 0 {
		t.Error("durable without a flush")
	}
	if err := s.FlushAsync(); err != nil {
		t.Fatal(err)
	}
	for d := range flushed {
		if d == [2]uint64{1, 0} {
			break
		}
	}
	// And by itself, when a table is full, though with one row.
	for range 300 {
		do(t, s, 1, put("k", strings.Repeat("v", 10<<10)))
	}
	for timeout := time.After(30 * time.Second); s.Durable(0) < 5; {
		select {
		case <-flushed:
		case <-timeout:
			t.Fatal("never flushes")
		}
	}
}

func TestCleanRestartReplaysNothing(t *testing.T) {
	s := open(t, testOptions(nil))
	do(t, s, 77, put("k", "v"), putTTL("j", "w", 5))
	s = reopen(t, s)
	defer closeStore(t, s)
	next, _ := s.NextExpiry(0)
	diff(t, "state", []uint64{s.Applied(0), s.Durable(0), s.LastStamp(0), s.Applied(1), next}, []uint64{1, 1, 77, 0, 82})
	diff(t, "version goes on", do(t, s, 78, put("k", "x")), results{ok(3)})
}

func TestVerify(t *testing.T) {
	fill := func() vfs.FS {
		mem := vfs.NewMem()
		s := open(t, testOptions(mem))
		for i := range 300 {
			do(t, s, uint64(i), in(uint64(i%3+1), uint64(i+1), 0, putTTL(fmt.Sprint("key", i), strings.Repeat("v", 100), 1e6)), incr("n", 1))
		}
		closeStore(t, s)
		return mem
	}
	check := func(fs vfs.FS, shards int) (findings []string, applied []uint64, err error) {
		applied, err = Verify(Options{FS: fs, Dir: "data", Shards: shards}, func(s string) { findings = append(findings, s) })
		return
	}

	fs := fill()
	findings, applied, err := check(fs, 2)
	if err != nil || len(findings) != 0 || applied[0] != 300 || applied[1] != 0 {
		t.Fatalf("sound: %v, applied %d, error %v", findings, applied, err)
	}
	if _, _, err := check(fs, 0); err == nil || errors.Is(err, ErrCorrupt) {
		t.Errorf("0 shards: %v", err)
	}
	if _, err := Verify(Options{FS: fs, Dir: "elsewhere", Shards: 2}, nil); err == nil || errors.Is(err, ErrCorrupt) {
		t.Errorf("no database: %v", err)
	}
	running := open(t, testOptions(fs))
	if _, _, err := check(fs, 2); err == nil || errors.Is(err, ErrCorrupt) {
		t.Errorf("in use: %v", err)
	}
	closeStore(t, running)

	// A flipped bit anywhere in a table: in rows, filters, indexes, properties.
	// Pebble then looks for the bit, which takes it a while in a large block.
	table, flips := tableFile(t, fs), 40
	if testing.Short() {
		flips = 8
	}
	for at := 0; at < len(table.content); at += 1 + len(table.content)/flips {
		damaged := bytes.Clone(table.content)
		damaged[at] ^= 0x10
		writeFile(t, fs, table.path, damaged)
		if findings, _, err := check(fs, 2); !errors.Is(err, ErrCorrupt) || len(findings) == 0 {
			t.Errorf("byte %d of %d flipped: %v, findings %q", at, len(damaged), err, findings)
		}
	}
	writeFile(t, fs, table.path, table.content[:len(table.content)/2])
	if findings, _, err := check(fs, 2); !errors.Is(err, ErrCorrupt) || len(findings) == 0 {
		t.Errorf("half a table: %v, findings %q", err, findings)
	}
	if err := fs.Remove(table.path); err != nil {
		t.Fatal(err)
	}
	if findings, _, err := check(fs, 2); !errors.Is(err, ErrCorrupt) || len(findings) == 0 {
		t.Errorf("no table: %v, findings %q", err, findings)
	}
}

// Records that Pebble finds nothing wrong with.
func TestVerifyRecords(t *testing.T) {
	row := func(version uint64) []byte {
		b := make([]byte, rowHeaderBytes)
		putRowHeader(b, version, 0)
		return b
	}
	for name, record := range map[string][2][]byte{
		"row of another format": {appendDataKey(nil, 0, []byte("k")), {9, 1, 2, 3}},
		"row cut short":         {appendDataKey(nil, 0, []byte("k")), row(1)[:10]},
		"row from the future":   {appendDataKey(nil, 0, []byte("k")), row(2)},
		"row without a version": {appendDataKey(nil, 0, []byte("k")), row(0)},
		"row without a key":     {appendDataKey(nil, 0, nil), row(1)},
		"expiry without a key":  {appendExpiryBound(nil, 0, 5), nil},
		"expiry with a value":   {append(appendExpiryBound(nil, 0, 5), 'k'), {1}},
		"short session key":     {appendPrefix(nil, 0, kindSession), nil},
		"short session record":  {appendSessionKey(nil, 0, 1, 1, 0), {sessionRecordFormat}},
		"session result":        {appendSessionKey(nil, 0, 1, 1, 0), append(bytes.Repeat([]byte{1}, 1), append(make([]byte, 16), 0xff, 0)...)},
		"long state key":        {append(appendPrefix(nil, 0, kindMeta), 1), make([]byte, metaBytes)},
		"unknown kind":          {appendDataKey([]byte{}, 0, nil)[:2:2], nil},
		"kind z":                {appendPrefix(nil, 1, 'z'), nil},
		"shard beyond":          {appendDataKey(nil, 2, []byte("k")), row(1)},
		"state of shard 1":      {appendPrefix(nil, 1, kindMeta), {1, 2}},
	} {
		mem := vfs.NewMem()
		s := open(t, testOptions(mem))
		do(t, s, 1, put("a", "b"))
		if err := errors.Join(s.db.Set(record[0], record[1], pebble.NoSync), s.db.Flush()); err != nil {
			t.Fatal(err)
		}
		if err := s.Close(); err != nil && !errors.Is(err, ErrCorrupt) { // it may find out by itself
			t.Fatal(err)
		}
		var findings []string
		_, err := Verify(Options{FS: mem, Dir: "data", Shards: 2}, func(s string) { findings = append(findings, s) })
		if !errors.Is(err, ErrCorrupt) || len(findings) != 1 && name != "state of shard 1" {
			t.Errorf("%s: %v, findings %q", name, err, findings)
		}
	}
}

type file struct {
	path    string
	content []byte
}

func tableFile(t *testing.T, fs vfs.FS) file {
	t.Helper()
	names, err := fs.List("data")
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range names {
		if strings.HasSuffix(name, ".sst") {
			path := fs.PathJoin("data", name)
			f, err := fs.Open(path)
			if err != nil {
				t.Fatal(err)
			}
			defer f.Close()
			content, err := io.ReadAll(f)
			if err != nil {
				t.Fatal(err)
			}
			return file{path, content}
		}
	}
	t.Fatal("no table")
	return file{}
}

func writeFile(t *testing.T, fs vfs.FS, path string, content []byte) {
	t.Helper()
	f, err := fs.Create(path, vfs.WriteCategoryUnspecified)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.Write(content); err != nil {
		t.Fatal(err)
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
}
