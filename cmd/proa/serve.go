package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"runtime"
	"runtime/debug"
	"strings"
	"time"

	"github.com/lmittmann/tint"
	"github.com/spf13/cobra"
	"golang.org/x/term"

	"github.com/proa-kv/proa/config"
	"github.com/proa-kv/proa/internal/audit"
	"github.com/proa-kv/proa/internal/render"
	"github.com/proa-kv/proa/internal/wrongport"
	"github.com/proa-kv/proa/raftgroup"
	"github.com/proa-kv/proa/raftgroup/datadir"
	"github.com/proa-kv/proa/raftgroup/engine"
	"github.com/proa-kv/proa/server"
	"github.com/proa-kv/proa/server/admin"
	"github.com/proa-kv/proa/server/redis"
)

// serveCommand is `proa serve`.
func serveCommand(a *app) *cobra.Command {
	cmd := newCommand("serve", cobra.NoArgs, func(cmd *cobra.Command, _ []string) error {
		c, err := config.Load(config.Options{Flags: cmd.Flags()})
		if err != nil {
			return &usageError{err}
		}
		// Signals are serve's own business: the first stops in order, and
		// only the second cuts clients off.
		return serve(context.WithoutCancel(cmd.Context()), c, a.signals.take())
	})
	config.AddFlags(cmd.Flags())
	return cmd
}

