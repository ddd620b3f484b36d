package config

import (
	"cmp"
	"fmt"
	"net"
	"slices"
	"strings"
)

// check applies the rules that tie keys together. A rule is skipped where one
// of its keys has an error already.
func (l *loader) check() {
	c := l.config
	l.checkRaft(&c.Raft)
	l.checkListen(&c.Listen)
	l.checkMemory()

	l.rule(c.Network.InFlightBytesMax >= c.Network.MaxFrameSize, "network.in_flight_bytes_max",
		"a request of the maximum size could never be read: must be at least %s", "network.max_frame_size")
	l.rule(c.Raft.LogSizeMax/4 >= c.Raft.LogSegmentSize, "raft.log_size_max",
		"old log files are deleted one at a time: must be at least four times %s", "raft.log_segment_size")
	l.rule(c.Network.Transport != "epoll" || c.machine.Epoll, "network.transport",
		"this system has no epoll; use net or auto")
	l.rule(c.Network.Transport != "netpoll" || c.machine.Netpoll, "network.transport",
		"netpoll does not run on this system; use net or auto")
	l.checkTLS(&c.TLS)
	l.checkCluster()

	l.rule(c.Concurrency.WorkerThreads > 2*c.Network.EventLoops, "concurrency.worker_threads",
		"each event loop needs one thread to poll and one to commit: must be at least twice %s plus one", "network.event_loops")

	m := &c.Monitoring
	l.rule(m.P50LatencyWarn <= m.P99LatencyWarn, "monitoring.p50_latency_warn", "must not exceed %s", "monitoring.p99_latency_warn")
	l.rule(m.P99LatencyWarn <= m.P999LatencyWarn, "monitoring.p99_latency_warn", "must not exceed %s", "monitoring.p999_latency_warn")
	l.rule(m.ErrorRateWarn <= m.ErrorRateCritical, "monitoring.error_rate_warn", "must not exceed %s", "monitoring.error_rate_critical")
}

func (l *loader) checkRaft(r *Raft) {
	tick := "Raft's clock tick is " + FormatDuration(RaftTick) + "; must be a multiple of it"
	l.rule(r.HeartbeatInterval%RaftTick == 0, "raft.heartbeat_interval", tick)
	l.rule(r.ElectionTimeoutMin%RaftTick == 0, "raft.election_timeout_min", tick)
	l.rule(r.ElectionTimeoutMin >= 2*r.HeartbeatInterval, "raft.election_timeout_min",
		"a single late heartbeat would start an election: must be at least twice %s", "raft.heartbeat_interval")
	l.rule(r.ElectionTimeoutMax == 2*r.ElectionTimeoutMin, "raft.election_timeout_max",
		"Raft draws each election timeout between the lower bound and twice that: must be exactly twice %s; set it to "+FormatDuration(2*r.ElectionTimeoutMin), "raft.election_timeout_min")
	l.rule(r.ReplicationTimeout >= r.ElectionTimeoutMax, "raft.replication_timeout",
		"a follower may not answer for that long during an election: must be at least %s", "raft.election_timeout_max")
}

func (l *loader) checkTLS(t *TLS) {
	l.rule(t.Cert == "" || t.Key != "", "tls.key", "is not set, but %s is: set both", "tls.cert")
	l.rule(t.Key == "" || t.Cert != "", "tls.cert", "is not set, but %s is: set both", "tls.key")
	l.rule(t.Mode == Off || t.Cert != "" || t.Key != "", "tls.mode", "needs a certificate: set tls.cert and tls.key")
	l.rule(t.ClientAuth == Off || t.ClientCA != "", "tls.client_auth", "needs the authorities that sign clients' certificates: set tls.client_ca")
	l.rule(t.ClientCA == "" || t.Mode != Off, "tls.client_ca", "has no effect while %s is off: set tls.cert and tls.key", "tls.mode")
}

// checkCluster applies the rules of several nodes.
func (l *loader) checkCluster() {
	c := l.config
	joins := len(c.Node.Join) > 0
	l.rule(!joins || c.Listen.Peer != "", "listen.peer",
		"is off, but %s names peers that must be able to connect to this node: set it, for example to :7401", "node.join")
	l.rule(!joins || c.Listen.Peer == "" || c.Node.AdvertisePeer != "", "node.advertise_peer",
		"is off, but %s names peers that must be able to connect to this node: set it to an address they can reach, or to auto", "node.join")
	l.rule(!joins || c.Node.AdvertisePeer == "" || elsewhere(c.Node.AdvertisePeer) || !slices.ContainsFunc(c.Node.Join, elsewhere), "node.advertise_peer",
		"is a loopback address, but %s names other machines, which cannot connect to it: set listen.peer to :7401, or this to an address they can reach", "node.join")
	l.rule(c.Cluster.ReplaceAfter == 0 || c.Cluster.ReplaceAfter >= 2*c.Raft.ElectionTimeoutMax, "cluster.replace_after",
		"a node would be replaced before it is known to be down: must be at least twice %s", "raft.election_timeout_max")
}

