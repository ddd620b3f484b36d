package redis

import (
	"fmt"
	"net"
	"slices"
	"strconv"

	"github.com/proa-kv/proa/command"
	"github.com/proa-kv/proa/protocol"
	"github.com/proa-kv/proa/server/resp"
)

// The answers to the cluster commands follow topology.go. A node is listed under
// the address at which it serves the Redis protocol, and not at all where it
// serves none.

// topology says who serves what, at native addresses and at those of the Redis
// protocol.
func (l *Listener) topology() command.Topology {
	t := l.backend.Topology(l.srv.Address())
	for i := range t.Nodes {
		if n := &t.Nodes[i]; n.ID == l.cfg.Node && n.Redis == "" {
			n.Redis = l.address()
		}
	}
	return t
}

// address is where this node serves the Redis protocol, or "".
func (l *Listener) address() string {
	for _, a := range Addrs(l.srv) {
		if a.Network() == "tcp" {
			return a.String()
		}
	}
	return ""
}

func (l *Listener) port() string {
	if _, port, err := net.SplitHostPort(l.address()); err == nil {
		return port
	}
	return "0"
}

// addressOf is where a node serves the Redis protocol, or "".
func (l *Listener) addressOf(node uint64) string {
	t := l.topology()
	if m := member(&t, node); m != nil {
		return m.Redis
	}
	return ""
}

func member(t *command.Topology, node uint64) *command.Member {
	for i := range t.Nodes {
		if t.Nodes[i].ID == node {
			return &t.Nodes[i]
		}
	}
	return nil
}

// mode is what Redis calls the way it runs.
func (l *Listener) mode() string {
	if l.redirect {
		return "cluster"
	}
	return "standalone"
}

// nodeID is a node's name in the way of Redis: 40 hexadecimal digits.
func (l *Listener) nodeID(node uint64) string {
	return fmt.Sprintf("%016x%024x", l.cfg.Cluster, node)
}

// hostPort cuts an address into what Redis calls the address and the port.
func hostPort(address string) (host string, port int) {
	host, text, err := net.SplitHostPort(address)
	if err != nil {
		return address, 0
	}
	port, _ = strconv.Atoi(text)
	return host, port
}

func cmdClusterSlots(p *processor, x *plan) {
	t := p.l.topology()
	ranges := p.l.ranges(&t)
	x.reply = resp.AppendArray(x.reply, len(ranges))
	for i := range ranges {
		r := &ranges[i]
		x.reply = resp.AppendArray(x.reply, 3+len(r.replicas))
		x.reply = resp.AppendInt(x.reply, int64(r.first))
		x.reply = resp.AppendInt(x.reply, int64(r.last))
		for _, n := range r.nodes() {
			host, port := hostPort(n.Redis)
			x.reply = resp.AppendArray(x.reply, 4)
			x.reply = resp.AppendBulk(x.reply, host)
			x.reply = resp.AppendInt(x.reply, int64(port))
			x.reply = resp.AppendBulk(x.reply, p.l.nodeID(n.ID))
			x.reply = resp.AppendArray(x.reply, 0)
		}
	}
}

// cmdClusterShards answers CLUSTER SHARDS, with one entry for each master. Its
// replicas are those of any of its ranges.
func cmdClusterShards(p *processor, x *plan) {
	t := p.l.topology()
	ranges := p.l.ranges(&t)
	proto := x.proto()
	masters := mastersOf(ranges)
	x.reply = resp.AppendArray(x.reply, len(masters))
	for _, master := range masters {
		slots, nodes := []int64(nil), []*command.Member{master}
		for i := range ranges {
			r := &ranges[i]
			if r.master != master {
				continue
			}
			slots = append(slots, int64(r.first), int64(r.last))
			for _, n := range r.replicas {
				if !slices.Contains(nodes, n) {
					nodes = append(nodes, n)
				}
			}
		}
		x.reply = resp.AppendMap(x.reply, proto, 2)
		x.reply = resp.AppendArray(resp.AppendBulk(x.reply, "slots"), len(slots))
		for _, n := range slots {
			x.reply = resp.AppendInt(x.reply, n)
		}
		x.reply = resp.AppendArray(resp.AppendBulk(x.reply, "nodes"), len(nodes))
		for i, n := range nodes {
			host, port := hostPort(n.Redis)
			role := "replica"
			if i == 0 {
				role = "master"
			}
			x.reply = resp.AppendMap(x.reply, proto, 7)
			pair := func(k, v string) { x.reply = resp.AppendBulk(resp.AppendBulk(x.reply, k), v) }
			pair("id", p.l.nodeID(n.ID))
			x.reply = resp.AppendInt(resp.AppendBulk(x.reply, "port"), int64(port))
			pair("ip", host)
			pair("endpoint", host)
			pair("role", role)
			x.reply = resp.AppendInt(resp.AppendBulk(x.reply, "replication-offset"), 0)
			pair("health", "online")
		}
	}
}

// mastersOf are the masters of ranges, each once.
func mastersOf(ranges []slotRange) (masters []*command.Member) {
	for i := range ranges {
		if m := ranges[i].master; !slices.Contains(masters, m) {
			masters = append(masters, m)
		}
	}
	return masters
}

// cmdClusterNodes answers CLUSTER NODES. Where a node is a replica of several
// masters the first of them stands for all.
func cmdClusterNodes(p *processor, x *plan) {
	t := p.l.topology()
	ranges := p.l.ranges(&t)
	var text []byte
	for i := range t.Nodes {
		if n := &t.Nodes[i]; n.Redis != "" {
			text = append(p.l.appendNode(text, n, ranges, t.Epoch), '\n')
		}
	}
	x.reply = resp.AppendVerbatim(x.reply, x.proto(), "txt", text)
}

