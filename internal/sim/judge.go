package sim

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing/synctest"
	"time"
)

// wholeWithin bounds the virtual time from the last fault until the cluster is
// whole: every shard has a leader with a lease, configurations are what the map
// wants, replicas are equal. It is long against the ten seconds after which a
// node counts as down and those for which a slow disk leads nothing.
const wholeWithin = 60 * time.Second

var errNotWhole = errors.New("not whole")

// heal ends all faults.
func (s *simulation) heal() {
	s.note("all faults end")
	s.weather = fair
	clear(s.network.cut)
	clear(s.network.slow)
	for _, m := range s.members[1:] {
		m.disk.stalled, m.disk.trap, m.disk.broken = 0, false, false
		if m.paused {
			m.resume()
			s.settle()
		}
	}
	for _, m := range s.members[1:] {
		if m.node == nil && !m.gone {
			m.start()
			s.settle()
		}
	}
}

// judge waits until the cluster is whole, reads every key, and compares the
// replicas.
func (s *simulation) judge() {
	if s.failed() {
		return
	}
	deadline := s.now() + int64(wholeWithin)
	err := errNotWhole
	for s.now() < deadline && err != nil && !s.failed() {
		s.until(s.now() + int64(250*time.Millisecond))
		err = s.whole()
	}
	if s.failed() {
		return
	}
	if err != nil {
		s.problem("the cluster is not whole %v after the last fault: %v\n%s", wholeWithin, err, s.status())
		return
	}
	s.lastReads()
	s.until(s.now() + int64(2*time.Second))
	for _, c := range s.clients {
		if c.op != nil && !s.failed() {
			s.problem("client %d gets no answer from a cluster that is whole: %v", c.id, c.op)
		}
	}
	if !s.failed() {
		s.compare()
		s.judgeCrossings()
	}
}

// whole says what is missing.
func (s *simulation) whole() error {
	for _, c := range s.clients {
		if c.op != nil {
			return fmt.Errorf("client %d waits: %v", c.id, c.op)
		}
	}
	for _, c := range s.crossers {
		if c.op != nil {
			return fmt.Errorf("a client waits for a command over all shards: %+v", *c.op)
		}
	}
	if s.admin != nil {
		return fmt.Errorf("an operator's request is under way")
	}
	for shard := range s.shards() {
		if err := s.wholeShard(shard); err != nil {
			return fmt.Errorf("shard %d: %w", shard, err)
		}
	}
	return nil
}

func (s *simulation) wholeShard(shard int) error {
	var leader *member
	for _, m := range s.up() {
		if m.leased(shard) {
			leader = m
		}
	}
	if leader == nil {
		return fmt.Errorf("no leader with a lease")
	}
	status := leader.node.ClusterStatus()
	info := status.Shards[(shard+1)%s.shards()] // the meta group comes first
	if info.Moving {
		return fmt.Errorf("its configuration is not what the map wants, %v", info.Desired)
	}
	applied := leader.node.Status().Shards[shard].Applied
	for _, id := range info.Desired {
		m := s.members[id]
		if m.node == nil {
			return fmt.Errorf("node %d is down", id)
		}
		if !m.node.Holds(shard) || m.node.Status().Shards[shard].Applied != applied {
			return fmt.Errorf("node %d is behind", id)
		}
	}
	return nil
}

// lastReads has the clients read every key once more.
func (s *simulation) lastReads() {
	i := 0
	for shard := range s.plan.shards {
		keys := []string{counterKey(shard)}
		for k := range registersPerShard {
			keys = append(keys, registerKey(shard, k))
		}
		for _, key := range keys {
			// A client of its own for each, so that all go at once.
			c := &client{
				sim: s, id: len(s.clients) + i, token: make([]uint64, s.plan.shards), hint: make([]uint64, s.plan.shards),
				values: make(map[string]string), versions: make(map[string]uint64), counts: make(map[string]int64),
			}
			s.clients = append(s.clients, c)
			c.issue(&operation{client: c.id, kind: opGet, shard: shard, key: key, called: s.now(), returned: never})
		}
	}
	s.settle()
}

// compare compares the replicas of each shard.
func (s *simulation) compare() {
	for shard := range s.shards() {
		first, at := uint64(0), uint64(0)
		var of *member
		for _, m := range s.up() {
			if !m.node.Holds(shard) {
				continue
			}
			sum, applied, err := m.node.Checksum(shard)
			s.must(err)
			s.note("node %d shard %d at %d", m.id, uint64(shard), applied)
			if of != nil && applied == at && sum != first {
				s.problem("the replicas of shard %d differ at entry %d: %v and %v", shard, at, of, m)
			}
			if of == nil || applied > at {
				of, first, at = m, sum, applied
			}
		}
	}
}

func (s *simulation) status() string {
	var b strings.Builder
	for _, m := range s.members[1:] {
		if m.node == nil {
			fmt.Fprintf(&b, "  %v: down (gone %v)\n", m, m.gone)
			continue
		}
		for _, g := range m.node.Status().Shards {
			if g.Held {
				fmt.Fprintf(&b, "  %v shard %d: leader %d term %d commit %d applied %d log %d–%d leads %v leased %v\n",
					m, g.Shard, g.Leader, g.Term, g.Commit, g.Applied, g.First, g.Last, g.Serving, m.leased(g.Shard))
			}
		}
	}
	if m := s.anyRunning(); m != nil {
		for _, x := range m.node.ClusterStatus().Nodes {
			fmt.Fprintf(&b, "  as %v has it: %+v\n", m, x)
		}
		for _, sh := range m.node.ClusterStatus().Shards {
			fmt.Fprintf(&b, "  as %v has it: %+v\n", m, sh)
		}
	}
	return b.String()
}

// end ends all nodes and goroutines.
func (s *simulation) end() {
	s.over = true
	if s.admin != nil {
		s.admin.cancel()
		synctest.Wait()
	}
	s.breakTransfers(nil)
	for _, m := range s.up() {
		n := m.node
		m.disk.release()
		synctest.Wait()
		m.node = nil
		m.life++
		if err := n.Close(context.Background()); err != nil && !s.failed() && !m.dying {
			s.problem("%v does not close: %v", m, err)
		}
	}
	synctest.Wait()
	for _, m := range s.members[1:] {
		m.scratch.Release()
	}
}
