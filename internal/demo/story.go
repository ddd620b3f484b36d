package demo

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/proa-kv/proa/command"
	"github.com/proa-kv/proa/internal/spawn"
)

const (
	// settleTimeout bounds each change of the cluster that the story waits
	// for. What takes longer has failed.
	settleTimeout = 60 * time.Second

	// lookInterval is the pause between two looks at the cluster's state.
	lookInterval = 100 * time.Millisecond

	// verifyTimeout bounds one read of the check at the end.
	verifyTimeout = 10 * time.Second
)

// servers are the nodes, numbered from 1.
type servers interface {
	start(node int) error
	kill(node int) error
	addresses() []string
	// trouble returns an error if a server has ended that was not killed.
	trouble() error
}

// store is what the story needs of a client.
type store interface {
	put(ctx context.Context, key, value []byte) error
	get(ctx context.Context, key []byte) (value []byte, found bool, err error)
	status(ctx context.Context) (*command.ClusterStatus, error)
	// own is the status that one node reports: what it reports of itself is current.
	own(ctx context.Context, node int) (*command.ClusterStatus, error)
	// tags returns a hash tag for each shard.
	tags(ctx context.Context) (map[uint16]string, error)
	checksum(ctx context.Context, shard int) (*command.ShardChecksum, error)
	close()
}

// story is one run.
type story struct {
	options Options
	servers servers
	connect func(context.Context) (store, error)
	screen  *screen
	dir     string

	store  store
	load   *load
	begin  time.Time
	seen   atomic.Pointer[command.ClusterStatus] // the newest look
	dead   atomic.Int64                          // the node that is killed; 0: none
	paused time.Duration                         // by the failover, at most
}

// run tells the story. The screen has shown all of it when it returns.
func (s *story) run(ctx context.Context) (err error) {
	s.begin = time.Now()
	s.screen.title = fmt.Sprintf("proa demo: %d servers, %d shards, three replicas of each\ndata in %s", s.options.Nodes, shards, s.dir)
	s.screen.total = s.options.Duration
	s.say("starting %d servers: a process each, with fsync on", s.options.Nodes)
	if err := s.startAll(ctx); err != nil {
		return err
	}
	defer s.store.close()

	watching, stopWatching := context.WithCancel(ctx)
	var background sync.WaitGroup
	background.Go(func() { s.look(watching) })
	background.Go(func() { s.draw(watching) })
	s.load.start(watching)
	err = s.acts(ctx)
	stopWatching()
	background.Wait()
	s.load.wait()
	if err == nil {
		err = ctx.Err()
	}
	s.screen.finish(s.load.totals())
	if err != nil {
		return err
	}
	return s.verify(ctx)
}

// startAll starts the servers and returns when all shards have leaders.
func (s *story) startAll(ctx context.Context) error {
	for node := 1; node <= s.options.Nodes; node++ {
		if err := s.servers.start(node); err != nil {
			return err
		}
	}
	var tags map[uint16]string
	err := s.await(ctx, "the servers answer and all shards have leaders", func(ctx context.Context) (err error) {
		if s.store == nil {
			if s.store, err = s.connect(ctx); err != nil {
				return err
			}
		}
		c, err := s.store.status(ctx)
		if err != nil {
			return err
		}
		if err := settled(c, s.options.Nodes); err != nil {
			return err
		}
		s.seen.Store(c)
		tags, err = s.store.tags(ctx)
		return err
	})
	if err != nil {
		if s.store != nil {
			s.store.close()
		}
		return err
	}
	s.load = newLoad(s.store, tags)
	s.say("all %d shards have leaders; %d callers write and read", shards, len(s.load.workers))
	return nil
}

// settled says what is missing for a cluster to be complete: nodes that are up,
// shards with leaders, replicas that are voters and caught up.
func settled(c *command.ClusterStatus, nodes int) error {
	up := 0
	for i := range c.Nodes {
		if c.Nodes[i].State == command.NodeUp {
			up++
		}
	}
	if up < nodes {
		return fmt.Errorf("%d of %d nodes are up", up, nodes)
	}
	if len(c.Shards) <= shards { // and the meta group
		return fmt.Errorf("%d shards are known", len(c.Shards))
	}
	for i := range c.Shards {
		sh := &c.Shards[i]
		switch {
		case sh.Leader == 0:
			return fmt.Errorf("shard %d has no leader", sh.Shard)
		case sh.Moving || len(sh.Replicas) < min(nodes, 3):
			return fmt.Errorf("shard %d has no full set of replicas yet", sh.Shard)
		}
	}
	return nil
}

