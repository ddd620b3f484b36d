package raftgroup

import (
	"encoding/json"
	"log/slog"
	"maps"
	"slices"
	"sync/atomic"
	"time"

	"github.com/proa-kv/proa/internal/lograte"
	"github.com/proa-kv/proa/raftgroup/engine"
	"github.com/proa-kv/proa/raftgroup/placement"
)

// reportExchange is what this node reports of itself, and what it knows of the
// others from their reports.
type reportExchange struct {
	node *Node

	known        pictures // of the nodes, this one included
	badReports   atomic.Uint64
	badReportLog lograte.Line
	reporting    ownReports
	reportDue    int64 // Clock.Boot
}

// # Reports
//
// Every node sends every other what it knows of itself: figures of its own, and
// the state of its replicas. Each change of a replica's state has a version, one
// higher than the change before, whatever shard that was of. A report brings the
// changes of a range of versions, (from, to], as of now, and says what the newest
// version is. Its receiver takes it in if it has everything up to from, and says
// in its own reports how far it has come. So a node that has missed something,
// or has just started, is sent everything that it lacks, in as many reports as
// that takes; nothing about other nodes has to be remembered but two numbers.
//
// A receiver that has the newest version knows all that the sender had to say
// when it said so. How old that is, and what does not count any more, is kept by
// picture.
const (
	reportEvery = 250 * time.Millisecond

	// Positions in the log change with every write; the others are sent
	// them with every positionsEvery-th report.
	positionsEvery = 4

	// resendAfter is how long a node need not say that it has what it was sent.
	resendAfter = time.Second

	// tendEvery is how often leaderships are balanced and the map is looked
	// after.
	tendEvery = time.Second

	// reportsFromVersion is the version of the peer protocol that has such
	// reports. Older nodes get, and send, a document with everything.
	reportsFromVersion = 3
)

// nodeReport is what a node says of itself as a whole.
type nodeReport struct {
	Leaving     bool    `json:"leaving,omitempty"` // is stopping
	Slow        bool    `json:"slow,omitempty"`
	ClockOff    bool    `json:"clock_off,omitempty"` // the wall clock is too far from the others'
	Exposed     bool    `json:"exposed,omitempty"`   // see Node.SetExposed
	Wall        uint64  `json:"wall_ms,omitempty"`   // the wall clock, Unix time in ms
	Time        uint64  `json:"time_ms,omitempty"`   // the cluster's time; 0: not known
	Offset      int64   `json:"offset_ms,omitempty"` // by how much the wall clock is ahead
	FsyncMicros float64 `json:"fsync_us"`
	LogBytes    int64   `json:"log_bytes"`
	DiskUsed    int64   `json:"disk_used"`
	DiskFree    int64   `json:"disk_free"`
	Uptime      int64   `json:"uptime_s"`
	Position    uint64  `json:"position"` // of the log, see runs.go
	Damaged     uint64  `json:"damaged_files,omitempty"`
}

// shardReport is about one replica. Its leader also reports the configuration.
// Its slices are never changed.
type shardReport struct {
	Shard   int      `json:"s"`
	Replica uint64   `json:"r"` // 0: none is held
	Role    string   `json:"o"`
	Leader  uint64   `json:"l"` // node
	Term    uint64   `json:"t"`
	Commit  uint64   `json:"c"`
	Applied uint64   `json:"a"`
	Members []uint64 `json:"m,omitempty"` // replicas
	// Learners are those of the members that do not vote.
	Learners []uint64 `json:"n,omitempty"`
	Damaged  bool     `json:"d,omitempty"` // its state is, and it is out of use unless it is the only one
	Behind   bool     `json:"b,omitempty"` // it votes, and is not known to have what was acknowledged behindAfter ago
	Settled  bool     `json:"e,omitempty"` // the configuration is what the map wants
	Row      uint64   `json:"v,omitempty"` // version of the map's row with which Settled was found

	since int64 // when the role, the leader and the term were first heard, on Clock.Boot; not sent
}

