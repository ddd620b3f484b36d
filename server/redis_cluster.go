package server

import (
	"fmt"
	"net"
	"slices"
	"strconv"

	"github.com/proa-kv/proa/command"
	"github.com/proa-kv/proa/protocol"
	"github.com/proa-kv/proa/server/resp"
)

// What the cluster commands tell is what redis_topology.go says. A node is told
// under the address at which it serves the Redis protocol, and not at all where
// it serves none.

// topology says who serves what, at native addresses and at those of the Redis
// protocol.
func (s *Server) topology() command.Topology {
	var address string
	if a := s.address.Load(); a != nil {
		address = *a
	}
	t := s.backend.Topology(address)
	for i := range t.Nodes {
		if n := &t.Nodes[i]; n.ID == s.cfg.Node && n.Redis == "" {
			n.Redis = s.redisAddress()
		}
	}
	return t
}

// redisAddress is where this node serves the Redis protocol, or "".
func (s *Server) redisAddress() string {
	for _, a := range s.redisAddrs {
		if a.Network() == "tcp" {
			return a.String()
		}
	}
	return ""
}

func (s *Server) redisPort() string {
	if _, port, err := net.SplitHostPort(s.redisAddress()); err == nil {
		return port
	}
	return "0"
}

// redisAddressOf is where a node serves the Redis protocol, or "".
func (s *Server) redisAddressOf(node uint64) string {
	t := s.topology()
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

// redisMode is what Redis calls the way it runs.
func (s *Server) redisMode() string {
	if s.cfg.RedisRedirect {
		return "cluster"
	}
	return "standalone"
}

// redisNodeID is a node's name in the way of Redis: 40 hexadecimal digits.
func (s *Server) redisNodeID(node uint64) string {
	return fmt.Sprintf("%016x%024x", s.cfg.Cluster, node)
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

func redisClusterSlots(p *processor, x *redisPlan) {
	t := p.srv.topology()
	ranges := p.srv.redisRanges(&t)
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
			x.reply = resp.AppendBulk(x.reply, p.srv.redisNodeID(n.ID))
			x.reply = resp.AppendArray(x.reply, 0)
		}
	}
}

// redisClusterShards answers CLUSTER SHARDS, with one entry for each master. Its
// replicas are those of any of its ranges.
func redisClusterShards(p *processor, x *redisPlan) {
	t := p.srv.topology()
	ranges := p.srv.redisRanges(&t)
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
			pair("id", p.srv.redisNodeID(n.ID))
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
func mastersOf(ranges []redisRange) (masters []*command.Member) {
	for i := range ranges {
		if m := ranges[i].master; !slices.Contains(masters, m) {
			masters = append(masters, m)
		}
	}
	return masters
}

// redisClusterNodes answers CLUSTER NODES. Where a node is a replica of several
// masters the first of them stands for all.
func redisClusterNodes(p *processor, x *redisPlan) {
	t := p.srv.topology()
	ranges := p.srv.redisRanges(&t)
	var text []byte
	for i := range t.Nodes {
		if n := &t.Nodes[i]; n.Redis != "" {
			text = append(p.srv.appendNode(text, n, ranges, t.Epoch), '\n')
		}
	}
	x.reply = resp.AppendVerbatim(x.reply, x.proto(), "txt", text)
}

// appendNode appends what CLUSTER NODES says of one node.
func (s *Server) appendNode(text []byte, n *command.Member, ranges []redisRange, epoch uint64) []byte {
	host, port := hostPort(n.Redis)
	role, of := roleOf(n, ranges)
	if of != nil {
		role += " " + s.redisNodeID(of.ID)
	} else {
		role += " -"
	}
	if n.ID == s.cfg.Node {
		role = "myself," + role
	}
	text = fmt.Appendf(text, "%s %s:%d@%d %s 0 0 %d connected", s.redisNodeID(n.ID), host, port, port, role, epoch)
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

// redisClusterReplicas answers CLUSTER REPLICAS as CLUSTER NODES tells them.
func redisClusterReplicas(p *processor, x *redisPlan) {
	t := p.srv.topology()
	ranges := p.srv.redisRanges(&t)
	at := slices.IndexFunc(t.Nodes, func(n command.Member) bool { return p.srv.redisNodeID(n.ID) == string(x.args[2]) })
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
		x.reply = resp.AppendBulk(x.reply, p.srv.appendNode(nil, n, ranges, t.Epoch))
	}
}

// roleOf says what a node is, and of a replica whose. A node that is neither is a
// master without slots.
func roleOf(n *command.Member, ranges []redisRange) (role string, of *command.Member) {
	for i := range ranges {
		if slices.Contains(ranges[i].replicas, n) {
			return "slave", ranges[i].master
		}
	}
	return "master", nil
}

func redisClusterInfo(p *processor, x *redisPlan) {
	t := p.srv.topology()
	served, ranges := 0, p.srv.redisRanges(&t)
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
	i := info{on: true}
	i.line("cluster_state", state)
	i.number("cluster_slots_assigned", protocol.Slots)
	i.number("cluster_slots_ok", int64(served))
	i.number("cluster_slots_pfail", 0)
	i.number("cluster_slots_fail", int64(protocol.Slots-served))
	i.number("cluster_known_nodes", int64(len(t.Nodes)))
	i.number("cluster_size", int64(len(mastersOf(ranges))))
	i.number("cluster_current_epoch", int64(t.Epoch))
	i.number("cluster_my_epoch", int64(t.Epoch))
	x.reply = resp.AppendVerbatim(x.reply, x.proto(), "txt", i.text)
}

func redisClusterKeySlot(_ *processor, x *redisPlan) {
	x.reply = resp.AppendInt(x.reply, int64(protocol.Slot(x.args[2])))
}

func redisClusterMyID(p *processor, x *redisPlan) {
	x.reply = resp.AppendBulk(x.reply, p.srv.redisNodeID(p.srv.cfg.Node))
}

// redisClusterCountKeysInSlot walks over the keys of the slot's shard.
func redisClusterCountKeysInSlot(p *processor, c *conn, x *redisPlan) (held bool) {
	n, ok := x.integer(2)
	if !ok {
		p.answer(c, x.reply)
		return false
	}
	if n < 0 || n >= protocol.Slots {
		p.answerError(c, "ERR Invalid slot")
		return false
	}
	slot := uint16(n)
	w := &redisWalk{rows: walkRows, at: position{confined: true, shards: []uint16{uint16(p.srv.backend.ShardOf(slot))}}}
	w.take = func(w *redisWalk, keys [][]byte) walkStep {
		for _, key := range keys {
			w.steps += len(key)
			if protocol.Slot(key) == slot {
				w.count++
			}
		}
		return walkOn
	}
	w.end = func(w *redisWalk, dst []byte, _ int) []byte { return resp.AppendInt(dst, w.count) }
	return p.walkOver(c, w)
}

func redisReadOnly(_ *processor, x *redisPlan) {
	x.c.redis.readOnly = true
	x.ok()
}

// redisReadWrite ends READONLY.
func redisReadWrite(_ *processor, x *redisPlan) {
	x.c.redis.readOnly = false
	x.ok()
}

// redisAsking answers ASKING. Proa never sends ASK: a shard is served by one
// node at any time.
func redisAsking(_ *processor, x *redisPlan) { x.ok() }