// acts are kill, failover and return, a third of the time each.
func (s *story) acts(ctx context.Context) error {
	third := s.options.Duration / 3
	if err := s.rest(ctx, third); err != nil {
		return err
	}
	victim, led := 0, []int(nil)
	err := s.await(ctx, "a node leads shards", func(ctx context.Context) error {
		c, err := s.store.status(ctx)
		if err != nil {
			return err
		}
		if victim, led = busiest(c); victim == 0 {
			return errors.New("no node leads a shard")
		}
		return nil
	})
	if err != nil {
		return err
	}
	s.say("SIGKILL to node %d, which leads %d of %d shards", victim, len(led), shards)
	s.mark('K', "node %d killed", victim)
	s.load.mark()
	killed := time.Now()
	if err := s.servers.kill(victim); err != nil {
		return err
	}
	s.dead.Store(int64(victim))
	if err := s.await(ctx, "all shards serve writes again", s.load.allServe); err != nil {
		return err
	}
	now, _ := s.load.pauses(led)
	s.sayAt(killed.Add(now), "all shards serve again: writes to the %d it led paused for %s", len(led), round(now))
	s.markAt(killed.Add(now), 'S', "all shards serve again, after %s", round(now))
	if err := s.rest(ctx, third-time.Since(killed)); err != nil {
		return err
	}
	hit, others := s.load.pauses(led)
	s.paused = max(hit, others)
	s.say("the longest pause of a shard it led was %s, of the others %s", round(hit), round(others))

	behind, err := s.committed(ctx)
	if err != nil {
		return err
	}
	s.say("node %d is started again", victim)
	s.mark('R', "node %d started again", victim)
	restarted := time.Now()
	if err := s.servers.start(victim); err != nil {
		return err
	}
	s.dead.Store(0)
	err = s.await(ctx, fmt.Sprintf("node %d has caught up", victim), func(ctx context.Context) error {
		c, err := s.store.own(ctx, victim)
		if err != nil {
			return fmt.Errorf("node %d does not answer: %w", victim, err)
		}
		return caughtUp(c, uint64(victim), behind)
	})
	if err != nil {
		return err
	}
	took := round(time.Since(restarted))
	s.say("node %d is back: it has all that was committed before, after %s", victim, took)
	s.mark('C', "node %d has caught up, after %s", victim, took)
	return s.rest(ctx, third-time.Since(restarted))
}

// busiest returns the node that leads most shards, the lowest number among
// equals, and those shards.
func busiest(c *command.ClusterStatus) (node int, led []int) {
	by := map[uint64][]int{}
	for i := range c.Shards {
		if sh := &c.Shards[i]; sh.Shard != command.MetaShard && sh.Leader != 0 {
			by[sh.Leader] = append(by[sh.Leader], sh.Shard)
		}
	}
	for id, l := range by {
		if len(l) > len(led) || len(l) == len(led) && int(id) < node {
			node, led = int(id), l
		}
	}
	return node, led
}

// committed returns how far each shard is committed, as its leader says.
func (s *story) committed(ctx context.Context) (commits map[int]uint64, err error) {
	err = s.await(ctx, "each shard's leader tells how far it is", func(ctx context.Context) error {
		c, err := s.store.status(ctx)
		if err != nil {
			return err
		}
		commits = make(map[int]uint64)
		for i := range c.Shards {
			if c.Shards[i].Leader == 0 {
				return fmt.Errorf("shard %d has no leader", c.Shards[i].Shard)
			}
			commits[c.Shards[i].Shard] = c.Shards[i].Commit
		}
		return nil
	})
	return commits, err
}

// caughtUp says what a node still lacks, by its own word, of what was committed
// when it was started. What others say of it may be of before it was killed.
func caughtUp(own *command.ClusterStatus, node uint64, commits map[int]uint64) error {
	if own.Asked != node {
		return fmt.Errorf("node %d answers instead of node %d", own.Asked, node)
	}
	for shard, commit := range commits {
		i := slices.IndexFunc(own.Shards, func(sh command.ShardInfo) bool { return sh.Shard == shard })
		if i < 0 {
			return fmt.Errorf("node %d does not know shard %d yet", node, shard)
		}
		r := own.Shards[i].On(node)
		switch {
		case r == nil && slices.Contains(own.Shards[i].Desired, node), r != nil && (r.Stale || r.Follows == 0):
			return fmt.Errorf("node %d has not joined shard %d yet", node, shard)
		case r != nil && r.Applied < commit:
			return fmt.Errorf("node %d lacks %d entries of shard %d", node, commit-r.Applied, shard)
		}
	}
	return nil
}