// votingNodes returns the nodes whose replicas vote, as the leader says.
func (s *shardReport) votingNodes() (nodes []uint64) {
	for _, id := range s.Members {
		if !slices.Contains(s.Learners, id) {
			nodes = append(nodes, placement.NodeOf(id))
		}
	}
	slices.Sort(nodes)
	return slices.Compact(nodes)
}

// position is how far a replica has come in the log.
type position struct{ commit, applied uint64 }

func (s *shardReport) position() position { return position{s.Commit, s.Applied} }

// same reports whether s and o say the same, their positions aside.
func (s *shardReport) same(o *shardReport) bool {
	return s.Replica == o.Replica && s.Role == o.Role && s.Leader == o.Leader && s.Term == o.Term &&
		s.Settled == o.Settled && s.Damaged == o.Damaged && s.Behind == o.Behind && s.Row == o.Row && slices.Equal(s.Members, o.Members) && slices.Equal(s.Learners, o.Learners)
}

// roleUnreachable is a replica's role in status whose node has not reported lately; the
// others are the engine's.
const roleUnreachable = "unreachable"

// behindAfter is the age from which on a replica counts as behind: its shard waits for it if
// another one is lost. It is several times what passes between two signs of freshness.
const behindAfter = placement.DownAfter

// report describes the replica of a shard here. For the conductor.
func (rx *reportExchange) report(shard int, cm *placement.Map) shardReport {
	n := rx.node
	v, r := n.views[shard], n.engine.Replica(shard)
	s := shardReport{Shard: shard}
	if r.ID == 0 {
		if r.Lost != 0 { // it does not vote
			s.Replica, s.Role, s.Leader, s.Damaged = r.Lost, engine.RoleLearner, v.Leader.Load(), true
		}
		return s
	}
	s.Damaged = r.Down || r.Conf.OnlyMember(r.ID) && n.store.Damaged(shard)
	s.Replica, s.Role, s.Leader, s.Term = r.ID, r.Role, v.Leader.Load(), v.Term.Load()
	s.Commit, s.Applied = v.Committed.Load(), r.Applied
	s.Behind = r.Role == engine.RoleFollower && (!v.Held.Load() || time.Duration(n.clock.Boot()-v.Fresh.Load()) > behindAfter)
	if r.Role == engine.RoleLeader && r.Durable {
		s.Members = r.Conf.Members()
		s.Learners = slices.Clone(r.Conf.Learners)
		if cm.Begun() {
			s.Settled, s.Row = settled(&r.Conf, &cm.Shards[shard]), cm.Version(shard)
		}
	}
	return s
}

func (rx *reportExchange) nodeReport() nodeReport {
	r := nodeReport{
		Leaving: rx.node.state.Is(leaving), Slow: rx.node.state.Is(engine.Slow), ClockOff: rx.node.state.Is(clockOff), Exposed: rx.node.exposed, Offset: rx.node.clockOffset.Load(), Wall: rx.node.clock.NowMillis(),
		FsyncMicros: rx.node.fsyncRecent(), LogBytes: rx.node.log.SizeBytes(),
		DiskUsed: rx.node.diskUsed.Load(), DiskFree: rx.node.diskFree.Load(), Uptime: int64(time.Duration(rx.node.clock.Boot() - rx.node.startedAt).Seconds()),
		Position: rx.node.log.Position(), Damaged: uint64(len(rx.node.store.Damage())),
	}
	if !rx.node.state.Is(engine.Alone) && rx.node.time.Agreed.Load() {
		r.Time = rx.node.time.Now()
	}
	return r
}

// ownReports is what this node reports of itself, apart from what its own
// picture holds. It is changed by the pass, under the lock of the pictures.
type ownReports struct {
	run     uint64     // drawn at each start: versions begin anew with it
	newest  uint64     // version of the newest change
	changed []uint64   // version of each shard's newest change; 0: nothing was ever held
	at      []position // of each shard as of that version
	made    uint64     // reports so far
}

