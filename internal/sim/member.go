package sim

import (
	"context"
	"crypto/ed25519"
	"errors"
	"fmt"
	"testing/synctest"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/proa-kv/proa/bufpool"
	"github.com/proa-kv/proa/command"
	"github.com/proa-kv/proa/raftgroup"
	"github.com/proa-kv/proa/raftgroup/datadir"
)

// member is a machine with a node on it.
type member struct {
	sim     *simulation
	id      uint64
	address string
	clock   *clock
	disk    *disk
	link    *link
	node    *raftgroup.Node // nil while it is down
	life    int             // counts the starts: what was meant for an earlier one is lost
	paused  bool
	held    []func() // what happens as soon as it is not paused any more
	ticked  bool     // it was time for a tick while it was paused
	dying   bool
	leaving bool // being removed
	gone    bool // removed from the cluster, or not let in
	scratch *bufpool.Buffer
}

func (s *simulation) addMember(id uint64) *member {
	m := &member{sim: s, id: id, address: fmt.Sprint("n", id), scratch: bufpool.Get(64)}
	m.clock = &clock{world: &s.world, rate: s.drawRate(), boot: s.between(time.Minute, time.Hour)}
	m.useDisk(vfs.NewCrashableMem())
	for uint64(len(s.members)) <= id {
		s.members = append(s.members, nil)
	}
	s.members[id] = m
	return m
}

func (m *member) useDisk(fs *vfs.MemFS) {
	m.disk = &disk{MemFS: fs, m: m, open: make(map[string]*logFile), lies: m.sim.config.Break.LyingDisk}
}

// running reports whether the process gets time from its machine.
func (m *member) running() bool { return m.node != nil && !m.paused }

// whenRunning does something at once, or as soon as the process that is there
// now is not paused any more.
func (m *member) whenRunning(do func()) {
	if m.paused {
		m.held = append(m.held, do)
		return
	}
	do()
}

// start starts the process.
func (m *member) start() {
	s := m.sim
	m.life++
	m.paused, m.ticked, m.dying, m.held = false, false, false, nil
	m.link = &link{sim: s, from: m, life: m.life}
	o := s.nodeOptions(m)
	if s.config.Break.ForgottenVote {
		o.Clock = &forgetfulClock{clock: m.clock}
	}
	n, err := raftgroup.Open(o)
	if err != nil {
		s.problem("node %d does not start: %v", m.id, err)
		return
	}
	m.node = n
	m.disk.timed = true
	s.note("node %d starts", m.id)
	m.meetOthers()
	life := m.life
	m.planTick(life, s.now()+s.between(0, tick))
}

// meetOthers shakes hands with everybody who can be reached. Whatever a crash has
// taken from a disk, nobody may find that it is older than what was confirmed.
func (m *member) meetOthers() {
	s := m.sim
	for _, o := range s.members[1:] {
		if o == nil || o == m || !o.running() || !s.open(m.id, o.id) || !s.open(o.id, m.id) {
			continue
		}
		for _, err := range []error{o.node.Admit(proven(m.node)), m.node.Admit(proven(o.node))} {
			if errors.Is(err, datadir.ErrRolledBack) {
				s.problem("node %d meets node %d: %v", m.id, o.id, err)
			}
		}
	}
}

// proven is what a node shows in a handshake.
func proven(n *raftgroup.Node) raftgroup.PeerIdentity {
	self, id := n.Self(), n.Identity()
	copy(self.Key[:], id.KeyPair().Public().(ed25519.PublicKey))
	self.Signed, self.Token = true, true
	return self
}

// forgetfulClock tells the first who asks a time long ago.
type forgetfulClock struct {
	*clock
	asked bool
}

// Boot is the steady clock, but for the first call.
func (c *forgetfulClock) Boot() int64 {
	if !c.asked {
		c.asked = true
		return c.clock.Boot() - int64(time.Hour)
	}
	return c.clock.Boot()
}

// planTick makes Raft's clock tick from a nominal moment on. Ticks come late
// by less than one of them; those that a pause has swallowed come as one.
func (m *member) planTick(life int, nominal int64) {
	s := m.sim
	late := int64(0)
	if s.chance(0.2) {
		late = s.between(0, tick*9/10)
	}
	s.at(nominal+late, func() {
		if m.life != life || m.node == nil {
			return
		}
		if m.paused {
			m.ticked = true
		} else {
			m.node.Tick()
		}
		m.planTick(life, nominal+int64(float64(tick)/m.clock.rate))
	})
}