// serve runs a node until a signal stops it, which may have come
// already.
func serve(ctx context.Context, c *config.Config, signals chan os.Signal) error {
	log := newLogger(c)
	limit, err := raiseFileLimit()
	if err != nil {
		log.Warn("raising the limit of open files", "error", err)
	} else {
		log.Info("limit of open files", "files", limit)
	}
	files, err := c.FileBudget(limit)
	if err != nil {
		return fmt.Errorf("cannot start: %w", err)
	}
	if wanted := c.Concurrency.MaxConnections; files.Clients < wanted {
		log.Warn("the limit of open files leaves fewer connections than concurrency.max_connections, which is lowered; raise the limit with ulimit -n or LimitNOFILE=",
			"files", limit, "needed", files.Needed(wanted), "max_connections", wanted, "lowered_to", files.Clients)
	}
	c.Report(log)
	tuneRuntime(c, log)

	password, err := adminPassword(c, log)
	if err != nil {
		return fmt.Errorf("cannot start: %w", err)
	}
	ports := new(wrongport.Ports)
	peers, err := openPeers(c, &files, ports, log)
	if err != nil {
		return fmt.Errorf("cannot start: %w", err)
	}
	defer func() { _ = peers.close() }()
	o := nodeOptions(c, log)
	o.OpenFiles = files.State
	secure, err := openEncryption(&c.TLS)
	if err != nil {
		return fmt.Errorf("cannot start: %w", err)
	}
	defer secure.reloadOnHangUp(log)()
	if secure != nil {
		ports.SpeakTLS(c.TLS.Mode == config.Required)
	}
	o.Transport, o.PeerAddress = peers.transport(), peers.address(c)
	if err := checkAddresses(c); err != nil {
		return fmt.Errorf("cannot start: %w", err)
	}
	switch err := form(ctx, c, peers, &o, signals); {
	case errors.Is(err, context.Canceled): // by a signal
		log.Info("stopped before the node was part of a cluster")
		return nil
	case err != nil:
		return fmt.Errorf("cannot start: %w", err)
	}
	start := time.Now()
	node, err := raftgroup.Open(o)
	if err != nil {
		return fmt.Errorf("cannot start: %w", err)
	}
	id := node.Identity()
	replay := node.Replay()
	log.Info("node opened", "node", id.Node, "cluster", fmt.Sprintf("%016x", id.Cluster), "shards", id.Shards, "engine", id.Engine.String(), "data", c.Node.DataDir,
		"replayed_entries", replay.Entries, "log_bytes", replay.Log.Bytes, "torn_bytes", replay.Log.TornBytes, "stopped_in_order", replay.Log.Closed || replay.Log.Groups == 0, "took", time.Since(start).Round(time.Millisecond))

	trail, err := openAudit(c, id.Node, log)
	if err != nil {
		return errors.Join(fmt.Errorf("cannot start: %w", err), node.Close(ctx))
	}
	defer func() {
		trail.Log(audit.Event{Kind: audit.Stop})
		_ = trail.Close()
	}()
	trail.Log(audit.Event{Kind: audit.Start})
	settings := serverConfig(c, id, &files, ports, log)
	settings.Audit = trail
	srv, err := server.New(settings, node)
	if err != nil {
		return errors.Join(err, node.Close(ctx))
	}
	side, err := listenAll(c, &files, srv, node, peers, ports, secure, log)
	if err != nil {
		return errors.Join(err, node.Close(ctx))
	}
	if addrs := srv.Addrs(); c.Listen.Client != "" {
		node.SetClientAddress(config.BoundAddress(c.Node.AdvertiseClient, addrs[0]))
	}
	if addrs := redis.Addrs(srv); len(addrs) > 0 {
		node.SetRedisAddress(config.BoundAddress(c.Node.AdvertiseRESP, addrs[0]))
	}
	if exposed := exposedPorts(srv, side); len(exposed) > 0 && c.Access.Authentication == "off" {
		log.Warn("accepting connections from the network without access control: anyone who can connect can read, change and delete all data. Set access.authentication to required, listen on 127.0.0.1, or let a firewall admit trusted machines only", "ports", strings.Join(exposed, ", "))
		node.SetExposed()
	}
	ports.Set(addresses(c, srv, side, peers))
	node.Start(srv.Drive)
	peers.deliver(node, srv)
	peers.seek(ctx, node, c.Node.Join)
	background, end := context.WithCancel(ctx)
	defer end()
	switch required := c.Access.Authentication == "required"; {
	case password != "":
		go addFirstAdmin(background, node, password, log)
	case required && c.Listen.Unix == "" && !node.Access().Administered():
		log.Warn("clients must name a user, but as far as this node knows nobody can administer: start it with access.admin_password_file, or with listen.unix, over which the server's own operating system user can administer")
	case !required && !node.Access().Empty():
		log.Warn("the cluster has users, but this node accepts clients without one, who can do everything: set access.authentication to required")
	}
	served := make(chan error, 1)
	go func() { served <- srv.Serve() }()
	for _, a := range srv.Addrs() {
		log.Info("serving clients", "network", a.Network(), "address", a.String(), "tls", tlsMode(c, a))
	}
	for _, a := range redis.Addrs(srv) {
		log.Info("serving the Redis protocol", "address", a.String(), "tls", tlsMode(c, a))
	}
	if side != nil {
		scheme := "http://"
		if c.TLS.Mode == config.Required {
			scheme = "https://"
		}
		log.Info("serving admin HTTP", "address", scheme+side.Addr().String(), "tls", c.TLS.Mode)
	}
	greet(c, srv)

	var cause error
	select {
	case s := <-signals:
		log.Info("stopping", "signal", s.String(), "deadline", c.Node.ShutdownTimeout)
	case cause = <-node.Failure():
		cause = fmt.Errorf("the node stopped: %w", cause)
	}
	err = stop(ctx, c, log, srv, node, side, signals, cause == nil)
	select {
	case late := <-node.Failure():
		cause = fmt.Errorf("the node failed while it stopped: %w", late)
	default:
	}
	return errors.Join(cause, err)
}

// tlsMode is tls.mode as far as it applies to an address.
func tlsMode(c *config.Config, a net.Addr) string {
	if a.Network() == "unix" {
		return config.Off
	}
	return c.TLS.Mode
}

// openAudit opens the audit log; nil where there is to be none.
func openAudit(c *config.Config, node uint64, log *slog.Logger) (*audit.Log, error) {
	switch c.Access.AuditLog {
	case "":
		return nil, nil
	case "stderr":
		return audit.Open(audit.Config{Out: os.Stderr, Node: node, Logger: log})
	}
	return audit.Open(audit.Config{Path: c.Access.AuditLog, Node: node, Logger: log})
}

// checkAddresses finds out whether what the node is to listen on is free, before
// it founds or joins a cluster with an address that it cannot have. It listens on
// all addresses at the same time: two may name the same port, in different words.
// The node listens only when it can serve.
func checkAddresses(c *config.Config) (err error) {
	unix := ""
	if c.Listen.Unix != "" {
		unix = "unix://" + c.Listen.Unix
	}
	for _, l := range []struct{ address, flag string }{
		{c.Listen.Client, "--listen"}, {unix, "--unix"}, {c.Listen.RESP, "--resp-listen"}, {c.Listen.Admin, "--admin-listen"},
	} {
		if l.address == "" {
			continue
		}
		reserved, refusal := server.Reserve(l.address, l.flag)
		if refusal != nil {
			return refusal
		}
		defer func() { err = errors.Join(err, reserved.Close()) }()
	}
	return nil
}

