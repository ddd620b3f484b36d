package config

import (
	"math"
	"net"
	"slices"
	"strings"
	"time"
)

// Effect is whether setting a key changes anything in this version.
type Effect uint8

const (
	// Active keys do what their documentation says.
	Active Effect = iota
	// SeveralNodes keys are read and checked, and have an effect in a cluster
	// of several nodes only.
	SeveralNodes
	// Unavailable keys are read and checked, and have no effect in this
	// version. Setting one is reported at start.
	Unavailable
)

// String returns the words used in the reference.
func (e Effect) String() string {
	return [...]string{"active", "only in a cluster of several nodes", "not in this version"}[e]
}

// auto is the default of keys whose value is computed from the machine.
const auto = "auto"

// key is one row of the table: everything about a setting.
type key struct {
	name     string
	flag     string // of serve, with its usage; "": --set alone reaches the key
	usage    string
	fallback string // the default, in the form that value.set accepts, or auto
	value    value
	zero     string // what 0 means, where it is not just a small number
	compute  func(*Config)
	effect   Effect
	secret   bool // its value is not for logs and screens
	doc      string
}

// env returns the name of the environment variable of k.
func (k *key) env() string {
	return envPrefix + strings.ToUpper(strings.ReplaceAll(k.name, ".", "_"))
}

// set sets k to text, or to what the word that stands for 0 means.
func (k *key) set(text string) error {
	zero := k.zero != "" && k.zero != auto
	if zero && strings.EqualFold(strings.TrimSpace(text), k.zero) {
		text = "0" // never, off, unlimited
	}
	return k.value.set(text, zero)
}

// allowed returns the range of k for people.
func (k *key) allowed() string {
	s := k.value.allowed
	if k.fallback == auto {
		s += ", or auto"
	}
	if k.zero != "" && k.zero != auto {
		s += ", or 0: " + k.zero
	}
	return s
}

// section returns the part of the name before the dot.
func (k *key) section() string {
	s, _, _ := strings.Cut(k.name, ".")
	return s
}

const (
	kib = int64(1) << 10
	mib = int64(1) << 20
	gib = int64(1) << 30
	tib = int64(1) << 40
	day = 24 * time.Hour

	// frameSizeMax is the frame limit of the wire protocol. frameSizeMin
	// leaves room for the largest key with all its options.
	frameSizeMax = 16 * mib
	frameSizeMin = 16 * kib

	// nodeIDMax leaves 24 of 64 bits for the number of times a node has
	// taken a replica up anew, which Raft's names of replicas hold as well.
	nodeIDMax = 1<<40 - 1

	// joinMax bounds node.join. It is far above the members a cluster needs
	// to name for one of them to be there.
	joinMax = 64

	// unixPathBytesMax is what sockaddr_un holds on the systems we run on,
	// without the closing zero byte.
	unixPathBytesMax = 103
)

