package client

import (
	"cmp"
	"context"
	"crypto/tls"
	"fmt"
	"log/slog"
	"net"
	"strconv"
	"strings"
	"time"

	"github.com/proa-kv/proa/protocol"
)

// Defaults of [Config].
const (
	// DefaultPort is the TCP port of an endpoint that names none.
	DefaultPort = "7400"

	DefaultConnections    = 1
	DefaultDialTimeout    = 5 * time.Second
	DefaultRequestTimeout = 30 * time.Second
	DefaultAttemptTimeout = time.Second
	DefaultMaxInFlight    = 1024
	DefaultMaxQueued      = 65536
	DefaultMaxReplyBytes  = 256 << 20
	DefaultBackoffMin     = time.Second
	DefaultBackoffMax     = 60 * time.Second
	DefaultKeepAlive      = 30 * time.Second
)

// Config says how a [Client] connects and what its limits are. Only Endpoints
// is required; the zero value of every other field stands for its default.
type Config struct {
	// Endpoints are the servers to connect to, at least one, each written
	// as host:port, as host alone (then DefaultPort), or as
	// unix:///path/of/socket. Any one server of the cluster is enough; give
	// several, so that one is up when the program starts. The address of a
	// load balancer also works.
	Endpoints []string

	// Cluster, if not 0, is the id of the only cluster the client talks to,
	// as shown by ServerInfo.Cluster and "proa status". A server of another
	// cluster is refused when the connection is made, before any request is
	// sent: New, or the call that needed the connection, then fails with
	// ErrWrongCluster. With 0 the client accepts the cluster it reaches
	// first, and stays with it while it is connected.
	Cluster uint64

	// ForwardOnly keeps the client from asking which node leads which shard
	// and from connecting to any address but Endpoints. Every request then
	// goes to a server of Endpoints, which forwards it if necessary.
	// Otherwise the client connects to the leaders at the addresses that
	// the cluster advertises in ROUTES, with the credentials and TLS
	// configuration given here, and falls back to forwarding if these are
	// unreachable.
	ForwardOnly bool

	// Connections is the number of connections kept open to each endpoint
	// and, unless ForwardOnly is set, to each further node that leads a
	// shard. All goroutines share them. Requests that share a connection
	// also share system calls, so more connections help only if one core
	// cannot read the replies fast enough, or if small requests must not
	// wait behind large ones. 0 means DefaultConnections.
	Connections int

	// DialTimeout limits the time for connecting including the handshake. 0
	// means DefaultDialTimeout.
	DialTimeout time.Duration

	// RequestTimeout limits a call whose context has no deadline, including
	// retries. 0 means DefaultRequestTimeout; negative means no limit.
	RequestTimeout time.Duration

	// AttemptTimeout is the time after which an unanswered attempt is
	// abandoned so that another node can answer, if the call allows it
	// (reads, and writes with ExactlyOnce) and there is a connection to
	// another node. The second attempt gets twice the time, and so on. It
	// should exceed the election timeout of the cluster. 0 means
	// DefaultAttemptTimeout, but at most a third of RequestTimeout;
	// negative means never.
	AttemptTimeout time.Duration

	// MaxInFlight limits the unanswered requests of one connection. The
	// server may grant fewer. Calls above it go to other nodes, which
	// forward them, and wait in the client's queue when no connection has
	// room. 0 means DefaultMaxInFlight.
	MaxInFlight int

	// MaxQueued limits the calls that wait for a connection, for room on
	// one, or, with ExactlyOnce, for their turn in the session. A call
	// above it fails at once with ErrBusy. 0 means DefaultMaxQueued.
	MaxQueued int

	// MaxReplyBytes limits the memory one reply of several frames (MGET,
	// SCAN) may take. A larger one fails with ErrTooLarge. 0 means
	// DefaultMaxReplyBytes.
	MaxReplyBytes int

	// BackoffMin and BackoffMax limit the pause before an unreachable
	// endpoint is tried again, while no call needs it. The first try after
	// a lost connection is immediate; then the pause doubles from
	// BackoffMin up to BackoffMax, each time shortened at random by up to a
	// half so that many clients do not return at the same time. While a
	// call waits for a connection, every endpoint is tried immediately and
	// then every 50 to 100 ms, and so is every address that the cluster has
	// advertised, unless ForwardOnly is set. Names are resolved again each
	// time. 0 means DefaultBackoffMin and DefaultBackoffMax.
	BackoffMin, BackoffMax time.Duration

	// RetryMax limits how often one call is retried after a failure that
	// allows it. 0 means until its deadline; negative means never.
	RetryMax int

	// ExactlyOnce gives the client a session and each write a sequence number
	// in it. A write whose connection broke before the reply came is then sent
	// again, and takes effect once. Without it such a write fails with
	// ErrOutcomeUnknown.
	//
	// A session may have 1,024 unfinished writes, counted from the oldest
	// write without an outcome. Further writes wait in the client until
	// that one is finished; reads do not. Therefore give writes a timeout
	// (RequestTimeout): a write that waited for ever would finally block
	// all others.
	ExactlyOnce bool

	// Consistency of reads that do not choose their own. The zero value is
	// Linearizable.
	Consistency Consistency

	// SessionReads keeps, for each hash slot, the newest version this
	// client has seen (128 KiB per client), which reads of that consistency
	// need. It is set automatically if Consistency is SessionReads. Without
	// it such a read is sent as Linearizable, which is stronger.
	SessionReads bool

	// Name identifies the program to operators. At most
	// protocol.NameBytesMax bytes, as User and Secret.
	Name string

	// User and Secret are the credentials. Empty means none. A server that
	// does not accept them is asked again with pauses that grow from BackoffMin
	// to BackoffMax, whatever waits, since checking a password costs it much.
	// Meanwhile, while there is no connection to another server, calls fail at
	// once, with ErrUnauthenticated. Without TLS the secret can be read on its
	// way.
	User, Secret string

	// Credentials, if not nil, is asked for user and secret before each new
	// connection, in place of User and Secret: for credentials that change
	// while the program runs. Open connections keep those that they began with;
	// if the server closes one because they do not hold any more, the client
	// asks for new ones and connects again. If a server refuses them, it is
	// called once more: they may have changed just then. ctx ends with
	// DialTimeout. An error is the outcome of the attempt to connect. Several
	// goroutines may call it at a time.
	Credentials func(ctx context.Context) (user, secret string, err error)

	// TLS, if not nil, encrypts every connection but those to unix sockets, on
	// which servers speak no TLS. An empty ServerName is filled in from the
	// endpoint, or from the address that the cluster advertises for a node; a
	// name that is given must be in the certificates of all nodes. Where servers
	// allow it, a client certificate is enough to log in, without User. TLS is
	// not modified, and must not be while the client is in use: to renew
	// certificates use its GetClientCertificate and VerifyConnection.
	TLS *tls.Config

	// KeepAlive is the time without any byte from the server after which
	// the client sends a PING; after the same time again without an answer
	// the connection counts as lost. 0 means DefaultKeepAlive; negative
	// means never.
	KeepAlive time.Duration

	// Logger receives connects, losses and refusals, never keys or values.
	// nil means that nothing is logged.
	Logger *slog.Logger
}