// observe brings this node's picture of itself up to date. For the pass.
func (rx *reportExchange) observe() {
	cm := rx.node.cmap.Load()
	o := &rx.reporting
	positions := o.made%positionsEvery == 0
	o.made++
	now := rx.node.clock.Boot()
	about := rx.nodeReport()
	defer rx.known.lock()()
	p := rx.known.of(rx.node.id)
	p.about, p.heard, p.whole = about, now, now
	if p.shards == nil {
		p.shards, o.changed, o.at = make([]shardReport, len(rx.node.views)), make([]uint64, len(rx.node.views)), make([]position, len(rx.node.views))
	}
	for shard := range rx.node.views {
		is, was := rx.report(shard, cm), p.shards[shard]
		p.set(is, now)
		if !is.same(&was) || positions && is.position() != o.at[shard] {
			o.newest++
			o.changed[shard], o.at[shard] = o.newest, is.position()
		}
	}
	p.countLeaders()
}

// since returns the shards that changed after a version, the newest change
// last.
func (o *ownReports) since(version uint64) []int {
	if version >= o.newest {
		return nil
	}
	var shards []int
	for shard, v := range o.changed {
		if v > version {
			shards = append(shards, shard)
		}
	}
	slices.SortFunc(shards, func(a, b int) int { return int(int64(o.changed[a]) - int64(o.changed[b])) })
	return shards
}

// peerProgress says how far another node has this one's reports.
type peerProgress struct {
	acked uint64 // version that it says it has
	sent  uint64 // version that it was sent
	at    int64  // when acked came to be, or what is not acknowledged was sent
}

// base returns the version from which on a node is sent changes: it gets again what it
// has not acknowledged in time.
func (p *peerProgress) base(now int64) uint64 {
	switch {
	case p.sent <= p.acked:
		p.sent, p.at = p.acked, now
	case time.Duration(now-p.at) > resendAfter:
		p.sent, p.at = p.acked, now
	}
	return p.sent
}

// acknowledge takes in how far a node says it has come.
func (p *peerProgress) acknowledge(version uint64, now int64) {
	switch {
	case version > p.acked:
		p.at = now
	case version < p.acked: // it has started anew
		p.sent = version
	}
	p.acked = version
}

// sendReports reports on this node to the others. For the pass.
func (rx *reportExchange) sendReports() {
	rx.observe()
	if rx.node.state.Is(engine.Alone) {
		return
	}
	for _, node := range slices.Sorted(maps.Keys(rx.node.peers)) {
		switch v := rx.node.transport.Version(node); {
		case v == 0: // no connection: it is sent when there is one
		case v < reportsFromVersion:
			rx.sendDocument(node)
		default:
			rx.sendChanges(node)
		}
	}
}

// sendChanges sends a node what it lacks.
func (rx *reportExchange) sendChanges(node uint64) {
	now := rx.node.clock.Boot()
	unlock := rx.known.lock()
	p, own, o := rx.known.of(node), rx.known.of(rx.node.id), &rx.reporting
	c := changes{run: o.run, ackRun: p.run, ack: p.have, newest: o.newest, about: own.about}
	base := p.base(now)
	bodies := c.encode(base, o.since(base), o.changed, own.shards)
	unlock()
	for _, b := range bodies {
		if !rx.node.transport.Report(node, b.body) {
			return // the transport counts it; the rest follows with the next
		}
		rx.known.mu.Lock()
		p.sent = max(p.sent, b.to)
		rx.known.mu.Unlock()
	}
}

// document is a report to or from a node that knows no others. It has
// everything.
type document struct {
	Node   uint64 `json:"node"`
	Peer   string `json:"peer"`
	Client string `json:"client"`
	Build  string `json:"version"`
	nodeReport
	Shards []shardReport `json:"shards"`
}