// warn collects what is allowed and unwise.
func (l *loader) warn() {
	c := l.config
	if n := c.Cluster.ReplicationFactor; n%2 == 0 {
		c.warnings = append(c.warnings, fmt.Sprintf(
			"cluster.replication_factor = %d: it tolerates no more failures than %d, and every write waits for one more node; use an odd number", n, n-1))
	}
	if slices.ContainsFunc(c.Node.Join, elsewhere) && c.Node.AdvertiseClient != "" && !elsewhere(c.Node.AdvertiseClient) {
		c.warnings = append(c.warnings, fmt.Sprintf(
			"node.advertise_client = %s: clients on other machines cannot reach this address and are served through other nodes; set listen.client, for example to :7400", c.Node.AdvertiseClient))
	}
}

func (l *loader) checkListen(a *Listen) {
	l.rule(a.Client != "" || a.Unix != "", "listen.client", "is off, and so is %s: no client could connect", "listen.unix")
	addresses := []struct{ name, address string }{
		{"listen.client", a.Client}, {"listen.peer", a.Peer}, {"listen.admin", a.Admin}, {"listen.resp", a.RESP},
	}
	for i, first := range addresses {
		for _, second := range addresses[i+1:] {
			l.rule(!clash(first.address, second.address), second.name, "is already used by %s", first.name)
		}
	}
	var open []string
	for _, x := range addresses {
		if x.name != "listen.peer" && reachable(x.address) { // nodes authenticate each other
			open = append(open, x.name+" ("+x.address+")")
		}
	}
	access := &l.config.Access
	l.rule(len(open) == 0 || access.Authentication == "required" || access.Insecure, "access.authentication",
		"other machines can connect to "+strings.Join(open, ", ")+", and anyone who can connect could read, change and delete all data. "+
			"Make clients say who they are (--auth required --admin-password-file FILE), listen on a loopback address such as 127.0.0.1, or, where only trusted machines can connect, allow it (--insecure)")
}

// reachable reports whether other machines can connect to an address that is listened on.
func reachable(address string) bool {
	host, _, err := net.SplitHostPort(address)
	return err == nil && !loopback(host)
}

// clash reports whether two addresses cannot both be listened on. Port 0
// stands for any free port and never clashes.
func clash(a, b string) bool {
	hostA, portA, errA := net.SplitHostPort(a)
	hostB, portB, errB := net.SplitHostPort(b)
	if errA != nil || errB != nil || portA != portB || portA == "0" {
		return false
	}
	return hostA == hostB || anyHost(hostA) || anyHost(hostB)
}

func (l *loader) checkMemory() {
	c := l.config
	b := c.Budget()
	fixed := c.Memory.CacheSize + b.Memtables + b.LogCache
	l.rule(fixed <= c.Memory.MaxMemoryUsage/4*3, "memory.max_memory_usage",
		fmt.Sprintf("too little memory is left for requests: must be at least %s, four thirds of %%s + 4 × %%s + %%s",
			FormatSize((fixed/3*4+mib)/mib*mib)),
		"memory.cache_size", "storage.memtable_size", "raft.log_cache_size")
	l.rule(c.Network.MaxFrameSize <= c.largestFrame() || fixed > c.Memory.MaxMemoryUsage/4*3, "network.max_frame_size",
		fmt.Sprintf("processing a request of that size needs more memory than %%s leaves beside %%s, %%s and %%s: must be at most %s; or raise memory.max_memory_usage to %s",
			FormatSize(c.largestFrame()/mib*mib), FormatSize((fixed+b.Program+largeCopies*c.Network.MaxFrameSize+mib-1)/mib*mib)),
		"memory.max_memory_usage", "memory.cache_size", "storage.memtable_size", "raft.log_cache_size")
}

// rule reports that key breaks a rule unless ok. In reason, each %s stands for
// one of the other keys and is filled with its name, value and source.
func (l *loader) rule(ok bool, name, reason string, others ...string) {
	if ok || l.broken[name] {
		return
	}
	var args []any
	for _, o := range others {
		if l.broken[o] {
			return
		}
		args = append(args, fmt.Sprintf("%s (%s, %s)", o, cmp.Or(l.find(o).value.text(), "none"), l.config.sources[o]))
	}
	k := l.find(name)
	// Not l.fail: a second rule about the same key is worth reading too.
	l.errors = append(l.errors, &KeyError{
		Key: name, Value: k.value.text(), Source: l.config.sources[name],
		Reason: fmt.Sprintf(reason, args...),
	})
}