// withDefaults returns a copy with every zero field filled in, or an error
// that names the first field out of range.
func (c Config) withDefaults() (Config, error) {
	if len(c.Endpoints) == 0 {
		return c, fmt.Errorf("client: Config.Endpoints is empty")
	}
	for _, f := range []struct {
		name    string
		value   *int
		byZero  int
		atLeast int
	}{
		{"Connections", &c.Connections, DefaultConnections, 1},
		{"MaxInFlight", &c.MaxInFlight, DefaultMaxInFlight, 1},
		{"MaxQueued", &c.MaxQueued, DefaultMaxQueued, 1},
		{"MaxReplyBytes", &c.MaxReplyBytes, DefaultMaxReplyBytes, protocol.FrameBytesMax},
	} {
		if *f.value == 0 {
			*f.value = f.byZero
		}
		if *f.value < f.atLeast {
			return c, fmt.Errorf("client: Config.%s is %d, the minimum is %d", f.name, *f.value, f.atLeast)
		}
	}
	if c.AttemptTimeout == 0 {
		c.AttemptTimeout = DefaultAttemptTimeout
		if c.RequestTimeout > 0 {
			c.AttemptTimeout = min(c.AttemptTimeout, max(c.RequestTimeout/3, time.Millisecond))
		}
	}
	for _, f := range []struct {
		name     string
		value    *time.Duration
		byZero   time.Duration
		negative bool // allowed, and means "off"
	}{
		{"DialTimeout", &c.DialTimeout, DefaultDialTimeout, false},
		{"RequestTimeout", &c.RequestTimeout, DefaultRequestTimeout, true},
		{"BackoffMin", &c.BackoffMin, DefaultBackoffMin, false},
		{"BackoffMax", &c.BackoffMax, max(DefaultBackoffMax, c.BackoffMin), false},
		{"KeepAlive", &c.KeepAlive, DefaultKeepAlive, true},
	} {
		if *f.value == 0 {
			*f.value = f.byZero
		}
		if *f.value < 0 && !f.negative {
			return c, fmt.Errorf("client: Config.%s is negative: %v", f.name, *f.value)
		}
	}
	if c.BackoffMax < c.BackoffMin {
		return c, fmt.Errorf("client: Config.BackoffMax %v is below BackoffMin %v", c.BackoffMax, c.BackoffMin)
	}
	if len(c.Name) > protocol.NameBytesMax || len(c.User) > protocol.NameBytesMax || len(c.Secret) > protocol.NameBytesMax {
		return c, fmt.Errorf("client: Config.Name, User or Secret is over %d bytes", protocol.NameBytesMax)
	}
	if c.Credentials != nil && (c.User != "" || c.Secret != "") {
		return c, fmt.Errorf("client: Config.Credentials is set, and so is User or Secret: choose one")
	}
	if c.Consistency > Stale {
		return c, fmt.Errorf("client: Config.Consistency %d is unknown", c.Consistency)
	}
	if c.Consistency == SessionReads {
		c.SessionReads = true
	}
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	return c, nil
}