// form brings the node into its cluster, unless a signal comes first.
func form(ctx context.Context, c *config.Config, peers *peers, o *raftgroup.Options, signals chan os.Signal) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	go func() {
		select {
		case s := <-signals:
			signals <- s // for whoever waits for it next
			cancel()
		case <-ctx.Done():
		}
	}()
	client, redis := knownAddress(c.Node.AdvertiseClient), knownAddress(c.Node.AdvertiseRESP)
	id, err := peers.form(ctx, datadir.FormOptions{
		Dir: o.Dir, ID: o.ID, Shards: o.Shards, Engine: o.Engine, Replicas: c.Cluster.ReplicationFactor, Join: c.Node.Join, Token: c.Node.JoinToken,
		PeerAddress: o.PeerAddress, ClientAddress: client, RedisAddress: redis, Version: o.Version, Logger: o.Logger, Room: o.Room(), RoomMin: o.RoomMin(),
	})
	o.ID, o.Shards, o.ClientAddress, o.RedisAddress = id.Node, id.Shards, client, redis
	return err
}

// knownAddress is an advertised address, or "" where its port is not
// known before it is bound.
func knownAddress(address string) string {
	if _, port, err := net.SplitHostPort(address); err == nil && port == "0" {
		return ""
	}
	return address
}

// stop ends everything within node.shutdown_timeout: leaderships are handed over
// if leave is set, clients are notified and answered, the state is written. The time
// is one for all of it. Each stage ends when its part is over, and what it has
// not done costs no acknowledged write: clients are cut off, and what is not
// written of the state the next start reads from the log. A second signal ends
// the wait for clients.
func stop(ctx context.Context, c *config.Config, log *slog.Logger, srv *server.Server, node *raftgroup.Node, side *admin.Server, signals <-chan os.Signal, leave bool) error {
	start := time.Now()
	whole, cancel := context.WithDeadline(ctx, start.Add(c.Node.ShutdownTimeout))
	defer cancel()
	if leave {
		leaving, cancel := context.WithTimeout(whole, leaveTime(c))
		if err := node.Leave(leaving); err != nil {
			log.Warn("some shards are still led here; they will have no leader for a moment", "error", err)
		}
		cancel()
	}
	clients, cutOff := context.WithDeadline(whole, start.Add(c.Node.ShutdownTimeout/4*3))
	defer cutOff()
	go func() {
		select {
		case <-signals:
			cutOff()
		case <-clients.Done():
		}
	}()
	if _, err := within(whole, func() (any, error) { return nil, srv.Shutdown(clients) }); err != nil {
		// Their requests are answered or unknown to them; nothing is lost.
		log.Warn("clients were cut off", "error", err)
	}
	if side != nil {
		_ = side.Shutdown(clients)
	}
	switch err := node.Close(whole); {
	case errors.Is(err, engine.ErrUnwritten):
		log.Warn("the state is not written in full; the next start carries out more of the log again", "error", err)
	case err != nil:
		return fmt.Errorf("closing the stores: %w", err)
	}
	log.Info("stopped", "took", time.Since(start).Round(time.Millisecond))
	return nil
}

