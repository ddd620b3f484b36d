package raftgroup

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"

	"github.com/proa-kv/proa/command"
	"github.com/proa-kv/proa/raftgroup/call"
	"github.com/proa-kv/proa/raftgroup/engine"
	"github.com/proa-kv/proa/storage"
)

// All replicas of a shard have the same state at the same index (A1). To prove
// it on a live cluster the leader proposes a mark. Each replica, when it has
// applied the mark, opens a view of its state, and says the view's checksum
// when it is asked.
//
// A view takes memory, as much as the memtables at worst. So a
// node asks for one checksum at a time, has one view for checksums open, and
// refuses the mark of another leader meanwhile, which then tries again.

// marksKept bounds the outcomes that wait to be asked for.
const marksKept = 4

// markWait bounds how long a checksum is computed, and how long it is waited
// for.
const markWait = time.Minute

// checksumsWaitingMax bounds the checksum requests that wait for their turn on
// a node.
const checksumsWaitingMax = 4

// Between marks, where a replica was busy with another checksum.
const (
	markRetryMin = 20 * time.Millisecond
	markRetryMax = time.Second
)

// errManyChecksums refuses a request for a checksum where others wait.
var errManyChecksums error = &call.Error{Class: command.ErrBusy, Text: fmt.Sprintf("%d checksum requests are already waiting on this node, which computes one at a time; try again later", checksumsWaitingMax)}

// errChecksumBusy refuses a mark.
var errChecksumBusy error = &call.Error{Class: command.ErrBusy, Text: "the replica's node is computing another checksum and computes one at a time; try again"}

// checksumTurns lets one request for a checksum run at a time, and the others
// in the order in which they came.
type checksumTurns struct {
	turn    chan struct{} // has capacity 1, and is full while one runs
	waiting atomic.Int32
}

// begin waits for the turn, which done ends. The error is errManyChecksums, or
// ErrTimeout when ctx ends first.
func (c *checksumTurns) begin(ctx context.Context) error {
	select {
	case c.turn <- struct{}{}:
		return nil
	default:
	}
	defer c.waiting.Add(-1)
	if c.waiting.Add(1) > checksumsWaitingMax {
		return errManyChecksums
	}
	select {
	case c.turn <- struct{}{}:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("%w: this node was busy with other checksums the whole time; try again later", command.ErrTimeout)
	}
}

func (c *checksumTurns) done() { <-c.turn }

// marks are the marks that a replica has come by.
type marks struct {
	mu   sync.Mutex
	list []mark
}

type mark struct {
	index uint64
	sum   chan checksumOutcome // capacity 1
}

type checksumOutcome struct {
	sum uint64
	err error
}

// markApplied opens a view of the state as the mark just applied found it, unless
// the node has one open.
func (ad *admin) markApplied(shard int, index uint64) {
	n := ad.node
	m := mark{index, make(chan checksumOutcome, 1)}
	if !n.state.Set(summing) {
		m.sum <- checksumOutcome{0, errChecksumBusy}
	} else if view, err := n.store.OpenView(shard); err != nil {
		n.state.Clear(summing)
		m.sum <- checksumOutcome{0, err}
	} else {
		n.background.Go(func() {
			sum, err := n.sum(view)
			n.state.Clear(summing) // before the outcome: who has it may ask for another
			m.sum <- checksumOutcome{sum, err}
		})
	}
	ms := &ad.marks[shard]
	ms.mu.Lock()
	defer ms.mu.Unlock()
	if len(ms.list) == marksKept {
		ms.list = append(ms.list[:0], ms.list[1:]...)
	}
	ms.list = append(ms.list, m)
}

// sum returns the checksum of a view, and closes it.
func (ad *admin) sum(view *storage.View) (uint64, error) {
	defer view.Close()
	ctx, cancel := context.WithTimeout(ad.node.ctx, markWait)
	defer cancel()
	sum, err := view.Checksum(ctx)
	switch {
	case ad.node.ctx.Err() != nil:
		err = command.ErrStopped
	case ctx.Err() != nil:
		err = fmt.Errorf("%w: reading the whole replica took longer than %v", command.ErrTimeout, markWait)
	}
	return sum, err
}

// find returns the outcome of the mark at index. passed is true if it is not
// there and will not come any more, since the replica has applied what came then.
func (m *marks) find(index uint64, v *engine.View) (sum chan checksumOutcome, passed bool) {
	beyond := v.Applied.Load() // before the look at the list
	m.mu.Lock()
	defer m.mu.Unlock()
	for i := range m.list {
		if m.list[i].index == index {
			return m.list[i].sum, false
		}
	}
	return nil, beyond >= index
}

func (ad *admin) answerChecksum(ctx context.Context, body []byte) ([]byte, error) {
	var a checksumArgs
	if err := parseArgs(body, &a); err != nil {
		return nil, err
	}
	if a.Shard < 0 || a.Shard >= len(ad.node.views) {
		return nil, fmt.Errorf("%w: there is no shard %d", command.ErrInvalid, a.Shard)
	}
	sum, err := ad.checksumAt(ctx, a.Shard, a.Index)
	if err != nil {
		return nil, err
	}
	return json.Marshal(command.ReplicaChecksum{Node: ad.node.id, Checksum: sum})
}

