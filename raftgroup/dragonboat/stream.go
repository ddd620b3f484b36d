package dragonboat

import (
	"bufio"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"sync"

	"github.com/lni/dragonboat/v4/statemachine"

	"github.com/proa-kv/proa/command"
	"github.com/proa-kv/proa/raftgroup/dragonboat/transport"
	"github.com/proa-kv/proa/storage"
)

// # Snapshots
//
// A snapshot that is sent is the same stream of chunks that storage exports for every
// engine. dragonboat cuts what the state machine writes into chunks of its own, and its
// transport has them go through a connection for snapshots between nodes, as those of
// etcd's engine do; on the other side dragonboat puts them into a file, from which the
// state machine reads. A transfer that broke off begins anew.
//
// What the state machine writes:
//
//	u64 view, u64 index
//	u32 length, chunk …
//	u32 0

const stateHeadBytes = 16

// errState says that a snapshot that was received is none.
var errState = errors.New("a snapshot that was received is damaged")

// writeState writes a view.
func writeState(w io.Writer, view *storage.View, stopped <-chan struct{}) error {
	head := binary.LittleEndian.AppendUint64(nil, view.ID())
	head = binary.LittleEndian.AppendUint64(head, view.Applied())
	if _, err := w.Write(head); err != nil {
		return err
	}
	var length [4]byte
	err := view.Export(func(chunk []byte) error {
		select {
		case <-stopped:
			return statemachine.ErrSnapshotStopped
		default:
		}
		binary.LittleEndian.PutUint32(length[:], uint32(len(chunk)))
		if _, err := w.Write(length[:]); err != nil {
			return err
		}
		_, err := w.Write(chunk)
		return err
	}, nil)
	if err != nil {
		return err
	}
	clear(length[:])
	_, err = w.Write(length[:])
	return err
}

// readState stages what writeState has written, and returns the index it is of.
func readState(r io.Reader, store *storage.Store, shard int, stopped <-chan struct{}) (index uint64, in *storage.Install, err error) {
	b := bufio.NewReaderSize(r, 64<<10)
	var head [stateHeadBytes]byte
	if _, err := io.ReadFull(b, head[:]); err != nil {
		return 0, nil, fmt.Errorf("%w: %w", errState, err)
	}
	index = binary.LittleEndian.Uint64(head[8:])
	in, err = beginAnew(store, shard, binary.LittleEndian.Uint64(head[:]), index)
	if err != nil {
		return 0, nil, err
	}
	err = stage(b, in, stopped)
	if err == nil {
		err = in.Finish()
	}
	if err != nil {
		return 0, nil, errors.Join(err, in.Abort())
	}
	return index, in, nil
}

// beginAnew begins to stage the state of a view from its first chunk. What a process has
// staged of the same one, before it ended, is removed: the file is read from its beginning.
func beginAnew(store *storage.Store, shard int, view, index uint64) (*storage.Install, error) {
	meta := storage.InstallMeta{Index: index}
	in, err := store.BeginInstall(shard, view, meta)
	if err != nil || in.Token() == nil {
		return in, err
	}
	if err := in.Abort(); err != nil {
		return nil, err
	}
	return store.BeginInstall(shard, view, meta)
}

func stage(r io.Reader, in *storage.Install, stopped <-chan struct{}) error {
	var chunk []byte
	var length [4]byte
	for {
		select {
		case <-stopped:
			return statemachine.ErrSnapshotStopped
		default:
		}
		if _, err := io.ReadFull(r, length[:]); err != nil {
			return fmt.Errorf("%w: %w", errState, err)
		}
		n := int(binary.LittleEndian.Uint32(length[:]))
		if n == 0 {
			return nil
		}
		if n > 2*storage.ChunkBytesMax {
			return fmt.Errorf("%w: a chunk of %d bytes", errState, n)
		}
		if cap(chunk) < n {
			chunk = make([]byte, n)
		}
		chunk = chunk[:n]
		if _, err := io.ReadFull(r, chunk); err != nil {
			return fmt.Errorf("%w: %w", errState, err)
		}
		if err := in.Write(chunk); err != nil {
			return err
		}
	}
}

// links is the connections between nodes as dragonboat's transport sees them.
type links struct{ engine *Engine }

var _ transport.Links = links{}

// Connected returns nil, also where there is no connection: dragonboat would send nothing to
// the node for up to a second after it is back. See Send.
func (l links) Connected(uint64) error { return nil }

// Send sends a frame of messages to a node. What cannot be sent is lost, as messages may be;
// the node's own connections tell that the other one is away.
func (l links) Send(node uint64, frame []byte) error {
	if l.engine.failed() {
		return command.ErrFailed
	}
	_ = l.engine.Transport.SendFrame(node, frame)
	return nil
}

// Stream opens a stream for the chunks of a snapshot.
func (l links) Stream(ctx context.Context, node uint64) (transport.Stream, error) {
	if l.engine.failed() {
		return nil, command.ErrFailed
	}
	s := &stream{frames: make(chan []byte), ended: make(chan struct{})}
	s.ctx, s.cancel = context.WithCancel(l.engine.ctx)
	context.AfterFunc(ctx, s.cancel)
	l.engine.Transport.SendSnapshot(node, s)
	return s, nil
}

// stream is a snapshot on its way to another node: dragonboat's transport writes its
// chunks, the connection's goroutine takes them. See engine.OutgoingSnapshot.
type stream struct {
	ctx    context.Context
	cancel context.CancelFunc
	frames chan []byte
	once   sync.Once
	err    error
	ended  chan struct{} // closed after err has been set

	closing sync.Once
}

// Context ends when the transfer has lost its sense.
func (s *stream) Context() context.Context { return s.ctx }

// streamHeader is the header of a stream of dragonboat's chunks: each says whose it is.
var streamHeader = []byte("dragonboat\x01")

// Header returns what the receiver's BeginSnapshot takes.
func (s *stream) Header() []byte { return streamHeader }

// Export writes the chunks.
func (s *stream) Export(_ []byte, write func([]byte) error) error {
	for {
		select {
		case <-s.ctx.Done():
			return s.ctx.Err()
		case frame, ok := <-s.frames:
			if !ok {
				return nil
			}
			if err := write(frame); err != nil {
				return err
			}
		}
	}
}

// Done says how the transfer has ended.
func (s *stream) Done(err error) {
	s.once.Do(func() {
		s.err = err
		close(s.ended)
		s.cancel()
	})
}

// Send sends a chunk, and waits until there is room for another.
func (s *stream) Send(frame []byte) error {
	select {
	case s.frames <- frame:
		return nil
	case <-s.ended:
		return errors.Join(errStreamEnded, s.err)
	case <-s.ctx.Done():
		return s.ctx.Err()
	}
}

// errStreamEnded says that the receiver wants no more.
var errStreamEnded = errors.New("the transfer of the snapshot has ended")

// Close ends the stream.
func (s *stream) Close() { s.closing.Do(func() { close(s.frames) }) }