func nodeOptions(c *config.Config, log *slog.Logger) raftgroup.Options {
	b := c.Budget()
	o := raftgroup.Options{
		Dir: c.Node.DataDir,

		QueueDepth:    c.Concurrency.QueueDepth,
		BatchOpsMax:   c.Raft.MaxBatchSize,
		LogBytesMax:   c.Raft.LogSizeMax,
		SegmentBytes:  c.Raft.LogSegmentSize,
		LogCacheBytes: b.LogCache,
		LogBuffered:   !c.Raft.LogDirectIO,
		FlushEvery:    c.Raft.SnapshotIntervalTime,
		Heartbeat:     c.Raft.HeartbeatInterval,
		ElectionMin:   c.Raft.ElectionTimeoutMin,
		LogTrailing:   c.Raft.SnapshotIntervalLogs,
		ClockDrift:    c.Cluster.ClockDrift,
		ClockOffset:   c.Cluster.ClockOffsetMax,
		Timeout:       c.Concurrency.RequestTimeout,
		SlowDisk:      c.Cluster.SlowDiskAfter,
		ReplaceAfter:  c.Cluster.ReplaceAfter,

		BalanceLeaders: c.Cluster.BalanceLeaders,
		JoinToken:      c.Node.JoinToken,
		Version:        versionText(),

		BlockCacheBytes:  b.BlockCache,
		RowCacheBytes:    b.RowCache,
		MemtableBytes:    c.Storage.MemtableSize,
		SessionRetention: c.Storage.SessionRetention,
		Logger:           log,
		Clock:            clock(log),
	}
	// Where nothing is set, an existing directory knows better than the
	// default.
	for _, s := range c.Settings() {
		if s.Source.Kind == config.FromDefault {
			continue
		}
		switch s.Name {
		case "node.id":
			o.ID = c.Node.ID
		case "node.shards":
			o.Shards = c.Node.Shards
		case "raft.engine":
			o.Engine = c.Raft.Engine
		}
	}
	return o
}

func serverConfig(c *config.Config, id datadir.Identity, files *config.FileBudget, ports *wrongport.Ports, log *slog.Logger) server.Config {
	s := server.Config{
		Node: id.Node, Cluster: id.Cluster, Version: versionText(),

		Transport: c.Network.Transport, Loops: c.Network.EventLoops, Threads: c.Concurrency.WorkerThreads,
		ConnectionsMax: files.Clients, ForwardedMax: files.Forwarded, HandshakesMax: files.Shaking, InFlightMax: c.Network.InFlightMax, InFlightBytesMax: c.Network.InFlightBytesMax,
		OutputBytesMax: int(c.Network.OutputBytesMax), MemoryBytesMax: c.Budget().Requests, FrameBytesMax: uint32(c.Network.MaxFrameSize),
		// In the configuration 0 means off; here it means the default.
		IdleTimeout: cmp.Or(c.Network.IdleTimeout, -1), KeepAlive: cmp.Or(c.Network.TCPKeepAlive, -1),
		QueueDepth: c.Concurrency.QueueDepth, FrameTimeout: c.Network.FrameTimeout, WriteTimeout: c.Network.WriteTimeout,
		ForwardConnections: files.Forwards,
		Authentication:     c.Access.Authentication == "required",
		RequestTimeout:     c.Concurrency.RequestTimeout, Delay: !c.Network.TCPNoDelay, Ports: ports, Logger: log,
	}
	if c.Memory.PreallocBuffers {
		s.Prealloc = c.Memory.BufferPoolSize
	}
	return s
}

func listenAll(c *config.Config, files *config.FileBudget, srv *server.Server, node *raftgroup.Node, peers *peers, ports *wrongport.Ports, secure *encryption, log *slog.Logger) (*admin.Server, error) {
	if c.Listen.Client != "" {
		if _, err := srv.Listen(c.Listen.Client, server.WithTLS(secure.listener())); err != nil {
			return nil, err
		}
	}
	if c.Listen.Unix != "" {
		if _, err := srv.Listen("unix://" + c.Listen.Unix); err != nil {
			return nil, err
		}
	}
	if len(srv.Addrs()) == 0 {
		return nil, errors.New("nothing to listen on: both listen.client and listen.unix are off")
	}
	if c.Listen.RESP != "" {
		if _, err := redis.Listen(srv, c.Listen.RESP, redis.Config{Redirect: c.RESP.Redirect, TLS: secure.listener()}); err != nil {
			return nil, err
		}
	}
	if c.Listen.Admin == "" {
		return nil, nil
	}
	return admin.Listen(c.Listen.Admin, admin.Source{
		Status: srv.StatusJSON,
		Ready: func() error {
			for _, s := range node.Status().Shards {
				if s.Leader == 0 {
					return fmt.Errorf("shard %s has no leader", nodeShardName(node, s.Shard))
				}
			}
			return nil
		},
		Collect:        &collector{node, srv, peers, secure != nil},
		Secure:         secure.secure(srv),
		PlainToo:       c.TLS.Mode == config.Optional,
		Authorize:      srv.Authorize,
		ConnectionsMax: files.Admin,
		Ports:          ports,
		Logger:         log,
	})
}

