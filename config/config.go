// Package config holds the configuration of a Proa node: one Config, filled
// from defaults, a YAML file, the environment and the command line. Later
// sources override earlier ones.
//
// Everything about a key is in one table (keys.go): its name, default, range, and
// whether it has an effect in this version. The environment names, the error
// messages, the printed configuration and the facts of the reference page are all
// derived from that table; reference.md describes the keys.
//
// Load reports all problems at once. A Config that Load returned without an
// error is valid and complete. It is not changed afterwards and may be read by
// any goroutine.
package config

import "time"

// Config is the complete configuration of one node. Sizes are in bytes,
// shares are fractions of one (0.001 is 0.1 %).
type Config struct {
	Node        Node
	Listen      Listen
	Access      Access
	Network     Network
	TLS         TLS
	RESP        RESP
	Raft        Raft
	Storage     Storage
	Memory      Memory
	Concurrency Concurrency
	Monitoring  Monitoring
	Cluster     Cluster
	Log         Log

	sources  map[string]Source
	warnings []string
	machine  Machine
}

// Node is the identity of this node and its data directory.
type Node struct {
	ID                 uint64        // number in the cluster; 0: what the data directory, or else the cluster, says
	DataDir            string        // directory of log and state
	Shards             int           // Raft groups; fixed at the first start
	Join               []string      // peer addresses of the cluster to found or to join, host:port, each once
	JoinToken          string        // what a node must know to join the cluster; empty: none was given
	ClusterSecretFile  string        // a file: see EnvClusterSecret; empty: none
	ClusterSecretCheck string        // "required", or "optional": nodes without the secret are admitted
	AdvertisePeer      string        // host:port at which other nodes reach Listen.Peer; see BoundAddress. Empty: not at all
	AdvertiseClient    string        // host:port at which clients reach Listen.Client; see BoundAddress. Empty: not at all
	AdvertiseRESP      string        // host:port at which clients of the Redis protocol reach Listen.RESP; see BoundAddress. Empty: not at all
	ShutdownTimeout    time.Duration // from SIGTERM to the forced end
}

// Listen holds the addresses served, host:port each; an empty one is off.
type Listen struct {
	Client string // native protocol over TCP
	Unix   string // native protocol on a unix socket: a file path
	Peer   string // traffic between nodes
	Admin  string // admin HTTP
	RESP   string // Redis protocol
}

// Access holds who may connect and do what.
type Access struct {
	Authentication    string // "required", or "off": who names no user may do everything
	AdminPasswordFile string // a file: the password of the user admin, where the cluster has no administrator; empty: none
	AuditLog          string // a file, or "stderr"; empty: none
	Insecure          bool   // addresses beyond loopback are listened on without authentication
}

// Network holds what concerns connections.
type Network struct {
	Transport          string        // "epoll", "net" or "netpoll"; never "auto" after Load
	EventLoops         int           // at least 1 after Load
	TCPNoDelay         bool          //
	TCPKeepAlive       time.Duration // 0: off
	IdleTimeout        time.Duration // 0: never
	FrameTimeout       time.Duration // first to last byte of a frame, and for the handshake
	WriteTimeout       time.Duration // replies that the client does not take
	MaxFrameSize       int64         // bytes, header included
	InFlightMax        int           // requests per connection
	InFlightBytesMax   int64         // bytes of unanswered requests per connection
	OutputBytesMax     int64         // bytes of unsent replies per connection
	ZeroCopyEnabled    bool          // always true in this version
	IOUringDepth       int           // without effect in this version
	ConnectionPoolSize int           // connections between two nodes
}

// TLS holds what concerns the encryption of client port, Redis port and admin HTTP.
type TLS struct {
	Mode       string // "off", "optional" or "required"; never "auto" after Load
	Cert       string // PEM file
	Key        string // PEM file
	ClientCA   string // PEM file of authorities that sign clients' certificates
	ClientAuth string // "off", "optional" or "required"; never "auto" after Load
	MinVersion string // "1.3" or "1.2"
}

// Words of TLS.Mode and TLS.ClientAuth.
const (
	Off      = "off"
	Optional = "optional"
	Required = "required"
)

// RESP holds what concerns the Redis protocol.
type RESP struct {
	Redirect bool // clients are sent to the node that leads a key's shard
}

// Raft holds what concerns consensus and its log.
type Raft struct {
	Engine               string
	HeartbeatInterval    time.Duration
	ElectionTimeoutMin   time.Duration
	ElectionTimeoutMax   time.Duration
	SnapshotIntervalLogs int           // entries kept for followers that lag
	SnapshotIntervalTime time.Duration // 0: never; otherwise the state is flushed at least this often
	MaxBatchSize         int           // commands in one Raft entry
	ReplicationTimeout   time.Duration
	LogSegmentSize       int64 // bytes of one log file
	LogCacheSize         int64 // bytes of recent entries kept in memory
	LogSizeMax           int64 // live log bytes past which the state is flushed
	LogDirectIO          bool  // past the page cache, where the file system can
}