// keys returns the table bound to the fields of c, in the order of the
// reference.
func (c *Config) keys() []key {
	n, l, w, rd, r, s, m, p, mon, cl, lg := &c.Node, &c.Listen, &c.Network, &c.RESP, &c.Raft, &c.Storage, &c.Memory, &c.Concurrency, &c.Monitoring, &c.Cluster, &c.Log
	return []key{
		{name: "node.id", flag: "node-id", usage: "`number` of this node in its cluster", fallback: auto, value: nodeID(&n.ID), zero: auto, compute: computeNodeID,
			doc: "Number of this node in its cluster. It is stored in the data directory at the first start; a directory that belongs to another node is refused. auto: the number stored in the directory; for a new directory 1, or, with node.join, a number assigned by the cluster. Nodes that create a cluster together each need their own number."},
		{name: "node.data_dir", flag: "data", usage: "data `directory`", fallback: "./proa-data", value: directory(&n.DataDir),
			doc: "Directory for the log and the state. It is created at the first start and locked while a server uses it."},
		{name: "node.shards", flag: "shards", usage: "`number` of shards; fixed at the first start", fallback: "8", value: integer(&n.Shards, 1, 1024),
			doc: "Number of shards (Raft groups) that the keys are distributed over. It is fixed at the first start; a different number is refused later. If not set, the number stored in the data directory applies."},
		{name: "node.join", flag: "join", usage: "`peers`, host:port,...: all nodes of a new cluster, or members of a running cluster to join", fallback: "", value: peers(&n.Join),
			doc: "Peer addresses of the cluster. To create a cluster, give all its nodes the same list, which contains the node.advertise_peer of each node, and give each node a node.id. To join a running cluster, give one or more of its members. A node whose data directory already belongs to a cluster knows its peers; the list then only helps it to find them at new addresses. If not set, a new directory starts a cluster of one node, which other nodes can join."},
		{name: "node.join_token", secret: true, flag: "join-token", usage: "join `token` of a running cluster; also " + EnvJoinToken, fallback: "", value: token(&n.JoinToken),
			doc: "Join token of the cluster. A node needs it to join a running cluster: `proa member token` prints the token on a running node, and `proa member add` prints the whole command. Nodes that create a cluster need no token; if all of them are given the same one, they accept only nodes that have it, and it becomes the cluster's token. A node that already belongs to a cluster does not use it. The token is never sent over the network: both sides prove that they have it. It can also be set with the variable `PROA_JOIN_TOKEN`."},
		{name: "node.advertise_peer", flag: "advertise-peer", usage: "`address` at which other nodes reach this one", fallback: auto, value: advertised(&n.AdvertisePeer), compute: computeAdvertisePeer,
			doc: "Address at which the other nodes reach listen.peer. auto: listen.peer itself; if listen.peer means all interfaces, the machine's first address that is not loopback. Port 0 stands for the actual port of listen.peer. The address may change between two starts."},
		{name: "node.advertise_client", flag: "advertise-client", usage: "`address` at which clients reach this node", fallback: auto, value: advertised(&n.AdvertiseClient), compute: computeAdvertiseClient,
			doc: "Address at which clients reach listen.client; clients learn it from the cluster. auto: listen.client itself; if listen.client means all interfaces, the machine's first address that is not loopback. Port 0 stands for the actual port of listen.client."},
		{name: "node.advertise_resp", flag: "advertise-resp", usage: "`address` at which clients of the Redis protocol reach this node", fallback: auto, value: advertised(&n.AdvertiseRESP), compute: computeAdvertiseRESP,
			doc: "Address at which clients of the Redis protocol reach listen.resp; cluster-aware clients learn it and are redirected to it. auto: listen.resp itself; if listen.resp means all interfaces, the machine's first address that is not loopback. Port 0 stands for the actual port of listen.resp."},
		{name: "node.shutdown_timeout", fallback: "10s", value: duration(&n.ShutdownTimeout, 100*time.Millisecond, time.Hour),
			doc: "Maximum time for a shutdown after SIGTERM. Clients have three quarters of it to finish requests in flight before their connections are closed; then the state is written to disk. State that is not written in time is replayed from the log at the next start. Acknowledged writes are durable in any case."},

		{name: "listen.client", flag: "listen", usage: "client `address`; :7400 accepts connections from the network", fallback: "127.0.0.1:7400", value: address(&l.Client),
			doc: "Address of the native protocol. The default accepts connections from this machine only, because there is no authentication yet; set `:7400` to accept connections from the network."},
		{name: "listen.unix", flag: "unix", usage: "unix socket `path` for clients", fallback: "", value: socket(&l.Unix),
			doc: "Path of a Unix socket for the native protocol, in addition to TCP or instead of it. A stale socket file, which no process listens on, is replaced."},
		{name: "listen.peer", flag: "peer-listen", usage: "`address` for other nodes, or off", fallback: auto, value: address(&l.Peer), compute: computeListenPeer,
			doc: "Address for traffic between nodes. Nodes authenticate each other, but traffic is not encrypted: make this address reachable from trusted networks only. off: this node can never have peers. auto: `127.0.0.1:7401`; if node.join names another machine, `:7401`."},
		{name: "listen.admin", flag: "admin-listen", usage: "`address` of the administration server", fallback: "off", value: address(&l.Admin),
			doc: "Address of the admin HTTP server: health, status and metrics. It has no authentication; use an address that only operators can reach, such as `127.0.0.1:7402`."},
		{name: "listen.resp", flag: "resp-listen", usage: "`address` of the Redis protocol, or off", fallback: auto, value: address(&l.RESP), compute: computeListenRESP,
			doc: "Address of the Redis protocol (docs/redis.md). It has no authentication. off: the Redis protocol is disabled. auto: port 7403 on the host of listen.client if listen.client uses port 7400; otherwise off."},

		{name: "network.transport", fallback: auto, value: choice(&w.Transport, "epoll", "net"), compute: computeTransport,
			doc: "Network I/O implementation: `epoll` uses edge-triggered event loops (Linux only), `net` uses Go's network package (all systems). auto: epoll where available."},
		{name: "network.event_loops", fallback: auto, value: integer(&w.EventLoops, 1, 1024), zero: auto, compute: computeEventLoops,
			doc: "Number of event loops that serve connections. auto: one for every two processors available to the process, at least 1, at most 64."},
		{name: "network.tcp_nodelay", fallback: "true", value: boolean(&w.TCPNoDelay),
			doc: "Send small replies immediately (TCP_NODELAY) instead of waiting to fill a segment."},
		{name: "network.tcp_keepalive", fallback: "60s", value: duration(&w.TCPKeepAlive, time.Second, day), zero: "off",
			doc: "Idle time after which TCP keepalive checks whether the client still exists."},
		{name: "network.idle_timeout", fallback: "10m", value: duration(&w.IdleTimeout, time.Second, 30*day), zero: "never",
			doc: "A connection without a request for this long, and without a request in flight, is closed with an IDLE notice."},
		{name: "network.frame_timeout", fallback: "30s", value: duration(&w.FrameTimeout, 100*time.Millisecond, time.Hour),
			doc: "Maximum time from the first to the last byte of a frame, and from the connection to the handshake or, in the Redis protocol, to the first command."},
		{name: "network.write_timeout", fallback: "30s", value: duration(&w.WriteTimeout, 100*time.Millisecond, time.Hour),
			doc: "A client that reads none of its replies for this long is disconnected."},
		{name: "network.max_frame_size", fallback: auto, value: size(&w.MaxFrameSize, frameSizeMin, frameSizeMax), zero: auto, compute: computeMaxFrame,
			doc: "Maximum size of a frame, including the header. A client that announces a larger one is disconnected. While a request is processed, up to 17 copies of it can be in memory at the same time, from the connection to the state files; they must fit in memory.max_memory_usage. auto: 16MiB, or less if that does not fit: 9MiB with 256MiB of memory."},
		{name: "network.in_flight_max", fallback: "1024", value: integer(&w.InFlightMax, 1, 65536),
			doc: "Maximum number of unanswered requests of one connection. When it is reached, the server stops reading from the connection until replies have been sent."},
		{name: "network.in_flight_bytes_max", fallback: "32MiB", value: size(&w.InFlightBytesMax, 64*kib, gib),
			doc: "The same limit in bytes of request frames. It must be at least network.max_frame_size."},
		{name: "network.output_bytes_max", fallback: "4MiB", value: size(&w.OutputBytesMax, 64*kib, gib),
			doc: "Maximum bytes of replies that a client has not read yet. When it is reached, the server stops reading from the connection; a single reply may exceed it."},
		{name: "network.zero_copy_enabled", fallback: "true", value: boolean(&w.ZeroCopyEnabled), effect: Unavailable,
			doc: "Requests are always parsed in place, in the receive buffer; there is no alternative that copies them."},
		{name: "network.io_uring_depth", fallback: "1024", value: integer(&w.IOUringDepth, 1, 32768), effect: Unavailable,
			doc: "Size of an io_uring submission queue. The event loops use epoll, which is as fast in measurements."},
		{name: "network.connection_pool_size", fallback: "100", value: integer(&w.ConnectionPoolSize, 1, 10000), effect: SeveralNodes,
			doc: "Maximum number of connections that a node keeps for forwarding requests to other nodes."},

		{name: "resp.redirect", fallback: "false", value: boolean(&rd.Redirect),
			doc: "Act as a Redis Cluster node for cluster-aware clients of the Redis protocol: redirect them to the node that leads a key's shard (MOVED), and answer SCAN, KEYS, DBSIZE, RANDOMKEY, FLUSHALL and FLUSHDB only for the keys of the shards that this node leads. If false, each node acts as a single Redis server with all keys. Use the same value on all nodes."},

		{name: "raft.heartbeat_interval", fallback: "150ms", value: duration(&r.HeartbeatInterval, RaftTick, 10*time.Second),
			doc: "Time between two heartbeats of a leader: a multiple of 10ms."},
		{name: "raft.election_timeout_min", fallback: "300ms", value: duration(&r.ElectionTimeoutMin, 2*RaftTick, time.Minute),
			doc: "Minimum time without a heartbeat from the leader before a follower starts an election: a multiple of 10ms, at least twice raft.heartbeat_interval."},
		{name: "raft.election_timeout_max", fallback: "600ms", value: duration(&r.ElectionTimeoutMax, 4*RaftTick, 2*time.Minute),
			doc: "Maximum of that time. It must be twice raft.election_timeout_min: Raft picks each election timeout at random between the two."},
		{name: "raft.snapshot_interval_logs", fallback: "5000", value: integer(&r.SnapshotIntervalLogs, 1, 10_000_000),
			doc: "Number of entries kept in the log of a shard for followers that lag behind; a follower that lags further receives a snapshot."},
		{name: "raft.snapshot_interval_time", fallback: "1h", value: duration(&r.SnapshotIntervalTime, time.Second, 30*day), zero: "never",
			doc: "Maximum time between two writes of the state to disk. A write allows older log files to be deleted and shortens the replay after a restart."},
		{name: "raft.max_batch_size", fallback: "1000", value: integer(&r.MaxBatchSize, 1, 100_000),
			doc: "Maximum number of commands in one Raft entry. A batch contains what is already queued; the server never waits for a batch to fill."},
		{name: "raft.replication_timeout", fallback: "5s", value: duration(&r.ReplicationTimeout, 10*time.Millisecond, time.Hour),
			doc: "How long a leader waits for a follower's answer before it considers the follower slow. At least raft.election_timeout_max."},
		{name: "raft.log_segment_size", fallback: "64MiB", value: size(&r.LogSegmentSize, mib, 4*gib),
			doc: "Size of one file of the Raft log. Files are allocated in advance and reused."},
		{name: "raft.log_cache_size", fallback: auto, value: size(&r.LogCacheSize, mib, 64*gib), zero: auto, compute: computeLogCache,
			doc: "Memory for recent log entries of all shards. auto: 1/64 of memory, between 8MiB and 64MiB."},
		{name: "raft.log_size_max", fallback: "1GiB", value: size(&r.LogSizeMax, 4*mib, tib),
			doc: "Log size above which the state is written to disk immediately, so that old log files can be deleted. It must be at least four times raft.log_segment_size."},
		{name: "raft.log_direct_io", fallback: "true", value: boolean(&r.LogDirectIO),
			doc: "Write the log with direct I/O (O_DIRECT), bypassing the page cache, where the file system supports it. This saves processor time and leaves the page cache to the state files."},

		{name: "storage.memtable_size", fallback: auto, value: size(&s.MemtableSize, mib, gib), zero: auto, compute: computeMemtable,
			doc: "Size of one memtable. Two exist at a time, one being filled and one being written to disk, plus those that open scans use. A larger memtable combines more writes of the same rows before they are written to disk, and makes the replay after a crash longer. auto: 1/64 of memory, between 8MiB and 256MiB."},
		{name: "storage.session_retention", fallback: "1h", value: duration(&s.SessionRetention, time.Minute, 30*day),
			doc: "How long the result of a write in a session is kept, to answer a repetition of the same request."},

		{name: "memory.cache_size", fallback: auto, value: size(&m.CacheSize, 8*mib, 64*tib), zero: auto, compute: computeCache,
			doc: "Memory for cached rows (three quarters) and cached blocks of the state files (one quarter). auto: a quarter of memory, at most 4GiB, or less if needed to process a request of network.max_frame_size; at least 32MiB."},
		{name: "memory.max_memory_usage", fallback: auto, value: size(&m.MaxMemoryUsage, usageMin, 128*tib), zero: auto, compute: computeMaxMemory,
			doc: "Target limit for the memory of the whole process. What caches, memtables and the log leave of it is available for requests and replies: large ones wait until there is room, while small ones go ahead of them. auto: three quarters of memory, between 256MiB and 16GiB."},
		{name: "memory.buffer_pool_size", fallback: "1024", value: integer(&m.BufferPoolSize, 0, 1<<16),
			doc: "Number of receive buffers to allocate at start if memory.prealloc_buffers is set. Afterwards the pool grows and shrinks with use."},
		{name: "memory.prealloc_buffers", fallback: "true", value: boolean(&m.PreallocBuffers),
			doc: "Allocate memory.buffer_pool_size receive buffers at start, so that the first burst of connections does not have to."},

		{name: "concurrency.worker_threads", fallback: auto, value: integer(&p.WorkerThreads, 1, 65536), zero: auto, compute: computeWorkers,
			doc: "Number of threads that poll connections, commit writes, and read rows that are not cached. auto: two per processor, and at least two per event loop plus one."},
		{name: "concurrency.max_connections", fallback: "10000", value: integer(&p.MaxConnections, 1, 1_000_000),
			doc: "Maximum number of client connections, for listen.client, listen.unix and listen.resp together. A further connection gets an error and is closed. If there are several listeners, an eighth of the limit is reserved for each. The server raises its limit of open files as far as the system allows; if that is too low for this many connections besides the files of log, state and peers, the server lowers this limit and logs that at start."},
		{name: "concurrency.request_timeout", fallback: "30s", value: duration(&p.RequestTimeout, time.Millisecond, time.Hour),
			doc: "Deadline of requests that do not set one."},
		{name: "concurrency.queue_depth", fallback: "1000", value: integer(&p.QueueDepth, 1, 1_000_000),
			doc: "Maximum number of requests that wait in one shard. When it is reached, clients get BUSY with a delay after which to retry."},

		{name: "monitoring.p50_latency_warn", fallback: "10ms", value: latency(&mon.P50LatencyWarn), effect: Unavailable,
			doc: "Median latency above which to warn."},
		{name: "monitoring.p99_latency_warn", fallback: "100ms", value: latency(&mon.P99LatencyWarn), effect: Unavailable,
			doc: "99th percentile of latency above which to warn."},
		{name: "monitoring.p999_latency_warn", fallback: "500ms", value: latency(&mon.P999LatencyWarn), effect: Unavailable,
			doc: "99.9th percentile of latency above which to warn."},
		{name: "monitoring.error_rate_warn", fallback: "0.1%", value: percentage(&mon.ErrorRateWarn, true, 1), effect: Unavailable,
			doc: "Share of failed requests above which to warn."},
		{name: "monitoring.error_rate_critical", fallback: "1%", value: percentage(&mon.ErrorRateCritical, true, 1), effect: Unavailable,
			doc: "Share of failed requests above which to alert."},
		{name: "monitoring.memory_usage_warn", fallback: "80%", value: percentage(&mon.MemoryUsageWarn, true, 1), effect: Unavailable,
			doc: "Share of memory.max_memory_usage in use above which to warn."},
		{name: "monitoring.cpu_usage_warn", fallback: "70%", value: percentage(&mon.CPUUsageWarn, true, 1), effect: Unavailable,
			doc: "Share of all processors in use above which to warn."},
		{name: "monitoring.connection_usage_warn", fallback: "90%", value: percentage(&mon.ConnectionUsageWarn, true, 1), effect: Unavailable,
			doc: "Share of concurrency.max_connections in use above which to warn."},

		{name: "cluster.replication_factor", fallback: "3", value: integer(&cl.ReplicationFactor, 1, 7),
			doc: "Number of replicas of each shard, each on another node. A cluster with fewer nodes has one replica per node. Use an odd number: an even one tolerates no more failures than the odd one below it, and every write waits for one more node."},
		{name: "cluster.replace_after", fallback: "10m", value: duration(&cl.ReplaceAfter, time.Second, 30*day), zero: "never",
			doc: "Time after which the replicas of a node that is down are rebuilt on other nodes, if there are any without a replica of the shard. At least twice raft.election_timeout_max."},
		{name: "cluster.snapshot_rate", fallback: "64MiB", value: size(&cl.SnapshotRate, 64*kib, 64*gib), zero: "unlimited",
			doc: "Maximum bytes per second for all snapshots sent to other nodes together, so that rebuilding replicas does not slow down clients."},
		{name: "cluster.snapshots_max", fallback: "2", value: integer(&cl.SnapshotsMax, 1, 64),
			doc: "Maximum number of snapshots that this node receives at the same time. Further ones wait."},
		{name: "cluster.slow_disk_after", fallback: "500ms", value: duration(&cl.SlowDiskAfter, 10*time.Millisecond, time.Hour), zero: "never",
			doc: "If an fsync of the log takes longer, the node hands its leaderships to other nodes until its disk has recovered, and reports that in status, metrics and log."},
		{name: "cluster.peer_version_max", fallback: "0", value: integer(&cl.PeerVersionMax, 1, 65535), zero: "the newest supported",
			doc: "Maximum version of the peer protocol. During a rolling upgrade that must stay reversible, set it to the version of the old nodes; otherwise leave the default."},
		{name: "cluster.balance_leaders", fallback: "true", value: boolean(&cl.BalanceLeaders),
			doc: "Distribute leaders evenly over the nodes automatically. `proa shard split-leaders` does it once."},
		{name: "cluster.clock_drift", fallback: "2%", value: percentage(&cl.ClockDrift, false, 0.2),
			doc: "Maximum difference in speed between the clocks of two nodes. Read leases are shortened by it. The absolute times of the clocks do not matter here."},
		{name: "cluster.clock_offset_max", fallback: "500ms", value: duration(&cl.ClockOffsetMax, 10*time.Millisecond, 24*time.Hour),
			doc: "A node whose wall clock differs from the clocks of the majority by more than this hands its leaderships to other nodes, and reports that in status, metrics and log. Expiry does not depend on that node's clock in any case."},

		{name: "log.level", flag: "log-level", usage: "minimum log `level`: debug, info, warn, error", fallback: "info", value: choice(&lg.Level, "debug", "info", "warn", "error"),
			doc: "Minimum log level: messages below it are not written."},
		{name: "log.format", flag: "log-format", usage: "log `format`: text, json, or auto", fallback: auto, value: choice(&lg.Format, "text", "json", auto),
			doc: "Log format: text (key=value), json, or auto: short lines in colour on a terminal, json otherwise."},
	}
}