// addresses are where the node's ports are reached, for callers who come to the
// wrong one.
func addresses(c *config.Config, srv *server.Server, side *admin.Server, peers *peers) wrongport.Addresses {
	a := wrongport.Addresses{wrongport.Peer: peers.address(c)}
	if c.Listen.Client != "" {
		a[wrongport.Client] = config.BoundAddress(c.Node.AdvertiseClient, srv.Addrs()[0])
	} else {
		a[wrongport.Client] = "unix://" + c.Listen.Unix
	}
	if addrs := redis.Addrs(srv); len(addrs) > 0 {
		a[wrongport.Redis] = config.BoundAddress(c.Node.AdvertiseRESP, addrs[0])
	}
	if side != nil {
		a[wrongport.Admin] = side.Addr().String()
	}
	return a
}

// exposedPorts returns the ports without access control that other machines can
// reach. That of the peers is not among them: nodes authenticate each other.
func exposedPorts(srv *server.Server, side *admin.Server) (ports []string) {
	add := func(name string, addrs ...net.Addr) {
		for _, a := range addrs {
			if tcp, ok := a.(*net.TCPAddr); ok && !tcp.IP.IsLoopback() {
				ports = append(ports, name+" "+a.String())
			}
		}
	}
	add("clients", srv.Addrs()...)
	add("Redis", redis.Addrs(srv)...)
	if side != nil {
		add("admin", side.Addr())
	}
	return ports
}

// tuneRuntime bounds the Go heap and sets the number of processors. The garbage
// collector keeps its default pace: the row cache lies outside the heap, what
// lives is small, and a slower pace only has fresh memory touched.
func tuneRuntime(c *config.Config, log *slog.Logger) {
	limit := c.Budget().GoLimit
	if os.Getenv("GOMEMLIMIT") == "" {
		debug.SetMemoryLimit(limit)
	}
	if os.Getenv("GOMAXPROCS") == "" {
		// Threads that wait in epoll_wait or fdatasync keep their processor
		// until the scheduler takes it away, so there are more processors
		// than cores: coming back from a wait then finds one at once.
		// Connections of other nodes drive as well.
		processors := runtime.NumCPU() + c.Network.EventLoops + 1
		if c.Listen.Peer != "" {
			processors += 2
		}
		runtime.GOMAXPROCS(processors)
	}
	log.Debug("runtime", "memory_limit", limit, "gomaxprocs", runtime.GOMAXPROCS(0))
}

func newLogger(c *config.Config) *slog.Logger {
	var level slog.Level
	_ = level.UnmarshalText([]byte(c.Log.Level)) // config has checked it
	o := &slog.HandlerOptions{Level: level, ReplaceAttr: func(_ []string, a slog.Attr) slog.Attr {
		if a.Value.Kind() == slog.KindDuration { // JSON would show bare nanoseconds
			a.Value = slog.StringValue(a.Value.Duration().String())
		}
		return a
	}}
	switch {
	case c.Log.Format == "text":
		return slog.New(slog.NewTextHandler(os.Stderr, o))
	case c.Log.Format == "json" || !term.IsTerminal(int(os.Stderr.Fd())):
		return slog.New(slog.NewJSONHandler(os.Stderr, o))
	}
	return slog.New(tint.NewTextHandler(os.Stderr, &tint.Options{ // for people
		Level: level, TimeFormat: "15:04:05.000", NoColor: !render.Colours(),
	}))
}

// greet shows a person at a terminal what to type next.
func greet(c *config.Config, srv *server.Server) {
	if !term.IsTerminal(int(os.Stdout.Fd())) {
		return
	}
	var at []string
	flag := ""
	for _, a := range srv.Addrs() {
		text := a.String()
		if a.Network() == "unix" {
			text = "unix://" + text
		}
		at = append(at, text)
	}
	if c.Listen.Client != "127.0.0.1:7400" && c.Listen.Client != ":7400" {
		flag = " -e " + at[0]
	}
	fmt.Print(helpText("greeting", map[string]string{"At": strings.Join(at, " and "), "Data": c.Node.DataDir, "Proa": program, "Flag": flag}))
}
