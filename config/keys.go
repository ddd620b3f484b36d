package config

import (
	"math"
	"net"
	"slices"
	"strings"
	"time"
)

// Effect says whether setting a key changes anything in this version.
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
	return [...]string{"active", "cluster of several nodes", "not in this version"}[e]
}

// auto is the default of keys whose value is computed from the machine.
const auto = "auto"

// key is one row of the table: all there is to know about a setting.
type key struct {
	name     string
	fallback string // the default, in the form Set accepts, or auto
	value    value
	zero     string // what 0 means, where it is not just a small number
	compute  func(*Config)
	effect   Effect
	doc      string
}

// env returns the name of the environment variable of k.
func (k *key) env() string {
	return envPrefix + strings.ToUpper(strings.ReplaceAll(k.name, ".", "_"))
}

// allowed returns the range of k for people.
func (k *key) allowed() string {
	s := k.value.Allowed()
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
		{name: "node.id", fallback: auto, value: idValue{&n.ID}, zero: auto, compute: computeNodeID,
			doc: "Number of this node in its cluster. It is written into the data directory at the first start; a directory of another node is refused. auto: what the directory says; for a new directory 1, or, with node.join, the number the cluster gives. The nodes that found a cluster together each need their own."},
		{name: "node.data_dir", fallback: "./proa-data", value: pathValue{p: &n.DataDir, required: true},
			doc: "Directory of log and state. It is created at the first start and locked while a server uses it."},
		{name: "node.shards", fallback: "8", value: intValue{p: &n.Shards, min: 1, max: 1024},
			doc: "Number of Raft groups the keys are spread over. It is fixed at the first start; another number is refused afterwards. Where nothing is said, the directory knows."},
		{name: "node.join", fallback: "", value: peersValue{&n.Join},
			doc: "Peer addresses of the cluster this node belongs to. Nodes that found a cluster together are all given the same list, which names each of them by its node.advertise_peer, and each a node.id. A node that joins a running cluster names one or more of its members. A node whose data directory belongs to a cluster knows its peers; the list then only helps it to find them at new addresses. Without it a new directory starts a cluster of one node, which others can join."},
		{name: "node.join_token", fallback: "", value: tokenValue{&n.JoinToken},
			doc: "Join token of the cluster. A node needs it to join a cluster that runs: `proa member token` prints it there, and `proa member add` the whole command. Nodes that found a cluster need none; given one, all of them the same, they talk only to nodes that know it, and it becomes the cluster's. It is of no use to a node that belongs to a cluster already. It does not travel: both sides prove that they know it. The variable `PROA_JOIN_TOKEN` stands for it as well."},
		{name: "node.advertise_peer", fallback: auto, value: advertisedValue{&n.AdvertisePeer}, compute: computeAdvertisePeer,
			doc: "Address at which the other nodes reach listen.peer. auto: listen.peer itself; where that means all interfaces, the machine's first address that is not loopback. Port 0 stands for the port that is listened on. The address may change between two starts."},
		{name: "node.advertise_client", fallback: auto, value: advertisedValue{&n.AdvertiseClient}, compute: computeAdvertiseClient,
			doc: "Address at which clients reach listen.client; they learn it from the cluster. auto: listen.client itself; where that means all interfaces, the machine's first address that is not loopback. Port 0 stands for the port that is listened on."},
		{name: "node.advertise_resp", fallback: auto, value: advertisedValue{&n.AdvertiseRESP}, compute: computeAdvertiseRESP,
			doc: "Address at which clients of the Redis protocol reach listen.resp; those that know the cluster learn it, and are redirected to it. auto: listen.resp itself; where that means all interfaces, the machine's first address that is not loopback. Port 0 stands for the port that is listened on."},
		{name: "node.shutdown_timeout", fallback: "10s", value: durationValue{p: &n.ShutdownTimeout, min: 100 * time.Millisecond, max: time.Hour},
			doc: "How long a stop may take after SIGTERM. Clients have three quarters of it to finish what is in flight before their connections are closed; then the state is written, and what is not written in time the next start reads from the log. Every acknowledged write is durable in any case."},

		{name: "listen.client", fallback: "127.0.0.1:7400", value: addressValue{&l.Client},
			doc: "Address of the native protocol. The default answers this machine only, because there is no authentication yet; say `:7400` to serve the network."},
		{name: "listen.unix", fallback: "", value: pathValue{p: &l.Unix, bytesMax: unixPathBytesMax},
			doc: "Path of a unix socket for the native protocol, beside or instead of TCP. A socket file that nobody listens on any more is replaced."},
		{name: "listen.peer", fallback: auto, value: addressValue{&l.Peer}, compute: computeListenPeer,
			doc: "Address for traffic between nodes. Nodes prove who they are, but nothing is encrypted: open it to trusted networks only. off: this node can never have peers. auto: `127.0.0.1:7401`; where node.join names another machine, `:7401`."},
		{name: "listen.admin", fallback: "off", value: addressValue{&l.Admin},
			doc: "Address of the administration HTTP server: health, status and metrics. It has no authentication; keep it on an address that only operators reach, such as `127.0.0.1:7402`."},
		{name: "listen.resp", fallback: auto, value: addressValue{&l.RESP}, compute: computeListenRESP,
			doc: "Address of the Redis protocol (docs/redis.md). It has no authentication. off: it is not served. auto: port 7403 of the host that listen.client serves, where that keeps its port 7400; otherwise off."},

		{name: "network.transport", fallback: auto, value: choiceValue{&w.Transport, []string{"epoll", "net"}}, compute: computeTransport,
			doc: "How sockets are driven: `epoll` uses edge-triggered event loops (Linux), `net` Go's own network package (everywhere). auto: epoll where it exists."},
		{name: "network.event_loops", fallback: auto, value: intValue{p: &w.EventLoops, min: 1, max: 1024, zero: true}, zero: auto, compute: computeEventLoops,
			doc: "Event loops that share the connections. auto: one for every two processors the process may use, at least one, at most 64."},
		{name: "network.tcp_nodelay", fallback: "true", value: boolValue{&w.TCPNoDelay},
			doc: "Send small replies at once (TCP_NODELAY) instead of waiting to fill a segment."},
		{name: "network.tcp_keepalive", fallback: "60s", value: durationValue{p: &w.TCPKeepAlive, min: time.Second, max: day, zero: true}, zero: "off",
			doc: "Idle time after which TCP probes whether the client still exists."},
		{name: "network.idle_timeout", fallback: "10m", value: durationValue{p: &w.IdleTimeout, min: time.Second, max: 30 * day, zero: true}, zero: "never",
			doc: "A connection without a request for this long, and with none in flight, is closed with an IDLE notice."},
		{name: "network.frame_timeout", fallback: "30s", value: durationValue{p: &w.FrameTimeout, min: 100 * time.Millisecond, max: time.Hour},
			doc: "Longest time from the first to the last byte of a frame, and from the connection to its handshake or, over the Redis protocol, to its first command."},
		{name: "network.write_timeout", fallback: "30s", value: durationValue{p: &w.WriteTimeout, min: 100 * time.Millisecond, max: time.Hour},
			doc: "A client that takes none of its replies for this long is disconnected."},
		{name: "network.max_frame_size", fallback: auto, value: sizeValue{p: &w.MaxFrameSize, min: frameSizeMin, max: frameSizeMax, zero: true}, zero: auto, compute: computeMaxFrame,
			doc: "Largest frame accepted, header included. A client that announces more is disconnected. On its way from the connection to the files of the state a request may be in memory 17 times, and that must fit in memory.max_memory_usage. auto: 16MiB, or what does fit: 9MiB with 256MiB."},
		{name: "network.in_flight_max", fallback: "1024", value: intValue{p: &w.InFlightMax, min: 1, max: 65536},
			doc: "Requests of one connection that may be unanswered. Past it the connection is not read until replies have left."},
		{name: "network.in_flight_bytes_max", fallback: "32MiB", value: sizeValue{p: &w.InFlightBytesMax, min: 64 * kib, max: gib},
			doc: "The same bound in bytes of request frames. It must hold one frame of network.max_frame_size."},
		{name: "network.output_bytes_max", fallback: "4MiB", value: sizeValue{p: &w.OutputBytesMax, min: 64 * kib, max: gib},
			doc: "Bytes of replies that a client has not taken yet. Past it the connection is not read; one reply may exceed it."},
		{name: "network.zero_copy_enabled", fallback: "true", value: boolValue{&w.ZeroCopyEnabled}, effect: Unavailable,
			doc: "Requests are always parsed in place, in the buffer they were received in; there is no copying path to choose."},
		{name: "network.io_uring_depth", fallback: "1024", value: intValue{p: &w.IOUringDepth, min: 1, max: 32768}, effect: Unavailable,
			doc: "Entries of an io_uring submission queue. The event loops use epoll, which measured as fast."},
		{name: "network.connection_pool_size", fallback: "100", value: intValue{p: &w.ConnectionPoolSize, min: 1, max: 10000}, effect: SeveralNodes,
			doc: "Connections a node keeps for forwarding requests to other nodes."},

		{name: "resp.redirect", fallback: "false", value: boolValue{&rd.Redirect},
			doc: "Be a Redis Cluster to clients of the Redis protocol, for clients that know clusters: send them to the node that leads a key's shard (MOVED), and answer SCAN, KEYS, DBSIZE, RANDOMKEY, FLUSHALL and FLUSHDB for the keys that this node leads. Otherwise each node is one Redis with all keys. Set it alike on all nodes."},

		{name: "raft.heartbeat_interval", fallback: "150ms", value: durationValue{p: &r.HeartbeatInterval, min: RaftTick, max: 10 * time.Second},
			doc: "Time between two heartbeats of a leader: a whole multiple of 10ms."},
		{name: "raft.election_timeout_min", fallback: "300ms", value: durationValue{p: &r.ElectionTimeoutMin, min: 2 * RaftTick, max: time.Minute},
			doc: "Shortest silence of the leader after which a follower stands for election: a whole multiple of 10ms, at least twice raft.heartbeat_interval."},
		{name: "raft.election_timeout_max", fallback: "600ms", value: durationValue{p: &r.ElectionTimeoutMax, min: 4 * RaftTick, max: 2 * time.Minute},
			doc: "Longest such silence. It must be twice raft.election_timeout_min: Raft draws each timeout at random between the two."},
		{name: "raft.snapshot_interval_logs", fallback: "5000", value: intValue{p: &r.SnapshotIntervalLogs, min: 1, max: 10_000_000},
			doc: "Entries kept in the log of a shard for followers that lag behind; one that lags further receives a snapshot."},
		{name: "raft.snapshot_interval_time", fallback: "1h", value: durationValue{p: &r.SnapshotIntervalTime, min: time.Second, max: 30 * day, zero: true}, zero: "never",
			doc: "The state is made durable at least this often, so that the log before it can go and a restart has less to replay."},
		{name: "raft.max_batch_size", fallback: "1000", value: intValue{p: &r.MaxBatchSize, min: 1, max: 100_000},
			doc: "Most commands that share one Raft entry. Batches form from what is queued; nothing ever waits for a batch to fill."},
		{name: "raft.replication_timeout", fallback: "5s", value: durationValue{p: &r.ReplicationTimeout, min: 10 * time.Millisecond, max: time.Hour},
			doc: "How long a leader waits for a follower's answer before it treats it as slow. At least raft.election_timeout_max."},
		{name: "raft.log_segment_size", fallback: "64MiB", value: sizeValue{p: &r.LogSegmentSize, min: mib, max: 4 * gib},
			doc: "Size of one file of the Raft log. Files are allocated ahead and reused."},
		{name: "raft.log_cache_size", fallback: auto, value: sizeValue{p: &r.LogCacheSize, min: mib, max: 64 * gib, zero: true}, zero: auto, compute: computeLogCache,
			doc: "Memory for recent log entries, over all shards. auto: 1/64 of memory, between 8MiB and 64MiB."},
		{name: "raft.log_size_max", fallback: "1GiB", value: sizeValue{p: &r.LogSizeMax, min: 4 * mib, max: tib},
			doc: "Log size past which the state is made durable at once, so that old log files can go. It must hold four files of raft.log_segment_size."},
		{name: "raft.log_direct_io", fallback: "true", value: boolValue{&r.LogDirectIO},
			doc: "Write the log past the page cache (O_DIRECT) where the file system can. It saves processor time and leaves the page cache to the state files."},

		{name: "storage.memtable_size", fallback: auto, value: sizeValue{p: &s.MemtableSize, min: mib, max: gib, zero: true}, zero: auto, compute: computeMemtable,
			doc: "Size of one table of recent records; two exist at a time, one being filled and one being written, and those that open scans hold. A larger one meets more rows again before it is written, and makes the replay after a crash longer. auto: 1/64 of memory, between 8MiB and 256MiB."},
		{name: "storage.session_retention", fallback: "1h", value: durationValue{p: &s.SessionRetention, min: time.Minute, max: 30 * day},
			doc: "How long the result of a write made in a session is kept for a repetition of the same request."},

		{name: "memory.cache_size", fallback: auto, value: sizeValue{p: &m.CacheSize, min: 8 * mib, max: 64 * tib, zero: true}, zero: auto, compute: computeCache,
			doc: "Memory for cached rows (three quarters) and blocks of the state files (one quarter). auto: a quarter of memory up to 4GiB, or what a frame of network.max_frame_size leaves on its way, 32MiB at least."},
		{name: "memory.max_memory_usage", fallback: auto, value: sizeValue{p: &m.MaxMemoryUsage, min: usageMin, max: 128 * tib, zero: true}, zero: auto, compute: computeMaxMemory,
			doc: "Memory the whole process aims to stay under. What caches, recent records and log leave of it bounds requests and replies: large ones wait their turn, unread or not made yet, and small ones go past them. auto: three quarters of memory, between 256MiB and 16GiB."},
		{name: "memory.buffer_pool_size", fallback: "1024", value: intValue{p: &m.BufferPoolSize, min: 0, max: 1 << 16},
			doc: "Receive buffers to allocate at start where memory.prealloc_buffers is set. The pool grows and shrinks with use afterwards."},
		{name: "memory.prealloc_buffers", fallback: "true", value: boolValue{&m.PreallocBuffers},
			doc: "Allocate memory.buffer_pool_size receive buffers at start, so that the first burst of connections does not."},

		{name: "concurrency.worker_threads", fallback: auto, value: intValue{p: &p.WorkerThreads, min: 1, max: 65536, zero: true}, zero: auto, compute: computeWorkers,
			doc: "Threads that poll connections, commit writes, and read rows that are not cached. auto: two for each processor, at least two for each event loop and one more."},
		{name: "concurrency.max_connections", fallback: "10000", value: intValue{p: &p.MaxConnections, min: 1, max: 1_000_000},
			doc: "Client connections over listen.client, listen.unix and listen.resp together. One more is told so and closed. Each of several listeners has an eighth of them kept for it. The server raises its limit of open files as far as the system allows; where that leaves fewer connections beside the files of log, state and peers, this is lowered, and the log says so at start."},
		{name: "concurrency.request_timeout", fallback: "30s", value: durationValue{p: &p.RequestTimeout, min: time.Millisecond, max: time.Hour},
			doc: "Deadline of requests that name none."},
		{name: "concurrency.queue_depth", fallback: "1000", value: intValue{p: &p.QueueDepth, min: 1, max: 1_000_000},
			doc: "Requests that may wait in one shard. Past it clients get BUSY with a delay after which to try again."},

		{name: "monitoring.p50_latency_warn", fallback: "10ms", value: latency(&mon.P50LatencyWarn), effect: Unavailable,
			doc: "Median latency that is worth a warning."},
		{name: "monitoring.p99_latency_warn", fallback: "100ms", value: latency(&mon.P99LatencyWarn), effect: Unavailable,
			doc: "99th percentile of latency that is worth a warning."},
		{name: "monitoring.p999_latency_warn", fallback: "500ms", value: latency(&mon.P999LatencyWarn), effect: Unavailable,
			doc: "99.9th percentile of latency that is worth a warning."},
		{name: "monitoring.error_rate_warn", fallback: "0.1%", value: shareValue{p: &mon.ErrorRateWarn}, effect: Unavailable,
			doc: "Share of requests that fail which is worth a warning."},
		{name: "monitoring.error_rate_critical", fallback: "1%", value: shareValue{p: &mon.ErrorRateCritical}, effect: Unavailable,
			doc: "Share of requests that fail which is worth waking someone."},
		{name: "monitoring.memory_usage_warn", fallback: "80%", value: shareValue{p: &mon.MemoryUsageWarn}, effect: Unavailable,
			doc: "Share of memory.max_memory_usage in use that is worth a warning."},
		{name: "monitoring.cpu_usage_warn", fallback: "70%", value: shareValue{p: &mon.CPUUsageWarn}, effect: Unavailable,
			doc: "Share of all processors in use that is worth a warning."},
		{name: "monitoring.connection_usage_warn", fallback: "90%", value: shareValue{p: &mon.ConnectionUsageWarn}, effect: Unavailable,
			doc: "Share of concurrency.max_connections in use that is worth a warning."},

		{name: "cluster.replication_factor", fallback: "3", value: intValue{p: &cl.ReplicationFactor, min: 1, max: 7},
			doc: "Replicas of each shard, on as many nodes. Fewer nodes hold one each. An odd number is best: one more than an odd number tolerates no further failure and makes every write wait for one more node."},
		{name: "cluster.replace_after", fallback: "10m", value: durationValue{p: &cl.ReplaceAfter, min: time.Second, max: 30 * day, zero: true}, zero: "never",
			doc: "A node that has been gone for longer has its replicas rebuilt on others, where there is room. At least twice raft.election_timeout_max."},
		{name: "cluster.snapshot_rate", fallback: "64MiB", value: sizeValue{p: &cl.SnapshotRate, min: 64 * kib, max: 64 * gib, zero: true}, zero: "unlimited",
			doc: "Bytes per second that all snapshots to other nodes may take together, so that healing leaves room for clients."},
		{name: "cluster.snapshots_max", fallback: "2", value: intValue{p: &cl.SnapshotsMax, min: 1, max: 64},
			doc: "Snapshots this node receives at a time. Further ones wait."},
		{name: "cluster.slow_disk_after", fallback: "500ms", value: durationValue{p: &cl.SlowDiskAfter, min: 10 * time.Millisecond, max: time.Hour, zero: true}, zero: "never",
			doc: "Where making the log durable takes longer, the node gives its leaderships away until its disk has recovered, and says so in status, metrics and log."},
		{name: "cluster.peer_version_max", fallback: "0", value: intValue{p: &cl.PeerVersionMax, min: 1, max: 65535, zero: true}, zero: "the newest this program knows",
			doc: "Newest version of the protocol between nodes to speak. During a rolling upgrade it keeps new nodes on what the old ones know, where an upgrade is to stay reversible; otherwise leave it."},
		{name: "cluster.balance_leaders", fallback: "true", value: boolValue{&cl.BalanceLeaders},
			doc: "Spread leaders evenly over the nodes without being asked. `proa shard split-leaders` does it once."},
		{name: "cluster.clock_drift", fallback: "2%", value: shareValue{p: &cl.ClockDrift, max: 20, zero: true},
			doc: "Largest difference in rate that the clocks of two nodes may have. Leases, by which leaders answer reads alone, are shortened by it. The clocks' absolute times do not matter."},
		{name: "cluster.clock_offset_max", fallback: "500ms", value: durationValue{p: &cl.ClockOffsetMax, min: 10 * time.Millisecond, max: 24 * time.Hour},
			doc: "A node whose wall clock is further from those of the majority gives its leaderships away, and says so in status, metrics and log. Expiry does not go by that node's clock in any case."},

		{name: "log.level", fallback: "info", value: choiceValue{&lg.Level, []string{"debug", "info", "warn", "error"}},
			doc: "Least level of messages that are written."},
		{name: "log.format", fallback: auto, value: choiceValue{&lg.Format, []string{"text", "json", auto}},
			doc: "Form of messages. auto: text on a terminal, json otherwise."},
	}
}

// latency is the range common to the latency thresholds.
func latency(p *time.Duration) value {
	return durationValue{p: p, min: time.Microsecond, max: time.Hour}
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

// computeCache leaves the largest request its room, as far as the tables of recent
// records and the log do: that the process stays within its bound matters more.
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
