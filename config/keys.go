package config

import (
	"cmp"
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

// key is one row of the table: everything about a setting but its description,
// which is in reference.md.
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
	n, l, w, t, rd, r, s, m, p, mon, cl, lg := &c.Node, &c.Listen, &c.Network, &c.TLS, &c.RESP, &c.Raft, &c.Storage, &c.Memory, &c.Concurrency, &c.Monitoring, &c.Cluster, &c.Log
	acc := &c.Access
	return []key{
		{name: "node.id", flag: "node-id", usage: "`number` of this node in its cluster", fallback: auto, value: nodeID(&n.ID), zero: auto, compute: func(c *Config) { c.Node.ID = 0 }},
		{name: "node.data_dir", flag: "data", usage: "data `directory`", fallback: "./proa-data", value: pathname(&n.DataDir, "a path", true, math.MaxInt)},
		{name: "node.shards", flag: "shards", usage: "`number` of shards; fixed at the first start", fallback: "8", value: integer(&n.Shards, 1, 1024)},
		{name: "node.join", flag: "join", usage: "`peers`, host:port,...: all nodes of a new cluster, or members of a running cluster to join", fallback: "", value: peers(&n.Join)},
		{name: "node.join_token", secret: true, flag: "join-token", usage: "join `token` of a running cluster; also " + EnvJoinToken, fallback: "", value: token(&n.JoinToken)},
		{name: "node.cluster_secret_file", flag: "cluster-secret-file", usage: "`file` with the secret that all nodes of the cluster share; also " + EnvClusterSecret, fallback: "", value: pathname(&n.ClusterSecretFile, "a path, or empty for none", false, math.MaxInt)},
		{name: "node.cluster_secret_check", fallback: "required", value: choice(&n.ClusterSecretCheck, "required", "optional")},
		{name: "node.advertise_peer", flag: "advertise-peer", usage: "`address` at which other nodes reach this one", fallback: auto, value: advertised(&n.AdvertisePeer), compute: computeAdvertisePeer},
		{name: "node.advertise_client", flag: "advertise-client", usage: "`address` at which clients reach this node", fallback: auto, value: advertised(&n.AdvertiseClient), compute: func(c *Config) { c.Node.AdvertiseClient = c.advertised(c.Listen.Client) }},
		{name: "node.advertise_resp", flag: "advertise-resp", usage: "`address` at which clients of the Redis protocol reach this node", fallback: auto, value: advertised(&n.AdvertiseRESP), compute: computeAdvertiseRESP},
		{name: "node.shutdown_timeout", fallback: "10s", value: duration(&n.ShutdownTimeout, 100*time.Millisecond, time.Hour)},

		{name: "listen.client", flag: "listen", usage: "client `address`; :7400 accepts connections from the network", fallback: "127.0.0.1:7400", value: address(&l.Client)},
		{name: "listen.unix", flag: "unix", usage: "unix socket `path` for clients", fallback: "", value: pathname(&l.Unix, "a path, or empty for none", false, unixPathBytesMax)},
		{name: "listen.peer", flag: "peer-listen", usage: "`address` for other nodes, or off", fallback: auto, value: address(&l.Peer), compute: computeListenPeer},
		{name: "listen.admin", flag: "admin-listen", usage: "`address` of the administration server", fallback: "off", value: address(&l.Admin)},
		{name: "listen.resp", flag: "resp-listen", usage: "`address` of the Redis protocol, or off", fallback: auto, value: address(&l.RESP), compute: computeListenRESP},

		{name: "access.authentication", flag: "auth", usage: "`whether` clients must name a user: required or off", fallback: "off", value: choice(&acc.Authentication, "off", "required")},
		{name: "access.admin_password_file", flag: "admin-password-file", usage: "`file` with the password of the first administrator", fallback: "", value: pathname(&acc.AdminPasswordFile, "a path, or empty for none", false, math.MaxInt)},
		{name: "access.audit_log", fallback: "off", value: orOff(&acc.AuditLog, "a path, stderr, or off", func(string) error { return nil })},
		{name: "access.insecure", flag: "insecure", usage: "accept clients from the network without authentication", fallback: "false", value: boolean(&acc.Insecure)},

		{name: "network.transport", fallback: auto, value: choice(&w.Transport, "epoll", "net", "netpoll"), compute: computeTransport},
		{name: "network.event_loops", fallback: auto, value: integer(&w.EventLoops, 1, 1024), zero: auto, compute: func(c *Config) { c.Network.EventLoops = min(max(c.machine.Processors/2, 1), 64) }},
		{name: "network.tcp_nodelay", fallback: "true", value: boolean(&w.TCPNoDelay)},
		{name: "network.tcp_keepalive", fallback: "60s", value: duration(&w.TCPKeepAlive, time.Second, day), zero: "off"},
		{name: "network.idle_timeout", fallback: "10m", value: duration(&w.IdleTimeout, time.Second, 30*day), zero: "never"},
		{name: "network.frame_timeout", fallback: "30s", value: duration(&w.FrameTimeout, 100*time.Millisecond, time.Hour)},
		{name: "network.write_timeout", fallback: "30s", value: duration(&w.WriteTimeout, 100*time.Millisecond, time.Hour)},
		{name: "network.max_frame_size", fallback: auto, value: size(&w.MaxFrameSize, frameSizeMin, frameSizeMax), zero: auto, compute: computeMaxFrame},
		{name: "network.in_flight_max", fallback: "1024", value: integer(&w.InFlightMax, 1, 65536)},
		{name: "network.in_flight_bytes_max", fallback: "32MiB", value: size(&w.InFlightBytesMax, 64*kib, gib)},
		{name: "network.output_bytes_max", fallback: "4MiB", value: size(&w.OutputBytesMax, 64*kib, gib)},
		{name: "network.zero_copy_enabled", fallback: "true", value: boolean(&w.ZeroCopyEnabled), effect: Unavailable},
		{name: "network.io_uring_depth", fallback: "1024", value: integer(&w.IOUringDepth, 1, 32768), effect: Unavailable},
		{name: "network.connection_pool_size", fallback: "100", value: integer(&w.ConnectionPoolSize, 1, 10000), effect: SeveralNodes},

		{name: "tls.mode", flag: "tls", usage: "`mode` of TLS for clients: off, optional or required", fallback: auto, value: choice(&t.Mode, Off, Optional, Required), compute: computeTLSMode},
		{name: "tls.cert", flag: "tls-cert", usage: "certificate `file` (PEM) of the server", fallback: "", value: pathname(&t.Cert, "a path, or empty for none", false, math.MaxInt)},
		{name: "tls.key", flag: "tls-key", usage: "key `file` (PEM) of the server's certificate", fallback: "", value: pathname(&t.Key, "a path, or empty for none", false, math.MaxInt)},
		{name: "tls.client_ca", flag: "tls-client-ca", usage: "`file` (PEM) of authorities that sign clients' certificates", fallback: "", value: pathname(&t.ClientCA, "a path, or empty for none", false, math.MaxInt)},
		{name: "tls.client_auth", fallback: auto, value: choice(&t.ClientAuth, Off, Optional, Required), compute: computeClientAuth},
		{name: "tls.min_version", fallback: "1.3", value: choice(&t.MinVersion, "1.3", "1.2")},

		{name: "resp.redirect", fallback: "false", value: boolean(&rd.Redirect)},

		{name: "raft.engine", fallback: "etcd", value: choice(&r.Engine, "etcd", "dragonboat")},
		{name: "raft.heartbeat_interval", fallback: "150ms", value: duration(&r.HeartbeatInterval, RaftTick, 10*time.Second)},
		{name: "raft.election_timeout_min", fallback: "300ms", value: duration(&r.ElectionTimeoutMin, 2*RaftTick, time.Minute)},
		{name: "raft.election_timeout_max", fallback: "600ms", value: duration(&r.ElectionTimeoutMax, 4*RaftTick, 2*time.Minute)},
		{name: "raft.snapshot_interval_logs", fallback: "5000", value: integer(&r.SnapshotIntervalLogs, 1, 10_000_000)},
		{name: "raft.snapshot_interval_time", fallback: "1h", value: duration(&r.SnapshotIntervalTime, time.Second, 30*day), zero: "never"},
		{name: "raft.max_batch_size", fallback: "1000", value: integer(&r.MaxBatchSize, 1, 100_000)},
		{name: "raft.replication_timeout", fallback: "5s", value: duration(&r.ReplicationTimeout, 10*time.Millisecond, time.Hour)},
		{name: "raft.log_segment_size", fallback: "64MiB", value: size(&r.LogSegmentSize, mib, 4*gib)},
		{name: "raft.log_cache_size", fallback: auto, value: size(&r.LogCacheSize, mib, 64*gib), zero: auto, compute: computeLogCache},
		{name: "raft.log_size_max", fallback: "1GiB", value: size(&r.LogSizeMax, 4*mib, tib)},
		{name: "raft.log_direct_io", fallback: "true", value: boolean(&r.LogDirectIO)},

		{name: "storage.memtable_size", fallback: auto, value: size(&s.MemtableSize, mib, gib), zero: auto, compute: computeMemtable},
		{name: "storage.session_retention", fallback: "1h", value: duration(&s.SessionRetention, time.Minute, 30*day)},

		{name: "memory.cache_size", fallback: auto, value: size(&m.CacheSize, 8*mib, 64*tib), zero: auto, compute: computeCache},
		{name: "memory.max_memory_usage", fallback: auto, value: size(&m.MaxMemoryUsage, usageMin, 128*tib), zero: auto, compute: func(c *Config) { c.Memory.MaxMemoryUsage = c.usage() }},
		{name: "memory.buffer_pool_size", fallback: "1024", value: integer(&m.BufferPoolSize, 0, 1<<16)},
		{name: "memory.prealloc_buffers", fallback: "true", value: boolean(&m.PreallocBuffers)},

		{name: "concurrency.worker_threads", fallback: auto, value: integer(&p.WorkerThreads, 1, 65536), zero: auto, compute: func(c *Config) { c.Concurrency.WorkerThreads = max(2*c.machine.Processors, 2*c.Network.EventLoops+1) }},
		{name: "concurrency.max_connections", fallback: "10000", value: integer(&p.MaxConnections, 1, 1_000_000)},
		{name: "concurrency.request_timeout", fallback: "30s", value: duration(&p.RequestTimeout, time.Millisecond, time.Hour)},
		{name: "concurrency.queue_depth", fallback: "1000", value: integer(&p.QueueDepth, 1, 1_000_000)},

		{name: "monitoring.p50_latency_warn", fallback: "10ms", value: latency(&mon.P50LatencyWarn), effect: Unavailable},
		{name: "monitoring.p99_latency_warn", fallback: "100ms", value: latency(&mon.P99LatencyWarn), effect: Unavailable},
		{name: "monitoring.p999_latency_warn", fallback: "500ms", value: latency(&mon.P999LatencyWarn), effect: Unavailable},
		{name: "monitoring.error_rate_warn", fallback: "0.1%", value: percentage(&mon.ErrorRateWarn, true, 1), effect: Unavailable},
		{name: "monitoring.error_rate_critical", fallback: "1%", value: percentage(&mon.ErrorRateCritical, true, 1), effect: Unavailable},
		{name: "monitoring.memory_usage_warn", fallback: "80%", value: percentage(&mon.MemoryUsageWarn, true, 1), effect: Unavailable},
		{name: "monitoring.cpu_usage_warn", fallback: "70%", value: percentage(&mon.CPUUsageWarn, true, 1), effect: Unavailable},
		{name: "monitoring.connection_usage_warn", fallback: "90%", value: percentage(&mon.ConnectionUsageWarn, true, 1), effect: Unavailable},

		{name: "cluster.replication_factor", fallback: "3", value: integer(&cl.ReplicationFactor, 1, 7)},
		{name: "cluster.replace_after", fallback: "10m", value: duration(&cl.ReplaceAfter, time.Second, 30*day), zero: "never"},
		{name: "cluster.snapshot_rate", fallback: "64MiB", value: size(&cl.SnapshotRate, 64*kib, 64*gib), zero: "unlimited"},
		{name: "cluster.snapshots_max", fallback: "2", value: integer(&cl.SnapshotsMax, 1, 64)},
		{name: "cluster.slow_disk_after", fallback: "500ms", value: duration(&cl.SlowDiskAfter, 10*time.Millisecond, time.Hour), zero: "never"},
		{name: "cluster.peer_version_max", fallback: "0", value: integer(&cl.PeerVersionMax, 1, 65535), zero: "the newest supported"},
		{name: "cluster.balance_leaders", fallback: "true", value: boolean(&cl.BalanceLeaders)},
		{name: "cluster.clock_drift", fallback: "2%", value: percentage(&cl.ClockDrift, false, 0.2)},
		{name: "cluster.clock_offset_max", fallback: "500ms", value: duration(&cl.ClockOffsetMax, 10*time.Millisecond, 24*time.Hour)},

		{name: "log.level", flag: "log-level", usage: "minimum log `level`: debug, info, warn, error", fallback: "info", value: choice(&lg.Level, "debug", "info", "warn", "error")},
		{name: "log.format", flag: "log-format", usage: "log `format`: text, json, or auto", fallback: auto, value: choice(&lg.Format, "text", "json", auto)},
	}
}

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

// computeTLSMode has whoever gives a certificate mean it.
func computeTLSMode(c *Config) {
	c.TLS.Mode = Off
	if c.TLS.Cert != "" {
		c.TLS.Mode = Required
	}
}

func computeClientAuth(c *Config) {
	c.TLS.ClientAuth = Off
	if c.TLS.ClientCA != "" {
		c.TLS.ClientAuth = Optional
	}
}

func computeTransport(c *Config) {
	c.Network.Transport = "net"
	if c.machine.Epoll {
		c.Network.Transport = "epoll"
	}
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
	d.Memory.CacheSize = cmp.Or(d.Memory.CacheSize, cacheMin)
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