func (rx *reportExchange) sendDocument(node uint64) {
	own := rx.known.get(rx.node.id)
	d := document{Node: rx.node.id, Peer: rx.node.opt.PeerAddress, Client: rx.node.opt.ClientAddress, Build: rx.node.opt.Version, nodeReport: own.about}
	for i := range own.shards {
		if own.shards[i].Replica != 0 {
			d.Shards = append(d.Shards, own.shards[i])
		}
	}
	b, err := json.Marshal(&d)
	if err != nil {
		rx.node.logger.Error("cannot encode a status report", "error", err)
		return
	}
	rx.node.transport.Report(node, b)
}

// ReceiveReport takes in another node's report. One that makes no sense is
// dropped, and counted.
func (rx *reportExchange) ReceiveReport(from uint64, body []byte) {
	now := rx.node.clock.Boot()
	var err error
	if len(body) > 0 && body[0] == '{' {
		err = rx.takeDocument(from, body, now)
	} else {
		err = rx.takeChanges(from, body, now)
	}
	if err == nil {
		return
	}
	rx.badReportLog.Log(rx.node.logger, slog.LevelWarn, "invalid status report from a peer", "from", from, "error", err, "so_far", rx.badReports.Add(1))
}

// BadReports returns how many reports of other nodes made no sense.
func (rx *reportExchange) BadReports() uint64 { return rx.badReports.Load() }

func (rx *reportExchange) takeDocument(from uint64, body []byte, now int64) error {
	var d document
	if err := json.Unmarshal(body, &d); err != nil {
		return err
	}
	if d.Node != from {
		return errBadReport
	}
	shards := make([]shardReport, len(rx.node.views))
	for shard := range shards {
		shards[shard].Shard = shard
	}
	for _, s := range d.Shards {
		if s.Shard < 0 || s.Shard >= len(shards) {
			return errBadReport
		}
		shards[s.Shard] = s
	}
	defer rx.known.lock()()
	p := rx.known.of(from)
	if rx.known.noteAliveLocked(p, now) {
		rx.node.state.Set(greetDue)
	}
	if p.shards == nil {
		p.shards = make([]shardReport, len(shards))
	}
	for _, s := range shards {
		p.set(s, now)
	}
	p.run, p.have, p.whole = 0, 0, now
	p.update(d.nodeReport, now)
	p.countLeaders()
	return nil
}

func (rx *reportExchange) takeChanges(from uint64, body []byte, now int64) error {
	c, err := decodeChanges(body, len(rx.node.views))
	if err != nil {
		return err
	}
	rx.node.runs.Progress(from, c.run, c.about.Position)
	defer rx.known.lock()()
	p := rx.known.of(from)
	if rx.known.noteAliveLocked(p, now) {
		rx.node.state.Set(greetDue)
	}
	if c.ackRun == rx.reporting.run && c.ack <= rx.reporting.newest {
		p.acknowledge(c.ack, now)
	} else {
		p.acknowledge(0, now)
	}
	p.take(c, len(rx.node.views), now)
	return nil
}

// update takes in what the node says of itself as a whole.
func (p *picture) update(about nodeReport, now int64) {
	p.about = about
	if about.Wall != 0 {
		boot := now / int64(time.Microsecond)
		p.clocks.add(clockReading{wall: engine.WallMicros(about.Wall) - boot, time: engine.WallMicros(about.Time) - boot, has: about.Time != 0})
	}
}

// take brings the picture up to date with a report.
func (p *picture) take(c *changes, shards int, now int64) {
	if c.run != p.run {
		p.run, p.have, p.whole = c.run, 0, 0 // what it said before it started may be so no more
	}
	if c.from > p.have || c.to < p.have {
		return // some changes are missing, or this one has come late
	}
	if c.from == 0 && p.have == 0 {
		p.shards = make([]shardReport, shards)
	}
	p.update(c.about, now)
	for i := range c.shards {
		p.set(c.shards[i], now)
	}
	p.have = c.to
	p.countLeaders()
	if p.have >= c.newest {
		p.whole = now
	}
}
