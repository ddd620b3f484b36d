package config

import (
	"math"
	"strings"
	"time"
)

// Effect says whether setting a key changes anything in this version.
type Effect uint8

const (
	// Active keys do what their documentation says.
	Active Effect = iota
	// Cluster keys are read and checked, and have an effect in a cluster of
	// several nodes only.
	Cluster
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

	// unixPathBytesMax is what sockaddr_un holds on the systems we run on,
	// without the closing zero byte.
	unixPathBytesMax = 103
)

// keys returns the table bound to the fields of c, in the order of the
// reference.
func (c *Config) keys() []key {
	n, l, w, r, s, m, p, mon, lg := &c.Node, &c.Listen, &c.Network, &c.Raft, &c.Storage, &c.Memory, &c.Concurrency, &c.Monitoring, &c.Log
	return []key{
		{name: "node.id", fallback: "1", value: idValue{&n.ID},
			doc: "Identity of this node. It is written into the data directory at the first start; a directory of another node is refused. Where nothing is said, the directory knows."},
		{name: "node.data_dir", fallback: "./proa-data", value: pathValue{p: &n.DataDir, required: true},
			doc: "Directory of log and state. It is created at the first start and locked while a server uses it."},
		{name: "node.shards", fallback: "8", value: intValue{p: &n.Shards, min: 1, max: 1024},
			doc: "Number of Raft groups the keys are spread over. It is fixed at the first start; another number is refused afterwards. Where nothing is said, the directory knows."},
		{name: "node.join", fallback: "", value: textValue{&n.Join}, effect: Unavailable,
			doc: "Peers of an existing cluster to join. This version runs single nodes and refuses to start with it, because a node that starts alone where it was told to join would accept writes its cluster never sees."},
		{name: "node.shutdown_timeout", fallback: "10s", value: durationValue{p: &n.ShutdownTimeout, min: 100 * time.Millisecond, max: time.Hour},
			doc: "After SIGTERM, how long clients may take to finish what is in flight before their connections are closed. Every acknowledged write is durable in any case."},

		{name: "listen.client", fallback: "127.0.0.1:7400", value: addressValue{&l.Client},
			doc: "Address of the native protocol. The default answers this machine only, because there is no authentication yet; say `:7400` to serve the network."},
		{name: "listen.unix", fallback: "", value: pathValue{p: &l.Unix, bytesMax: unixPathBytesMax},
			doc: "Path of a unix socket for the native protocol, beside or instead of TCP. A socket file that nobody listens on any more is replaced."},
		{name: "listen.peer", fallback: "127.0.0.1:7401", value: addressValue{&l.Peer}, effect: Cluster,
			doc: "Address for traffic between nodes."},
		{name: "listen.admin", fallback: "off", value: addressValue{&l.Admin},
			doc: "Address of the administration HTTP server: health, status and metrics. It has no authentication; keep it on an address that only operators reach, such as `127.0.0.1:7402`."},
		{name: "listen.resp", fallback: "off", value: addressValue{&l.RESP}, effect: Unavailable,
			doc: "Address of the Redis protocol."},

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
			doc: "Longest time from the first to the last byte of a frame, and from the connection to its handshake."},
		{name: "network.write_timeout", fallback: "30s", value: durationValue{p: &w.WriteTimeout, min: 100 * time.Millisecond, max: time.Hour},
			doc: "A client that takes none of its replies for this long is disconnected."},
		{name: "network.max_frame_size", fallback: "16MiB", value: sizeValue{p: &w.MaxFrameSize, min: frameSizeMin, max: frameSizeMax},
			doc: "Largest frame accepted, header included. A client that announces more is disconnected."},
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
		{name: "network.connection_pool_size", fallback: "100", value: intValue{p: &w.ConnectionPoolSize, min: 1, max: 10000}, effect: Cluster,
			doc: "Connections a node keeps for forwarding requests to other nodes."},

		{name: "raft.heartbeat_interval", fallback: "150ms", value: durationValue{p: &r.HeartbeatInterval, min: RaftTick, max: 10 * time.Second}, effect: Cluster,
			doc: "Time between two heartbeats of a leader: a whole multiple of 10ms."},
		{name: "raft.election_timeout_min", fallback: "300ms", value: durationValue{p: &r.ElectionTimeoutMin, min: 2 * RaftTick, max: time.Minute}, effect: Cluster,
			doc: "Shortest silence of the leader after which a follower stands for election: a whole multiple of 10ms, at least twice raft.heartbeat_interval."},
		{name: "raft.election_timeout_max", fallback: "600ms", value: durationValue{p: &r.ElectionTimeoutMax, min: 4 * RaftTick, max: 2 * time.Minute}, effect: Cluster,
			doc: "Longest such silence. It must be twice raft.election_timeout_min: Raft draws each timeout at random between the two."},
		{name: "raft.snapshot_interval_logs", fallback: "5000", value: intValue{p: &r.SnapshotIntervalLogs, min: 1, max: 10_000_000}, effect: Cluster,
			doc: "Entries kept in the log of a shard for followers that lag behind; one that lags further receives a snapshot."},
		{name: "raft.snapshot_interval_time", fallback: "1h", value: durationValue{p: &r.SnapshotIntervalTime, min: time.Second, max: 30 * day, zero: true}, zero: "never",
			doc: "The state is made durable at least this often, so that the log before it can go and a restart has less to replay."},
		{name: "raft.max_batch_size", fallback: "1000", value: intValue{p: &r.MaxBatchSize, min: 1, max: 100_000},
			doc: "Most commands that share one Raft entry. Batches form from what is queued; nothing ever waits for a batch to fill."},
		{name: "raft.replication_timeout", fallback: "5s", value: durationValue{p: &r.ReplicationTimeout, min: 10 * time.Millisecond, max: time.Hour}, effect: Cluster,
			doc: "How long a leader waits for a follower's answer before it treats it as slow."},
		{name: "raft.log_segment_size", fallback: "64MiB", value: sizeValue{p: &r.LogSegmentSize, min: mib, max: 4 * gib},
			doc: "Size of one file of the Raft log. Files are allocated ahead and reused."},
		{name: "raft.log_cache_size", fallback: auto, value: sizeValue{p: &r.LogCacheSize, min: mib, max: 64 * gib, zero: true}, zero: auto, compute: computeLogCache,
			doc: "Memory for recent log entries, over all shards. auto: 1/64 of memory, between 8MiB and 64MiB."},
		{name: "raft.log_size_max", fallback: "1GiB", value: sizeValue{p: &r.LogSizeMax, min: 4 * mib, max: tib},
			doc: "Log size past which the state is made durable at once, so that old log files can go. It must hold four files of raft.log_segment_size."},

		{name: "storage.memtable_size", fallback: auto, value: sizeValue{p: &s.MemtableSize, min: mib, max: gib, zero: true}, zero: auto, compute: computeMemtable,
			doc: "Size of one memtable; up to four exist at a time. auto: 1/64 of memory, between 8MiB and 64MiB."},
		{name: "storage.session_retention", fallback: "1h", value: durationValue{p: &s.SessionRetention, min: time.Minute, max: 30 * day},
			doc: "How long the result of a write made in a session is kept for a repetition of the same request."},

		{name: "memory.cache_size", fallback: auto, value: sizeValue{p: &m.CacheSize, min: 8 * mib, max: 64 * tib, zero: true}, zero: auto, compute: computeCache,
			doc: "Memory for cached rows (three quarters) and blocks of the state files (one quarter). auto: a quarter of memory, between 64MiB and 4GiB."},
		{name: "memory.max_memory_usage", fallback: auto, value: sizeValue{p: &m.MaxMemoryUsage, min: 256 * mib, max: 128 * tib, zero: true}, zero: auto, compute: computeMaxMemory,
			doc: "Memory the whole process aims to stay under. What caches, memtables and log leave of it bounds the requests held in memory; past that bound clients get BUSY. auto: three quarters of memory, between 256MiB and 16GiB."},
		{name: "memory.buffer_pool_size", fallback: "1024", value: intValue{p: &m.BufferPoolSize, min: 0, max: 1 << 16},
			doc: "Receive buffers to allocate at start where memory.prealloc_buffers is set. The pool grows and shrinks with use afterwards."},
		{name: "memory.prealloc_buffers", fallback: "true", value: boolValue{&m.PreallocBuffers},
			doc: "Allocate memory.buffer_pool_size receive buffers at start, so that the first burst of connections does not."},

		{name: "concurrency.worker_threads", fallback: auto, value: intValue{p: &p.WorkerThreads, min: 1, max: 65536, zero: true}, zero: auto, compute: computeWorkers,
			doc: "Threads that poll connections, commit writes, and read rows that are not cached. auto: two for each processor, at least two for each event loop and one more."},
		{name: "concurrency.max_connections", fallback: "10000", value: intValue{p: &p.MaxConnections, min: 1, max: 1_000_000},
			doc: "Client connections. One more is told so and closed. The server raises its file limit to fit, as far as the system allows."},
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
		{name: "monitoring.error_rate_warn", fallback: "0.1%", value: shareValue{&mon.ErrorRateWarn}, effect: Unavailable,
			doc: "Share of requests that fail which is worth a warning."},
		{name: "monitoring.error_rate_critical", fallback: "1%", value: shareValue{&mon.ErrorRateCritical}, effect: Unavailable,
			doc: "Share of requests that fail which is worth waking someone."},
		{name: "monitoring.memory_usage_warn", fallback: "80%", value: shareValue{&mon.MemoryUsageWarn}, effect: Unavailable,
			doc: "Share of memory.max_memory_usage in use that is worth a warning."},
		{name: "monitoring.cpu_usage_warn", fallback: "70%", value: shareValue{&mon.CPUUsageWarn}, effect: Unavailable,
			doc: "Share of all processors in use that is worth a warning."},
		{name: "monitoring.connection_usage_warn", fallback: "90%", value: shareValue{&mon.ConnectionUsageWarn}, effect: Unavailable,
			doc: "Share of concurrency.max_connections in use that is worth a warning."},

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
	c.Raft.LogCacheSize = share(c.memory(), 1.0/64, 8*mib, 64*mib)
}
func computeMemtable(c *Config) {
	c.Storage.MemtableSize = share(c.memory(), 1.0/64, 8*mib, 64*mib)
}
func computeCache(c *Config) {
	c.Memory.CacheSize = share(c.memory(), 1.0/4, 64*mib, 4*gib)
}
func computeMaxMemory(c *Config) {
	c.Memory.MaxMemoryUsage = share(c.machine.MemoryBytes, 3.0/4, 256*mib, 16*gib)
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
