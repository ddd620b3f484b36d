package peer

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// chunkOf returns what the tests send as chunk i.
func chunkOf(i int) []byte { return bytes.Repeat([]byte{byte(i)}, 1+i*1000) }

// exporter sends chunks up to n, from the one that the token names.
func exporter(n int) func([]byte, func([]byte) error) error {
	return func(token []byte, write func([]byte) error) error {
		first := 0
		if len(token) > 0 {
			first, _ = strconv.Atoi(string(token))
		}
		for i := first; i < n; i++ {
			if err := write(chunkOf(i)); err != nil {
				return fmt.Errorf("chunk %d: %w", i, err)
			}
		}
		return nil
	}
}

// staging receives chunks and keeps them across transfers.
type staging struct {
	mu     sync.Mutex
	chunks int
	header string
	stop   func(chunks int) error // may fail the transfer
}

func (st *staging) staged() (chunks int, header string) {
	st.mu.Lock()
	defer st.mu.Unlock()
	return st.chunks, st.header
}

func (st *staging) receive(from uint64, header []byte, s *Incoming) error {
	st.mu.Lock()
	defer st.mu.Unlock()
	st.header = fmt.Sprintf("%d %s", from, header)
	if err := s.Resume([]byte(strconv.Itoa(st.chunks))); err != nil {
		return err
	}
	for {
		chunk, err := s.Next()
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return err
		}
		if !bytes.Equal(chunk, chunkOf(st.chunks)) {
			return fmt.Errorf("chunk %d has %d bytes", st.chunks, len(chunk))
		}
		st.chunks++
		if st.stop != nil {
			if err := st.stop(st.chunks); err != nil {
				return err
			}
		}
	}
}

func snapshotPair(t *testing.T, st *staging, setup func(*Config)) (a, b *testNode) {
	b = startNode(t, 2, func(c *Config, h *testHandler) { h.snapshot = st.receive })
	a = startNode(t, 1, func(c *Config, _ *testHandler) {
		if setup != nil {
			setup(c)
		}
	})
	a.SetPeer(2, b.address())
	return a, b
}

func TestSnapshot(t *testing.T) {
	var st staging
	a, _ := snapshotPair(t, &st, func(c *Config) { c.SnapshotBytesPerSecond = 1 << 40 })
	if err := a.SendSnapshot(t.Context(), 2, []byte("shard 3"), exporter(100)); err != nil {
		t.Fatal(err)
	}
	if chunks, header := st.staged(); chunks != 100 || header != "1 shard 3" {
		t.Fatal(chunks, header)
	}
	err := a.SendSnapshot(t.Context(), 2, nil, exporter(100)) // nothing is left to send
	if chunks, _ := st.staged(); err != nil || chunks != 100 {
		t.Fatal(chunks, err)
	}
}

// After a cut the receiver says from where to go on.
func TestSnapshotResumesAfterACut(t *testing.T) {
	var st staging
	cut := make(chan struct{}, 1)
	var a, b *testNode
	st.stop = func(chunks int) error {
		if chunks == 30 {
			select {
			case cut <- struct{}{}:
				for _, c := range snapshotConns(b.Transport) {
					c.Close()
				}
			default:
			}
		}
		return nil
	}
	a, b = snapshotPair(t, &st, nil)
	err := a.SendSnapshot(t.Context(), 2, nil, exporter(200))
	if err == nil {
		t.Fatal("the cut was not noticed")
	}
	b.log.wait(t, "snapshot was not received")
	first := -1
	err = a.SendSnapshot(t.Context(), 2, nil, func(token []byte, write func([]byte) error) error {
		first, _ = strconv.Atoi(string(token))
		return exporter(200)(token, write)
	})
	if chunks, _ := st.staged(); err != nil || chunks != 200 || first < 30 || first == 200 {
		t.Fatal(first, chunks, err)
	}
}

// snapshotConns returns the accepted connections that carry no Raft messages.
func snapshotConns(t *Transport) (out []io.Closer) {
	t.mu.Lock()
	defer t.mu.Unlock()
	raft := map[any]bool{}
	for _, in := range t.inbound {
		raft[in.conn] = true
	}
	for c := range t.conns {
		if !raft[c] && c.LocalAddr().String() == t.Addr().String() {
			out = append(out, c)
		}
	}
	return out
}