// rest lets the load go on for a while.
func (s *story) rest(ctx context.Context, d time.Duration) error {
	pause(ctx, d)
	if err := ctx.Err(); err != nil {
		return err
	}
	return s.servers.trouble()
}

// await tries until try succeeds. what completes the sentence "it did not
// happen that".
func (s *story) await(ctx context.Context, what string, try func(context.Context) error) error {
	limited, cancel := context.WithTimeoutCause(ctx, settleTimeout, fmt.Errorf("it did not happen within %v that %s", settleTimeout, what))
	defer cancel()
	err := spawn.Await(limited, lookInterval, try, s.servers.trouble)
	if ended := ctx.Err(); ended != nil && errors.Is(err, ended) {
		return ended
	}
	return err
}

// look keeps the cluster's state current. Where no node reports it, the last one
// stays.
func (s *story) look(ctx context.Context) {
	every(ctx, lookInterval, func() {
		if c, err := s.store.status(ctx); err == nil {
			s.seen.Store(c)
		}
	})
}

// draw shows the load at work.
func (s *story) draw(ctx context.Context) {
	every(ctx, s.screen.interval(), func() { s.screen.show(s.view()) })
}

// every calls f again and again until the context ends.
func every(ctx context.Context, interval time.Duration, f func()) {
	tick := time.NewTicker(interval)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
			f()
		}
	}
}

// view is what there is to see now. It begins a new interval of the load's
// figures.
func (s *story) view() view {
	return view{
		past: time.Since(s.begin), load: s.load.sample(), nodes: nodeViews(s.seen.Load(), s.servers.addresses(), int(s.dead.Load())),
	}
}

// say shows what happens.
func (s *story) say(format string, args ...any) {
	s.sayAt(time.Now(), format, args...)
}

// sayAt shows what happened at a moment.
func (s *story) sayAt(at time.Time, format string, args ...any) {
	s.screen.say(at.Sub(s.begin), fmt.Sprintf(format, args...))
}

// mark marks this moment on the curve, and says what happened.
func (s *story) mark(sign rune, format string, args ...any) {
	s.markAt(time.Now(), sign, format, args...)
}

func (s *story) markAt(at time.Time, sign rune, format string, args ...any) {
	s.screen.mark(at.Sub(s.begin), sign, fmt.Sprintf(format, args...))
}

// verify checks every key, and that the replicas are equal.
func (s *story) verify(ctx context.Context) error {
	s.say("the load has ended; reading all %d keys back", s.load.keys())
	missing, err := s.load.verify(ctx)
	if err != nil {
		return err
	}
	acknowledged, missed, failed := s.load.totals()
	s.say("%d writes were acknowledged, %d of them are missing", acknowledged, missing)
	s.say("%d reads returned an older value than acknowledged; %d calls failed or have an unknown outcome", missed, failed)
	different := s.compare(ctx)
	if missing > 0 || missed > 0 || different > 0 {
		return fmt.Errorf("%w: %d acknowledged writes are missing, %d reads missed an acknowledged write, %d shards have replicas that differ", ErrBroken, missing, missed, different)
	}
	s.say("done: a node was killed under load, writes paused for %s at most, and nothing was lost", round(s.paused))
	s.screen.advise(s.options.Command)
	return ctx.Err()
}

// compare returns how many shards have replicas that differ. A checksum that
// cannot be had proves nothing and is only shown.
func (s *story) compare(ctx context.Context) (different int) {
	equal := 0
	for shard := range shards {
		sum, err := s.store.checksum(ctx, shard)
		switch {
		case err != nil:
			s.say("the replicas of shard %d could not be compared: %v", shard, err)
		case !sum.Equal:
			different++
			s.say("the replicas of shard %d DIFFER", shard)
		default:
			equal++
		}
	}
	s.say("the replicas of %d of %d shards were compared and are equal", equal, shards)
	return different
}

// round shortens a duration for people.
func round(d time.Duration) time.Duration {
	switch {
	case d > 10*time.Second:
		return d.Round(time.Second)
	case d > time.Second:
		return d.Round(10 * time.Millisecond)
	case d > 10*time.Millisecond:
		return d.Round(time.Millisecond)
	}
	return d.Round(10 * time.Microsecond)
}