// computeNodeID leaves the number open.
func computeNodeID(c *Config) { c.Node.ID = 0 }

// computeListenPeer opens the peer port to the network only where another
// machine is to be a peer.
func computeListenPeer(c *Config) {
	c.Listen.Peer = "127.0.0.1:7401"
	if slices.ContainsFunc(c.Node.Join, elsewhere) {
		c.Listen.Peer = ":7401"
	}
}

func computeAdvertisePeer(c *Config) {
	if c.sources["listen.peer"].Kind == FromMachine {
		computeListenPeer(c) // stands later in the table
	}
	c.Node.AdvertisePeer = c.advertised(c.Listen.Peer)
}

func computeAdvertiseClient(c *Config) { c.Node.AdvertiseClient = c.advertised(c.Listen.Client) }

// computeListenRESP serves the Redis protocol beside the native one where that
// keeps its usual port. Whoever chooses ports chooses this one as well.
func computeListenRESP(c *Config) {
	c.Listen.RESP = ""
	if host, port, err := net.SplitHostPort(c.Listen.Client); err == nil && port == "7400" {
		c.Listen.RESP = net.JoinHostPort(host, "7403")
	}
}

func computeAdvertiseRESP(c *Config) {
	if c.sources["listen.resp"].Kind == FromMachine {
		computeListenRESP(c) // stands later in the table
	}
	c.Node.AdvertiseRESP = c.advertised(c.Listen.RESP)
}