func TestSnapshotErrors(t *testing.T) {
	full := &staging{stop: func(n int) error {
		if n == 3 {
			return errors.New("the disk is full")
		}
		return nil
	}}
	a, b := snapshotPair(t, full, nil)
	var remote *RemoteError
	err := a.SendSnapshot(t.Context(), 2, nil, exporter(2000))
	if !errors.As(err, &remote) || remote.Text != "the disk is full" {
		t.Fatal(err)
	}
	b.log.wait(t, "the disk is full")

	a, b = snapshotPair(t, &staging{}, nil)
	gone := errors.New("the view was closed")
	err = a.SendSnapshot(t.Context(), 2, nil, func([]byte, func([]byte) error) error { return gone })
	if !errors.Is(err, gone) {
		t.Fatal(err)
	}
	b.log.wait(t, "the view was closed")

	err = a.SendSnapshot(t.Context(), 2, nil, func(_ []byte, write func([]byte) error) error {
		write(make([]byte, SnapshotChunkBytesMax+1))
		return nil // write's error counts
	})
	if !errors.Is(err, ErrTooLarge) {
		t.Fatal(err)
	}
	if err := a.SendSnapshot(t.Context(), 2, make([]byte, SnapshotHeaderBytesMax+1), nil); !errors.Is(err, ErrTooLarge) {
		t.Fatal(err)
	}
	if err := a.SendSnapshot(t.Context(), 9, nil, nil); !errors.Is(err, ErrUnknownPeer) {
		t.Fatal(err)
	}
}

func TestSnapshotAtItsLimits(t *testing.T) {
	header, token, chunk := make([]byte, SnapshotHeaderBytesMax), make([]byte, SnapshotHeaderBytesMax), make([]byte, SnapshotChunkBytesMax)
	b := startNode(t, 2, func(_ *Config, h *testHandler) {
		h.snapshot = func(_ uint64, header []byte, s *Incoming) error {
			if _, err := s.Next(); err == nil || len(header) != SnapshotHeaderBytesMax {
				return errors.New("Next before Resume")
			}
			if err := s.Resume(make([]byte, SnapshotHeaderBytesMax+1)); !errors.Is(err, ErrTooLarge) {
				return fmt.Errorf("a large token: %v", err)
			}
			if err := s.Resume(token); err != nil {
				return err
			}
			if s.Resume(nil) == nil {
				return errors.New("Resume twice")
			}
			c, err := s.Next()
			if err != nil || len(c) != SnapshotChunkBytesMax {
				return fmt.Errorf("%d bytes, %w", len(c), err)
			}
			for range 2 { // and it stays at the end
				if _, err := s.Next(); err != io.EOF {
					return fmt.Errorf("after the end: %w", err)
				}
			}
			return nil
		}
	})
	a := startNode(t, 1, nil)
	a.SetPeer(2, b.address())
	err := a.SendSnapshot(t.Context(), 2, header, func(got []byte, write func([]byte) error) error {
		if len(got) != SnapshotHeaderBytesMax {
			return fmt.Errorf("a token of %d bytes", len(got))
		}
		return write(chunk)
	})
	if err != nil {
		t.Fatal(err)
	}
}

// With one place, a second transfer waits, however long, until the first is
// over: both sides say that they live.
func TestSnapshotsWaitForTheirTurn(t *testing.T) {
	inTime(t, func(silence time.Duration) error {
		first, proceed := make(chan uint64, 2), make(chan struct{})
		b := startNode(t, 2, func(c *Config, h *testHandler) {
			c.SnapshotsIn, c.SilenceTimeout = 1, silence
			h.snapshot = func(from uint64, _ []byte, s *Incoming) error {
				first <- from
				if err := s.Resume(nil); err != nil {
					return err
				}
				<-proceed
				_, err := s.Next()
				if err != io.EOF {
					return err
				}
				return nil
			}
		})
		errs := make(chan error, 2)
		for id := range uint64(2) {
			a := startNode(t, 10+id, func(c *Config, _ *testHandler) { c.SilenceTimeout = silence })
			a.SetPeer(2, b.address())
			go func() { errs <- a.SendSnapshot(t.Context(), 2, nil, exporter(0)) }()
		}
		receive(t, first)
		select {
		case <-first:
			t.Error("two at a time")
		case <-time.After(3 * silence):
		}
		close(proceed)
		return errors.Join(receive(t, errs), receive(t, errs))
	})
}