// appendNode appends what CLUSTER NODES says of one node.
func (l *Listener) appendNode(text []byte, n *command.Member, ranges []slotRange, epoch uint64) []byte {
	host, port := hostPort(n.Redis)
	role, of := roleOf(n, ranges)
	if of != nil {
		role += " " + l.nodeID(of.ID)
	} else {
		role += " -"
	}
	if n.ID == l.cfg.Node {
		role = "myself," + role
	}
	text = fmt.Appendf(text, "%s %s:%d@%d %s 0 0 %d connected", l.nodeID(n.ID), host, port, port, role, epoch)
	for i := range ranges {
		switch r := &ranges[i]; {
		case r.master != n:
		case r.first == r.last:
			text = fmt.Appendf(text, " %d", r.first)
		default:
			text = fmt.Appendf(text, " %d-%d", r.first, r.last)
		}
	}
	return text
}

// cmdClusterReplicas answers CLUSTER REPLICAS in the format of CLUSTER NODES.
func cmdClusterReplicas(p *processor, x *plan) {
	t := p.l.topology()
	ranges := p.l.ranges(&t)
	at := slices.IndexFunc(t.Nodes, func(n command.Member) bool { return p.l.nodeID(n.ID) == string(x.args[2]) })
	if at < 0 {
		x.fail(fmt.Sprintf("ERR Unknown node %.64s", x.args[2]))
		return
	}
	var replicas []*command.Member
	for i := range t.Nodes {
		if _, of := roleOf(&t.Nodes[i], ranges); of == &t.Nodes[at] {
			replicas = append(replicas, &t.Nodes[i])
		}
	}
	if _, of := roleOf(&t.Nodes[at], ranges); of != nil {
		x.fail("ERR The specified node is not a master")
		return
	}
	x.reply = resp.AppendArray(x.reply, len(replicas))
	for _, n := range replicas {
		x.reply = resp.AppendBulk(x.reply, p.l.appendNode(nil, n, ranges, t.Epoch))
	}
}

// roleOf says what a node is, and of a replica whose. A node that is neither is a
// master without slots.
func roleOf(n *command.Member, ranges []slotRange) (role string, of *command.Member) {
	for i := range ranges {
		if slices.Contains(ranges[i].replicas, n) {
			return "slave", ranges[i].master
		}
	}
	return "master", nil
}

func cmdClusterInfo(p *processor, x *plan) {
	t := p.l.topology()
	served, ranges := 0, p.l.ranges(&t)
	for _, shard := range t.Shards {
		if shard.Leader == 0 {
			continue
		}
		for _, r := range shard.Slots {
			served += int(r[1]) - int(r[0]) + 1
		}
	}
	state := "ok"
	if served < protocol.Slots {
		state = "fail"
	}
	text := fmt.Appendf(nil, "cluster_state:%s\r\ncluster_slots_assigned:%d\r\ncluster_slots_ok:%d\r\ncluster_slots_pfail:0\r\ncluster_slots_fail:%d\r\n",
		state, protocol.Slots, served, protocol.Slots-served)
	text = fmt.Appendf(text, "cluster_known_nodes:%d\r\ncluster_size:%d\r\ncluster_current_epoch:%d\r\ncluster_my_epoch:%d\r\n",
		len(t.Nodes), len(mastersOf(ranges)), t.Epoch, t.Epoch)
	x.reply = resp.AppendVerbatim(x.reply, x.proto(), "txt", text)
}

// cmdClusterCountKeysInSlot walks over the keys of the slot's shard.
func cmdClusterCountKeysInSlot(p *processor, c *conn, x *plan) (held bool) {
	slot := x.integer(2)
	if x.failed || slot < 0 || slot >= protocol.Slots {
		return x.fail(resp.ErrInvalidSlot)
	}
	return p.walkSlot(c, uint16(slot), endCount, func(w *walk, _ []byte) walkStep {
		w.count++
		return walkOn
	})
}

// cmdClusterGetKeysInSlot answers the first keys of a slot.
func cmdClusterGetKeysInSlot(p *processor, c *conn, x *plan) (held bool) {
	slot, count := x.integer(2), x.integer(3)
	if x.failed || slot < 0 || slot >= protocol.Slots || count < 0 {
		return x.fail("ERR Invalid slot or number of keys")
	}
	limit := p.l.cfg.OutputBytesMax / 2
	return p.walkSlot(c, uint16(slot), endKeys, func(w *walk, key []byte) walkStep {
		if w.count < count {
			w.out = resp.AppendBulk(w.out, key)
			w.count++
		}
		if len(w.out) > limit {
			w.fail = "ERR the keys exceed " + strconv.Itoa(limit) + " bytes; request fewer"
		}
		if w.count == count {
			return walkEnd
		}
		return walkOn
	})
}

// walkSlot walks over the keys of a slot, which it looks for among those of its
// shard.
func (p *processor) walkSlot(c *conn, slot uint16, end func(*walk, []byte, int) []byte, take func(w *walk, key []byte) walkStep) (held bool) {
	w := &walk{rows: walkRows, end: end, at: position{confined: true, shards: []uint16{uint16(p.l.backend.ShardOf(slot))}}}
	w.take = func(w *walk, keys [][]byte) walkStep {
		for _, key := range keys {
			w.steps += len(key)
			if protocol.Slot(key) == slot && take(w, key) == walkEnd {
				return walkEnd
			}
		}
		return walkOn
	}
	return p.walkOver(c, w)
}