func computeTransport(c *Config) {
	c.Network.Transport = "net"
	if c.machine.Epoll {
		c.Network.Transport = "epoll"
	}
}

func computeEventLoops(c *Config) { c.Network.EventLoops = min(max(c.machine.Processors/2, 1), 64) }
func computeWorkers(c *Config) {
	c.Concurrency.WorkerThreads = max(2*c.machine.Processors, 2*c.Network.EventLoops+1)
}
func computeLogCache(c *Config) {
	c.Raft.LogCacheSize = share(c.memory(), 1.0/64, logCacheMin, 64*mib)
}
func computeMemtable(c *Config) {
	c.Storage.MemtableSize = share(c.memory(), 1.0/64, memtableMin, 256*mib)
}

// computeMaxFrame lets in what has room beside the smallest cache. What is later in
// the table is not computed yet.
func computeMaxFrame(c *Config) {
	d := *c
	d.Memory.MaxMemoryUsage = c.usage()
	if d.Raft.LogCacheSize == 0 {
		computeLogCache(&d)
	}
	if d.Storage.MemtableSize == 0 {
		computeMemtable(&d)
	}
	if d.Memory.CacheSize == 0 {
		d.Memory.CacheSize = cacheMin
	}
	c.Network.MaxFrameSize = min(max(d.largestFrame()/mib*mib, frameSizeMin), frameSizeMax)
}