// The transfer ends with its context, with its peer and with the transport,
// wherever it waits.
func TestSnapshotIsEnded(t *testing.T) {
	for name, end := range map[string]func(cancel func(), a, b *testNode){
		"by its context":   func(cancel func(), _, _ *testNode) { cancel() },
		"with its peer":    func(_ func(), a, _ *testNode) { a.RemovePeer(2) },
		"by the sender":    func(_ func(), a, _ *testNode) { go a.Close() },
		"by the recipient": func(_ func(), _, b *testNode) { go b.Close() },
	} {
		t.Run(name, func(t *testing.T) {
			var st staging
			a, b := snapshotPair(t, &st, func(c *Config) { c.SnapshotBytesPerSecond = 1 })
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			started := make(chan struct{})
			result := make(chan error, 1)
			go func() {
				result <- a.SendSnapshot(ctx, 2, nil, func(_ []byte, write func([]byte) error) error {
					if err := write(chunkOf(0)); err != nil {
						return err
					}
					close(started)
					for { // a second each
						if err := write(chunkOf(0)); err != nil {
							return err
						}
					}
				})
			}()
			receive(t, started)
			end(cancel, a, b)
			if err := receive(t, result); err == nil {
				t.Fatal("no error")
			} else if name == "by its context" && !errors.Is(err, context.Canceled) {
				t.Fatal(err)
			}
		})
	}
}

// A sender that is slow for longer than silence may last is not taken for dead.
func TestSlowExport(t *testing.T) {
	inTime(t, func(silence time.Duration) error {
		var st staging
		b := startNode(t, 2, func(c *Config, h *testHandler) {
			c.SilenceTimeout, h.snapshot = silence, st.receive
		})
		a := startNode(t, 1, func(c *Config, _ *testHandler) { c.SilenceTimeout = silence })
		a.SetPeer(2, b.address())
		err := a.SendSnapshot(t.Context(), 2, nil, func(token []byte, write func([]byte) error) error {
			<-time.After(4 * silence)
			return exporter(3)(token, write)
		})
		if chunks, _ := st.staged(); err == nil && chunks != 3 {
			t.Errorf("%d chunks", chunks)
		}
		return err
	})
}

// inTime calls try with longer and longer times until it succeeds: on a busy
// machine a node may be silent for any time.
func inTime(t *testing.T, try func(d time.Duration) error) {
	t.Helper()
	for d := 100 * time.Millisecond; ; d *= 3 {
		err := try(d)
		if err == nil {
			return
		}
		if d > patience/3 {
			t.Fatalf("with %v: %v", d, err)
		}
	}
}

// Silence ends a transfer on either side.
func TestSilentSnapshotEnds(t *testing.T) {
	var st staging
	b := startNode(t, 2, func(c *Config, h *testHandler) {
		c.SilenceTimeout = 50 * time.Millisecond
		h.snapshot = st.receive
	})
	c := rawPeer(t, b, kindSnapshot, identityOf(9))
	header := frameOf(frameSnapshotHeader, nil)
	defer header.Release()
	c.Write(header.B)
	closedByPeer(t, c)
	b.log.wait(t, "snapshot was not received")
}

func TestSnapshotBeginsWithItsHeader(t *testing.T) {
	b := startNode(t, 2, nil)
	c := rawPeer(t, b, kindSnapshot, identityOf(9))
	chunk := frameOf(frameSnapshotChunk, nil)
	defer chunk.Release()
	c.Write(chunk.B)
	b.log.wait(t, "instead of a snapshot's header")
}

func TestPacer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := pacer{rate: 1000}
		began := time.Now()
		var turns strings.Builder
		var mu sync.Mutex
		var all sync.WaitGroup
		for i := range 3 {
			all.Go(func() {
				time.Sleep(time.Duration(i)) // in this order
				for range 4 {
					if err := p.wait(t.Context(), 500); err != nil {
						t.Error(err)
					}
					mu.Lock()
					fmt.Fprint(&turns, i)
					mu.Unlock()
				}
			})
		}
		all.Wait()
		if took := time.Since(began); took != 11*500*time.Millisecond {
			t.Errorf("twelve times 500 bytes at 1000 a second took %v", took)
		}
		// The first one waits for its second span before the others come.
		if turns.String() != "001201201212" {
			t.Errorf("turns %s", turns.String())
		}
		time.Sleep(time.Hour) // nothing is saved up
		began = time.Now()
		p.wait(t.Context(), 1000)
		p.wait(t.Context(), 1000)
		if took := time.Since(began); took != time.Second {
			t.Errorf("after a pause: %v", took)
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Millisecond)
		defer cancel()
		if err := p.wait(ctx, 1); !errors.Is(err, context.DeadlineExceeded) {
			t.Error(err)
		}
	})
	var free pacer
	if err := free.wait(t.Context(), 1<<30); err != nil {
		t.Error(err)
	}
}