// lookAfter is called after each pass of the node.
func (m *member) lookAfter() {
	m.checkLeases()
	if m.dying {
		return
	}
	select {
	case err := <-m.node.Failure():
		if !errors.Is(err, errDisk) {
			m.sim.problem("node %d fails: %v", m.id, err)
			return
		}
		m.sim.note("node %d fails with its disk", m.id)
		m.dying = true
		life := m.life
		m.sim.after(m.sim.between(time.Millisecond, 50*time.Millisecond), func() { m.crashIf(life) })
	default:
	}
}

// checkLeases looks whether a lease that this node holds is the only one.
func (m *member) checkLeases() {
	for shard := range m.sim.shards() {
		if !m.leased(shard) {
			continue
		}
		for _, o := range m.sim.members[1:] {
			if o != m && o.node != nil && o.leased(shard) {
				m.sim.problem("two leases of shard %d: node %d and node %d", shard, m.id, o.id)
			}
		}
	}
}

// leased reports whether the node would answer a linearizable read of a shard
// by itself now.
func (m *member) leased(shard int) bool {
	_, state := m.node.ReadCached(m.scratch, shard, leaseProbe, 0, command.NoValue)
	return state != command.ReadNotLeader && state != command.ReadFailed
}

var leaseProbe = []byte("?")

// crashIf crashes the machine if it still lives that life.
func (m *member) crashIf(life int) {
	if m.life == life && m.node != nil {
		m.crash(loss(m.sim.rng.IntN(3)))
	}
}

// crash ends the process without warning, and starts it again some time later.
func (m *member) crash(l loss) {
	s := m.sim
	s.note("node %d crashes, loss %d", m.id, uint64(l))
	s.stats.Crashes++
	fs := m.disk.crash(l)
	m.bury()
	m.useDisk(fs)
	if !m.gone {
		life := m.life
		most := s.plan.downMost
		if s.chance(0.5) {
			most = 80 * time.Millisecond // a process that its supervisor starts again
		}
		s.after(s.between(10*time.Millisecond, most), func() { m.startIf(life) })
	}
}

// startIf starts the process unless that has been done since.
func (m *member) startIf(life int) {
	if m.life == life && m.node == nil && !m.gone {
		m.start()
	}
}

// bury clears away a process that is not there any more: nobody hears of it.
func (m *member) bury() {
	n := m.node
	m.node = nil
	m.life++
	m.paused, m.held = false, nil
	m.disk.release()
	synctest.Wait()
	m.sim.breakTransfers(m)
	synctest.Wait()
	_ = n.Close(context.Background())
	synctest.Wait()
}

// stop ends the process in an orderly way.
func (m *member) stop() {
	m.sim.note("node %d stops", m.id)
	m.bury()
	m.useDisk(m.disk.MemFS)
}

// pause stops the process for a while; its machine goes on.
func (m *member) pause(d int64) {
	s := m.sim
	s.note("node %d is paused for %d ns", m.id, uint64(d))
	s.stats.Pauses++
	m.paused = true
	life := m.life
	s.after(d, func() {
		if m.life == life {
			m.resume()
		}
	})
}

func (m *member) resume() {
	m.sim.note("node %d goes on", m.id)
	m.paused = false
	held := m.held
	m.held = nil
	for _, do := range held {
		do()
	}
	if m.ticked {
		m.ticked = false
		m.node.Tick()
	}
}

// found founds the cluster, as the nodes of a real one do it.
func (s *simulation) found() {
	var addresses []string
	for id := range s.plan.founders {
		addresses = append(addresses, fmt.Sprint("n", id+1))
	}
	formers := make(map[string]*datadir.Former)
	call := func(_ context.Context, address, verb string, _ []byte) ([]byte, error) {
		return formers[address].Answer(verb)
	}
	for id := uint64(1); id <= uint64(s.plan.founders); id++ {
		m := s.addMember(id)
		f, err := datadir.NewFormer(datadir.FormOptions{
			Dir: "/proa", FS: m.disk, ID: id, Shards: s.plan.shards, Join: addresses, PeerAddress: m.address, Call: call,
		})
		s.must(err)
		formers[m.address] = f
	}
	for _, a := range addresses { // the founder is the first
		_, err := formers[a].Form(context.Background())
		s.must(errors.Join(err, formers[a].Close()))
	}
	for _, m := range s.members[1:] {
		m.start()
		s.settle()
	}
}
