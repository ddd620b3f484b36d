package storage

import (
	"errors"
	"fmt"
	"log/slog"
	"reflect"
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/vfs/atomicfs"
)

// abandonDelay is how long Close waits for a store that has failed.
const abandonDelay = time.Second

var errAbandoned = errors.New("storage: a write to the database is still blocked; the database was left open")

// fatalState remembers the first fatal error and tells the owner once, or has
// Open return it.
type fatalState struct {
	logger  *slog.Logger
	onFatal func(error)
	once    sync.Once
	err     atomic.Pointer[error]
	raised  chan struct{} // closed when err is set

	wreck   sync.Once
	wrecked chan struct{} // closed when Pebble has stopped halfway

	opening sync.Mutex // guards opened
	opened  bool       // Open is about to return the store
}

func (f *fatalState) init(o Options) {
	f.logger, f.onFatal = o.Logger, o.OnFatal
	f.raised = make(chan struct{})
	f.wrecked = make(chan struct{})
}

// raise records and logs err and calls the owner's function from a goroutine of
// its own, since the caller may hold Pebble's mutex. Only the first call does
// anything: Pebble repeats failed work at once and without end. While the store
// is opened there is no owner yet.
func (f *fatalState) raise(message string, err error) {
	f.once.Do(func() {
		f.opening.Lock()
		defer f.opening.Unlock()
		_ = f.record(err)
		if !f.opened {
			return
		}
		f.logger.Error(message, "error", err)
		if f.onFatal != nil {
			go f.onFatal(err)
		}
	})
}

// open says that the owner is to be told from here on. It returns what there
// would have been to tell.
func (f *fatalState) open() error {
	f.opening.Lock()
	defer f.opening.Unlock()
	f.opened = true
	return f.get()
}

// isWrecked reports whether the database must not be touched any more.
func (f *fatalState) isWrecked() bool {
	select {
	case <-f.wrecked:
		return true
	default:
		return false
	}
}

// record sets the error without telling the owner, who is about to have it
// returned.
func (f *fatalState) record(err error) error {
	err = fmt.Errorf("%w: %w", ErrFailed, err)
	if f.err.CompareAndSwap(nil, &err) {
		close(f.raised)
	}
	return f.get()
}

func (f *fatalState) get() error {
	if err := f.err.Load(); err != nil {
		return *err
	}
	return nil
}

// pebbleLogger passes Pebble's errors on. Its chatter about flushes and
// compactions is left out; Stats has the figures.
type pebbleLogger struct{ s *Store }

func (l pebbleLogger) Infof(string, ...any) {}

func (l pebbleLogger) Errorf(format string, args ...any) {
	l.s.opts.Logger.Error("pebble", "error", fmt.Sprintf(format, args...))
}

// Fatalf must not return: Pebble calls it with its locks held and its state
// half changed, for example when the manifest cannot be synced.
func (l pebbleLogger) Fatalf(format string, args ...any) {
	l.s.fatal.stop(fatalError(format, args))
}

// stop ends what the calling goroutine does in Pebble, which cannot go on. Below
// open it unwinds, to have the error returned. Elsewhere it keeps the goroutine,
// with Pebble's locks, so that nothing is built on what is half done: the owner
// is told, and Close leaves the database behind. A panic would end the process
// before the owner can say why.
func (f *fatalState) stop(err error) {
	f.wreck.Do(func() { close(f.wrecked) })
	f.raise("storage failed and cannot continue", err)
	if onStack(openFunction) {
		panic(openFatal{err})
	}
	select {}
}

// fatalError keeps the error that a message was made of, so that it can still
// be told what it is.
func fatalError(format string, args []any) error {
	text := fmt.Sprintf("pebble: "+format, args...)
	for _, a := range args {
		if cause, ok := a.(error); ok {
			return &causedError{text, cause}
		}
	}
	return errors.New(text)
}

// causedError is a text with an error behind it.
type causedError struct {
	text  string
	cause error
}

func (e *causedError) Error() string { return e.text }
func (e *causedError) Unwrap() error { return e.cause }

// openFatal is what stop panics with below open.
type openFatal struct{ err error }

// Functions by the names that stacks have for them.
var (
	openFunction = runtime.FuncForPC(reflect.ValueOf((*Store).open).Pointer()).Name()
	moveFunction = runtime.FuncForPC(reflect.ValueOf((*atomicfs.Marker).Move).Pointer()).Name()
)

// onStack reports whether the calling goroutine runs below a function.
func onStack(function string) bool {
	var pcs [128]uintptr
	for frames := runtime.CallersFrames(pcs[:runtime.Callers(1, pcs[:])]); ; {
		frame, more := frames.Next()
		if frame.Function == function {
			return true
		}
		if !more {
			return false
		}
	}
}

// backgroundError takes every failed compaction for fatal, although
// Pebble would try again: a sync that failed once may have lost what it was to
// make durable, and the next one would not say so (D2). What has come to damaged
// data has changed nothing; see damage.go.
func (f *fatalState) backgroundError(err error) {
	if isDamage(err) {
		return
	}
	if errors.Is(err, pebble.ErrCancelledCompaction) || errors.Is(err, pebble.ErrClosed) {
		return
	}
	f.raise("storage compaction or flush failed", err)
}

// failed takes an error of the store's own background work for fatal, unless it
// only says that the store has failed before, or is closed.
func (f *fatalState) failed(message string, err error) {
	if !errors.Is(err, ErrFailed) && !errors.Is(err, ErrClosed) {
		f.raise(message, err)
	}
}

// notify leaves word in a channel of capacity 1.
func notify(c chan<- struct{}) {
	select {
	case c <- struct{}{}:
	default: // there is word already
	}
}