// checksumAt waits until this replica has come by the mark at index.
func (ad *admin) checksumAt(ctx context.Context, shard int, index uint64) (uint64, error) {
	ctx, cancel := context.WithTimeout(ctx, markWait)
	defer cancel()
	var found chan checksumOutcome
	passed := false
	err := ad.node.await(ctx, func() bool {
		found, passed = ad.marks[shard].find(index, ad.node.views[shard])
		return found != nil || passed
	})
	switch {
	case err != nil:
		return 0, fmt.Errorf("%w: the replica has not yet applied entry %d", command.ErrTimeout, index)
	case found == nil:
		return 0, fmt.Errorf("%w: the replica skipped entry %d by installing a snapshot; try again", command.ErrRefused, index)
	}
	select {
	case o := <-found:
		found <- o // for who asks next
		return o.sum, o.err
	case <-ctx.Done():
		return 0, fmt.Errorf("%w: the replica is still reading", command.ErrTimeout)
	}
}

// indexed gets the index at which a command was applied.
type indexed struct {
	engine engine.Conductor
	shard  int
	done   chan uint64 // 0: it was not
}

// Complete passes the index on.
func (i indexed) Complete(_ command.Tag, o command.Outcome, _ *command.Result) {
	if o != command.Applied {
		i.done <- 0
		return
	}
	i.done <- i.engine.Applying(i.shard)
}

// adminChecksum compares the replicas of a shard that this node leads, when it
// is its turn. Where a replica is busy with another leader's mark it tries again
// until ctx ends.
func (ad *admin) adminChecksum(ctx context.Context, shard int) (any, error) {
	if err := ad.checksums.begin(ctx); err != nil {
		return nil, err
	}
	defer ad.checksums.done()
	wait := markRetryMin
	for {
		out, busy, err := ad.compare(ctx, shard)
		if err != nil || !busy {
			return out, err
		}
		select {
		case <-time.After(wait/2 + rand.N(wait)):
			wait = min(2*wait, markRetryMax)
		case <-ctx.Done():
			return out, nil
		}
	}
}

// compare compares the replicas of a shard at a mark. busy says that one of
// them had another checksum to compute.
func (ad *admin) compare(ctx context.Context, shard int) (out *command.ShardChecksum, busy bool, err error) {
	index, err := ad.proposeMark(ctx, shard)
	if err != nil {
		return nil, false, err
	}
	out = &command.ShardChecksum{Shard: shard, Index: index, Equal: true}
	if shard == ad.node.meta() {
		out.Shard = command.MetaShard
	}
	nodes := ad.node.cmap.Load().Shards[shard].Nodes()
	replies, errs := make([]command.ReplicaChecksum, len(nodes)), make([]error, len(nodes))
	var wg sync.WaitGroup
	for i, node := range nodes {
		wg.Go(func() { replies[i], errs[i] = ad.checksumOf(ctx, node, shard, index) })
	}
	wg.Wait()
	first := ""
	for _, r := range replies {
		if r.Error != "" {
			continue
		}
		text := fmt.Sprint(r.Checksum)
		if first == "" {
			first = text
		}
		out.Equal = out.Equal && text == first
	}
	out.Replicas = replies
	return out, errors.Is(errors.Join(errs...), command.ErrBusy), nil
}

// proposeMark returns the index of a mark that this node has applied.
func (ad *admin) proposeMark(ctx context.Context, shard int) (index uint64, err error) {
	done := make(chan uint64, 1)
	c := command.Command{Kind: command.Mark}
	if err := ad.node.propose(shard, &c, indexed{ad.node.engine, shard, done}, command.Tag{}); err != nil {
		return 0, err
	}
	ad.node.Kick()
	select {
	case index = <-done:
	case <-ctx.Done():
		return 0, fmt.Errorf("%w: %s did not answer in time", command.ErrTimeout, ad.node.shardName(shard))
	}
	if index == 0 {
		return 0, fmt.Errorf("%w: %s changed its leader; try again", command.ErrNotLeader, ad.node.shardName(shard))
	}
	return index, nil
}

// checksumOf asks a replica, whose reply has the text of the error, too.
func (ad *admin) checksumOf(ctx context.Context, node uint64, shard int, index uint64) (r command.ReplicaChecksum, err error) {
	r.Node = node
	if node == ad.node.id {
		r.Checksum, err = ad.checksumAt(ctx, shard, index)
	} else {
		var body, reply []byte
		if body, err = json.Marshal(checksumArgs{shard, index}); err == nil {
			if reply, err = ad.node.call(ctx, node, call.Checksum, body); err == nil {
				err = json.Unmarshal(reply, &r)
			}
		}
	}
	if err != nil {
		r.Error = err.Error()
	}
	return r, err
}