// endpoint is one server as the configuration names it.
type endpoint struct {
	name    string // as it is reported
	network string // "tcp" or "unix"
	address string
	host    string // that its certificate must be for; empty with unix
}

// parseEndpoint reads host:port, host, [v6], [v6]:port or unix:///path.
func parseEndpoint(s string) (endpoint, error) {
	if path, ok := strings.CutPrefix(s, "unix://"); ok {
		if path == "" {
			return endpoint{}, fmt.Errorf("client: endpoint %q has no path", s)
		}
		return endpoint{name: s, network: "unix", address: path}, nil
	}
	if s == "" || strings.Contains(s, "/") {
		return endpoint{}, fmt.Errorf("client: endpoint %q is neither host:port nor unix:///path", s)
	}
	host, port, err := net.SplitHostPort(s)
	if err != nil {
		// No port: a name, an IPv4 address, or an IPv6 address with or
		// without brackets.
		bare := strings.TrimSuffix(strings.TrimPrefix(s, "["), "]")
		if strings.Contains(bare, ":") && net.ParseIP(bare) == nil {
			return endpoint{}, fmt.Errorf("client: endpoint %q: %w", s, err)
		}
		host, port = bare, DefaultPort
	}
	host, port = cmp.Or(host, "localhost"), cmp.Or(port, DefaultPort)
	if n, err := strconv.ParseUint(port, 10, 16); err != nil || n == 0 {
		return endpoint{}, fmt.Errorf("client: endpoint %q: the port must be a number from 1 to 65535", s)
	}
	address := net.JoinHostPort(host, port)
	return endpoint{name: address, network: "tcp", address: address, host: host}, nil
}