// computeCache leaves the largest request its room, as far as the memtables and the
// log do: that the process stays within its bound matters more.
func computeCache(c *Config) {
	b := c.Budget()
	room := c.usage() - b.Memtables - b.LogCache - b.Program - largeCopies*c.Network.MaxFrameSize
	c.Memory.CacheSize = max(min(share(c.memory(), 1.0/4, cacheMin, 4*gib), room/mib*mib), cacheMin)
}

// The least that is computed of what has a share of the memory.
const (
	cacheMin    = 32 * mib
	memtableMin = 8 * mib
	logCacheMin = 8 * mib
	usageMin    = 256 * mib
)

// usage is memory.max_memory_usage, also before it is computed.
func (c *Config) usage() int64 {
	if usage := c.Memory.MaxMemoryUsage; usage > 0 {
		return usage
	}
	return share(c.machine.MemoryBytes, 3.0/4, usageMin, 16*gib)
}

func computeMaxMemory(c *Config) {
	c.Memory.MaxMemoryUsage = c.usage()
}

// memory returns the memory that caches are a share of. Where the user bounds
// the process, the caches follow the bound: three quarters of that memory is
// what memory.max_memory_usage would be computed from. (Where it is computed
// too, it still is 0 here, being later in the table.)
func (c *Config) memory() int64 {
	if usage := c.Memory.MaxMemoryUsage; usage > 0 {
		return min(c.machine.MemoryBytes, usage/3*4)
	}
	return c.machine.MemoryBytes
}

// share returns the given part of total within bounds, in whole mebibytes.
func share(total int64, part float64, lowest, highest int64) int64 {
	n := int64(math.Floor(float64(total)*part)) / mib * mib
	return min(max(n, lowest), highest)
}