// Storage holds what concerns the state machine.
type Storage struct {
	MemtableSize     int64         // bytes of one memtable
	SessionRetention time.Duration // how long results of session writes are kept
}

// Memory holds what bounds the process.
type Memory struct {
	CacheSize       int64 // bytes of row cache and block cache together
	MaxMemoryUsage  int64 // bytes of the whole process
	BufferPoolSize  int   // receive buffers
	PreallocBuffers bool  // allocate them at start
}

// Concurrency holds what bounds parallel work.
type Concurrency struct {
	WorkerThreads  int           // threads that poll, drive and read from disk
	MaxConnections int           // client connections
	RequestTimeout time.Duration // deadline of a request that names none
	QueueDepth     int           // requests waiting per shard
}

// Monitoring holds thresholds of warnings.
type Monitoring struct {
	P50LatencyWarn      time.Duration
	P99LatencyWarn      time.Duration
	P999LatencyWarn     time.Duration
	ErrorRateWarn       float64 // share
	ErrorRateCritical   float64 // share
	MemoryUsageWarn     float64 // share of memory.max_memory_usage
	CPUUsageWarn        float64 // share of all processors
	ConnectionUsageWarn float64 // share of concurrency.max_connections
}

// Cluster holds what concerns several nodes together. The settings of the
// node that leads the meta group count where they concern more than one node.
type Cluster struct {
	ReplicationFactor int           // replicas of each shard, 1 to 7
	ReplaceAfter      time.Duration // a node gone for longer has its replicas rebuilt elsewhere; 0: never
	SnapshotRate      int64         // bytes per second over all outgoing snapshots; 0: unlimited
	SnapshotsMax      int           // snapshots received at a time
	SlowDiskAfter     time.Duration // an fsync that takes longer makes the node give its leaderships away; 0: never
	PeerVersionMax    int           // newest peer protocol version to speak; 0: the newest known
	BalanceLeaders    bool          // leaders are spread evenly without being asked
	ClockOffsetMax    time.Duration // a node whose wall clock is further from the others' leads nothing
	ClockDrift        float64       // share by which two nodes' clocks may differ in rate, 0 to 0.2
}

// Log holds what concerns the server's own log.
type Log struct {
	Level  string // debug, info, warn, error
	Format string // text, json, or auto: short lines on a terminal, json otherwise
}

// RaftTick is what heartbeat and election timeouts are whole multiples of.
// Finer steps would say more than Raft's clock can tell.
const RaftTick = 10 * time.Millisecond

// Budget is how memory.max_memory_usage is divided. All fields are bytes.
type Budget struct {
	RowCache   int64 // three quarters of memory.cache_size, outside the Go heap
	BlockCache int64 // the remaining quarter
	Memtables  int64 // one being filled, one being written, one that scans hold
	LogCache   int64 // recent Raft entries
	Program    int64 // the program itself, which the Go runtime does not count
	Requests   int64 // all requests and replies in memory: half of what is left
	GoLimit    int64 // soft limit for the Go runtime: everything but the row cache and the program
}

// programBytes is what of a process is resident beside its heap and the row cache:
// the pages of the program that have been used.
const programBytes = 32 * mib

// largeCopies is how often the largest request may be in memory on its way, one at
// a time: three times as it has come, in the log, and read back from it; twice and
// a half in memtables; three times in the buffers of a flush; and
// nine times in a compaction, which reads a row of each of a few files at once.
const largeCopies = 17

// largestFrame is the largest frame that fits in memory on its way.
func (c *Config) largestFrame() int64 {
	b := c.Budget()
	return max(0, c.Memory.MaxMemoryUsage-c.Memory.CacheSize-b.Memtables-b.LogCache-b.Program) / largeCopies
}

// memtablesMax allows for two memtables, and for as much as
// another holds: what scans keep of older ones, and what it takes to sort one.
const memtablesMax = 3

// Budget divides memory.max_memory_usage among its users.
func (c *Config) Budget() Budget {
	b := Budget{
		BlockCache: c.Memory.CacheSize / 4,
		Memtables:  memtablesMax * c.Storage.MemtableSize,
		LogCache:   c.Raft.LogCacheSize,
		Program:    programBytes,
	}
	b.RowCache = c.Memory.CacheSize - b.BlockCache
	b.Requests = max(0, c.Memory.MaxMemoryUsage-c.Memory.CacheSize-b.Memtables-b.LogCache-b.Program) / 2
	b.GoLimit = c.Memory.MaxMemoryUsage - b.RowCache - b.Program
	return b
}
