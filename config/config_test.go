package config

import (
	"bytes"
	"errors"
	"flag"
	"fmt"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"github.com/spf13/pflag"
)

var update = flag.Bool("update", false, "rewrite docs/configuration.md")

// small is the machine the tests run on, whatever the real one is.
var small = Machine{Processors: 2, MemoryBytes: 2 * gib, Epoll: true, Netpoll: true, Host: "this.example"}

type sources struct {
	file string
	env  []string
	args []string
}

func load(t *testing.T, s sources) (*Config, error) {
	t.Helper()
	o := Options{Environ: func() []string { return s.env }, Machine: &small}
	if s.file != "" {
		o.File = writeFile(t, s.file)
	}
	if s.args != nil {
		o.Flags = pflag.NewFlagSet("test", pflag.ContinueOnError)
		AddFlags(o.Flags)
		if err := o.Flags.Parse(s.args); err != nil {
			t.Fatal(err)
		}
	}
	return Load(o)
}

func mustLoad(t *testing.T, s sources) *Config {
	t.Helper()
	c, err := load(t, s)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func writeFile(t *testing.T, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "proa.yaml")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func (c *Config) setting(t *testing.T, name string) Setting {
	t.Helper()
	for _, s := range c.Settings() {
		if s.Name == name {
			return s
		}
	}
	t.Fatalf("no key %s", name)
	return Setting{}
}

func TestDefaults(t *testing.T) {
	c := mustLoad(t, sources{})
	// The parameters the design names, with the defaults it names.
	for name, want := range map[string]string{
		"raft.heartbeat_interval": "150ms", "raft.election_timeout_min": "300ms", "raft.election_timeout_max": "600ms",
		"raft.snapshot_interval_logs": "5000", "raft.snapshot_interval_time": "1h", "raft.max_batch_size": "1000",
		"raft.replication_timeout": "5s",
		"network.tcp_nodelay":      "true", "network.tcp_keepalive": "1m", "network.connection_pool_size": "100",
		"network.max_frame_size": "16MiB", "network.zero_copy_enabled": "true", "network.io_uring_depth": "1024",
		"concurrency.worker_threads": "4", "concurrency.max_connections": "10000", "concurrency.request_timeout": "30s",
		"concurrency.queue_depth": "1000",
		"memory.cache_size":       "512MiB", "memory.max_memory_usage": "1536MiB", "memory.buffer_pool_size": "1024",
		"memory.prealloc_buffers":     "true",
		"monitoring.p50_latency_warn": "10ms", "monitoring.p99_latency_warn": "100ms", "monitoring.p999_latency_warn": "500ms",
		"monitoring.error_rate_warn": "0.1%", "monitoring.error_rate_critical": "1%", "monitoring.memory_usage_warn": "80%",
		"monitoring.cpu_usage_warn": "70%", "monitoring.connection_usage_warn": "90%",
		"node.id": "auto", "node.join": "", "node.advertise_peer": "127.0.0.1:7401", "node.advertise_client": "127.0.0.1:7400",
		"listen.peer": "127.0.0.1:7401",
		"listen.resp": "127.0.0.1:7403", "node.advertise_resp": "127.0.0.1:7403", "resp.redirect": "false",
		"cluster.replication_factor": "3", "cluster.replace_after": "10m", "cluster.snapshot_rate": "64MiB", "cluster.snapshots_max": "2",
		"cluster.slow_disk_after": "500ms", "cluster.peer_version_max": "0", "cluster.balance_leaders": "true", "cluster.clock_drift": "2%", "cluster.clock_offset_max": "500ms",
		"node.data_dir": "./proa-data", "node.shards": "8", "listen.client": "127.0.0.1:7400",
		"network.transport": "epoll", "network.event_loops": "1", "raft.engine": "etcd",
	} {
		if got := c.setting(t, name).Value; got != want {
			t.Errorf("%s = %s, want %s", name, got, want)
		}
	}
	if len(c.Notices()) > 0 {
		t.Errorf("defaults give notices: %v", c.Notices())
	}
}

// On a large machine the computed sizes are those the design names.
func TestComputedOnLargeMachine(t *testing.T) {
	c, err := Load(Options{Environ: func() []string { return nil }, Machine: &Machine{Processors: 16, MemoryBytes: 64 * gib}})
	if err != nil {
		t.Fatal(err)
	}
	if c.Memory.CacheSize != 4*gib || c.Memory.MaxMemoryUsage != 16*gib {
		t.Errorf("cache %d, max %d", c.Memory.CacheSize, c.Memory.MaxMemoryUsage)
	}
	if c.Network.Transport != "net" || c.Network.EventLoops != 8 || c.Concurrency.WorkerThreads != 32 {
		t.Errorf("%+v %+v", c.Network, c.Concurrency)
	}
}

// TestComputedTLS: whoever gives files means them.
func TestComputedTLS(t *testing.T) {
	for _, tt := range []struct {
		file             string
		mode, clientAuth string
	}{
		{"{}", "off", "off"},
		{"{cert: c, key: k}", "required", "off"},
		{"{cert: c, key: k, client_ca: a}", "required", "optional"},
		{"{cert: c, key: k, client_ca: a, mode: optional, client_auth: required}", "optional", "required"},
		{"{cert: c, key: k, mode: off}", "off", "off"},
		{"{cert: c, key: k, client_ca: a, client_auth: off, min_version: 1.2}", "required", "off"},
	} {
		if c := mustLoad(t, sources{file: "tls: " + tt.file, env: []string{
			"PROA_TLS=true", "PROA_TLS_CA=/ca", "PROA_TLS_SERVER_NAME=x", "PROA_USER=ann", "PROA_PASSWORD=x", "PROA_PASSWORD_FILE=/p",
		}}); c.TLS.Mode != tt.mode || c.TLS.ClientAuth != tt.clientAuth {
			t.Errorf("%s: %+v", tt.file, c.TLS)
		}
	}
}

// Every machine and every bound a user may set gets computed sizes that pass
// the checks.
func TestComputedFitsAnyMachine(t *testing.T) {
	for memory := int64(0); memory < 65*gib; memory += 97 * mib {
		if _, err := Load(Options{Environ: func() []string { return nil }, Machine: &Machine{Processors: 1, MemoryBytes: memory}}); err != nil {
			t.Fatalf("memory %d: %v", memory, err)
		}
		if memory < 256*mib {
			continue
		}
		env := func() []string { return []string{"PROA_MEMORY_MAX_MEMORY_USAGE=" + FormatSize(memory)} }
		if _, err := Load(Options{Environ: env, Machine: &Machine{Processors: 1, MemoryBytes: 64 * gib}}); err != nil {
			t.Fatalf("max_memory_usage %d: %v", memory, err)
		}
	}
}

func TestEachSourceOverridesTheOneBefore(t *testing.T) {
	file := "node:\n  shards: 3\nraft:\n  max_batch_size: 30\nlisten: {client: '127.0.0.1:1'}\n"
	env := []string{"PROA_NODE_SHARDS=4", "PROA_RAFT_MAX_BATCH_SIZE=40"}
	c := mustLoad(t, sources{file, env, []string{"--shards=5"}})
	for _, want := range []struct{ name, value, source string }{
		{"node.shards", "5", "flag --shards"},
		{"raft.max_batch_size", "40", "environment PROA_RAFT_MAX_BATCH_SIZE"},
		{"listen.client", "127.0.0.1:1", "proa.yaml:5"},
		{"node.data_dir", "./proa-data", "default"},
		{"memory.cache_size", "512MiB", "computed"},
	} {
		s := c.setting(t, want.name)
		if s.Value != want.value || !strings.HasSuffix(s.Source.String(), want.source) {
			t.Errorf("%s = %s from %q, want %s from %q", want.name, s.Value, s.Source, want.value, want.source)
		}
	}
}

func TestAutoOverridesANumber(t *testing.T) {
	for _, text := range []string{"auto", "0", "AUTO"} {
		c := mustLoad(t, sources{file: "memory: {cache_size: 100MiB}", env: []string{"PROA_MEMORY_CACHE_SIZE=" + text}})
		if c.Memory.CacheSize != 512*mib {
			t.Errorf("%s: cache_size = %d", text, c.Memory.CacheSize)
		}
	}
}

func TestEveryFlagReachesItsKey(t *testing.T) {
	values := map[string]string{
		"data": "/x", "node-id": "7", "shards": "2", "listen": "127.0.0.1:9", "unix": "/s", "peer-listen": ":8",
		"admin-listen": "[::1]:7", "resp-listen": "localhost:6", "auth": "required", "insecure": "true", "log-level": "warn", "log-format": "json", "join": "a:1,b:2",
		"advertise-peer": "c:3", "advertise-client": "d:4", "advertise-resp": "e:5",
		"tls": "optional", "tls-cert": "/c", "tls-key": "/k", "tls-client-ca": "/a",
	}
	certificate := []string{"PROA_TLS_CERT=/cert", "PROA_TLS_KEY=/key"} // which other keys need
	for _, k := range new(Config).keys() {
		name, keyName := k.flag, k.name
		if name == "" {
			continue
		}
		c, err := load(t, sources{env: certificate, args: []string{"--" + name + "=" + values[name]}})
		if err != nil {
			t.Errorf("--%s: %v", name, err)
			continue
		}
		if s := c.setting(t, keyName); s.Value != values[name] || s.Source.Where != "--"+name {
			t.Errorf("--%s: %+v", name, s)
		}
	}
	c := mustLoad(t, sources{args: []string{"--set", "raft.max_batch_size=9", "--set=log.level=debug"}})
	if c.Raft.MaxBatchSize != 9 || c.Log.Level != "debug" {
		t.Errorf("--set: %+v %+v", c.Raft, c.Log)
	}
}

func TestRefused(t *testing.T) {
	tests := []struct {
		name string
		s    sources
		want []string // parts of the message, one for each error
	}{
		{"out of range", sources{file: "node: {shards: 0}"}, []string{"proa.yaml:1: node.shards = 0: out of range (allowed: 1 to 1024)"}},
		{"all at once", sources{file: "node: {shards: x, id: -1}\nraft: {max_batch_size: 0}", env: []string{"PROA_LOG_LEVEL=loud"}},
			[]string{"node.id = -1", "node.shards = x: not a whole number", "raft.max_batch_size = 0",
				"environment PROA_LOG_LEVEL: log.level = loud: out of range (allowed: debug, info, warn or error)"}},
		{"no such engine", sources{file: "raft: {engine: hashicorp}"}, []string{"proa.yaml:1: raft.engine = hashicorp: out of range (allowed: etcd or dragonboat)"}},
		{"typo in file", sources{file: "raft:\n  heartbeat_intervall: 1s"}, []string{"proa.yaml:2: raft.heartbeat_intervall: unknown key; did you mean raft.heartbeat_interval?"}},
		{"unlike anything", sources{file: "zzzzzzzzzzzzzzzzzzzzzzzz: 1"}, []string{"zzzzzzzzzzzzzzzzzzzzzzzz: unknown key"}},
		{"typo in environment", sources{env: []string{"PROA_NODE_SHARD=1"}}, []string{"PROA_NODE_SHARD: unknown key; did you mean PROA_NODE_SHARDS?"}},
		{"stranger in a section", sources{env: []string{"PROA_STORAGE_WHATEVER_THIS_IS=1"}}, []string{"PROA_STORAGE_WHATEVER_THIS_IS: unknown key"}},
		{"typo in --set", sources{args: []string{"--set", "log.levle=info"}}, []string{"flag --set: log.levle: unknown key; did you mean log.level?"}},
		{"--set without value", sources{args: []string{"--set", "log.level"}}, []string{"log.level: must have the form --set key=value"}},
		{"section as value", sources{file: "raft: 5"}, []string{"raft: is a section"}},
		{"key without value", sources{file: "node:\n  id:\n"}, []string{"node.id: must be a single value"}},
		{"duration without unit", sources{file: "raft: {heartbeat_interval: 150}"}, []string{"= 150: needs a unit, such as 150ms or 150s"}},
		{"share without sign", sources{file: "monitoring: {error_rate_warn: 0.001}"}, []string{"needs a percent sign"}},
		{"share beyond", sources{file: "monitoring: {error_rate_critical: 101%}"}, []string{"out of range"}},
		{"size", sources{file: "memory: {cache_size: lots}"}, []string{"not a size"}},
		{"size unit", sources{file: "memory: {cache_size: 4PB}"}, []string{"memory.cache_size = 4PB: not a size"}},
		{"address", sources{args: []string{"--listen", "nowhere"}}, []string{"flag --listen: listen.client = nowhere: not host:port"}},
		{"control character", sources{args: []string{"--advertise-client", "h\u009b31m:1"}}, []string{`host "h\u009b31m" is not a name or an address`}},
		{"port", sources{args: []string{"--listen", "a:70000"}}, []string{`port "70000" is not a number from 0 to 65535`}},
		{"long socket path", sources{args: []string{"--unix", strings.Repeat("s", 104)}}, []string{"longer than the 103 bytes"}},
		{"empty data directory", sources{args: []string{"--data", ""}}, []string{"node.data_dir: must not be empty"}},
		{"nowhere to connect", sources{args: []string{"--listen", "off"}}, []string{"listen.client: is off, and so is listen.unix (none, default): no client could connect"}},
		{"two on one address", sources{args: []string{"--listen", ":7401", "--insecure"}}, []string{"listen.peer = 127.0.0.1:7401: is already used by listen.client"}},
		{"heartbeat too near to election", sources{args: []string{"--set", "raft.heartbeat_interval=200ms"}},
			[]string{"raft.election_timeout_min = 300ms: a single late heartbeat would start an election: must be at least twice raft.heartbeat_interval (200ms, flag --set)"}},
		{"election range", sources{file: "raft: {election_timeout_max: 500ms}"}, []string{"must be exactly twice raft.election_timeout_min (300ms, default); set it to 600ms"}},
		{"between ticks", sources{file: "raft: {heartbeat_interval: 15ms}"}, []string{"Raft's clock tick is 10ms"}},
		{"frame above in-flight bytes", sources{file: "network: {in_flight_bytes_max: 1MiB}"}, []string{"must be at least network.max_frame_size (16MiB, computed)"}},
		{"frame above the protocol", sources{file: "network: {max_frame_size: 17MB}"}, []string{"out of range (allowed: 16KiB to 16MiB, or auto)"}},
		{"log smaller than its files", sources{file: "raft: {log_size_max: 64MiB}"}, []string{"at least four times raft.log_segment_size"}},
		{"frame above memory", sources{env: []string{"PROA_MEMORY_MAX_MEMORY_USAGE=256MiB", "PROA_NETWORK_MAX_FRAME_SIZE=16MiB", "PROA_MEMORY_CACHE_SIZE=32MiB"}}, []string{"must be at most 9MiB; or raise memory.max_memory_usage to 368MiB"}},
		{"cache above memory", sources{file: "memory: {cache_size: 8GB, max_memory_usage: 1GB}"}, []string{"memory.max_memory_usage = 1GiB: too little memory is left for requests: must be at least "}},
		{"latencies out of order", sources{file: "monitoring: {p50_latency_warn: 1s}"}, []string{"must not exceed monitoring.p99_latency_warn"}},
		{"node number too large", sources{args: []string{"--node-id", "1099511627776"}}, []string{"node.id = 1099511627776: out of range (allowed: 1 to 1099511627775, or auto)"}},
		{"node number beyond 64 bits", sources{args: []string{"--node-id", "99999999999999999999999"}}, []string{"out of range"}},
		{"join without port", sources{args: []string{"--join", "a:1,b"}}, []string{"node.join = a:1,b: b: not host:port"}},
		{"join at port 0", sources{args: []string{"--join", "a:0"}}, []string{"port 0 cannot be connected to"}},
		{"join at all interfaces", sources{args: []string{"--join", ":7401"}}, []string{":7401: has no host"}},
		{"join at a gap", sources{args: []string{"--join", "a:1,,b:1"}}, []string{"address 2 in the list is empty"}},
		{"join twice", sources{args: []string{"--join", "a:1, A:1"}}, []string{"A:1 appears twice"}},
		{"join too many", sources{args: []string{"--join", peerList(65)}}, []string{"has 65 peers, at most 64"}},
		{"join without a peer port", sources{args: []string{"--join", "a:1", "--peer-listen", "off"}},
			[]string{"listen.peer: is off, but node.join (a:1, flag --join) names peers"}},
		{"join without an address", sources{args: []string{"--join", "a:1", "--advertise-peer", "off"}}, []string{"node.advertise_peer: is off, but node.join"}},
		{"join from loopback", sources{args: []string{"--join", "127.0.0.1:2,a:1", "--peer-listen", "127.0.0.1:7401"}},
			[]string{"node.advertise_peer = 127.0.0.1:7401: is a loopback address, but node.join (127.0.0.1:2,a:1, flag --join) names other machines"}},
		{"advertise all interfaces", sources{args: []string{"--advertise-client", "[::]:7400"}}, []string{"node.advertise_client = [::]:7400: has no host"}},
		{"open to other machines", sources{args: []string{"--listen", ":7400", "--admin-listen", "10.0.0.1:7402"}},
			[]string{"access.authentication = off: other machines can connect to listen.client (:7400), listen.admin (10.0.0.1:7402), listen.resp (:7403), and anyone"}},
		{"replicas", sources{file: "cluster: {replication_factor: 8}"}, []string{"out of range (allowed: 1 to 7)"}},
		{"drift", sources{file: "cluster: {clock_drift: 21%}"}, []string{"out of range (allowed: 0% to 20%)"}},
		{"replaced too early", sources{file: "cluster: {replace_after: 1s}"}, []string{"must be at least twice raft.election_timeout_max (600ms, default)"}},
		{"certificate without its key", sources{args: []string{"--tls-cert", "/c"}}, []string{"tls.key: is not set, but tls.cert (/c, flag --tls-cert) is: set both"}},
		{"key without its certificate", sources{args: []string{"--tls-key", "/k"}}, []string{"tls.cert: is not set, but tls.key (/k, flag --tls-key) is: set both"}},
		{"TLS without a certificate", sources{args: []string{"--tls", "required"}}, []string{"tls.mode = required: needs a certificate: set tls.cert and tls.key"}},
		{"clients' certificates without an authority", sources{file: "tls: {cert: /c, key: /k, client_auth: required}"}, []string{"tls.client_auth = required: needs the authorities that sign clients' certificates: set tls.client_ca"}},
		{"an authority without TLS", sources{file: "tls: {cert: /c, key: /k, client_ca: /a, mode: off}"}, []string{"tls.client_ca = /a: has no effect while tls.mode (off, "}},
		{"TLS too old", sources{file: "tls: {min_version: 1.1}"}, []string{"out of range (allowed: 1.3 or 1.2)"}},
		{"slow too early", sources{file: "raft: {replication_timeout: 500ms}"}, []string{"raft.replication_timeout = 500ms: a follower may not answer for that long"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			_, err := load(t, tt.s)
			var all Errors
			if !errors.As(err, &all) {
				t.Fatalf("error %v", err)
			}
			if len(all) != len(tt.want) {
				t.Errorf("%d errors, want %d", len(all), len(tt.want))
			}
			for _, want := range tt.want {
				if !strings.Contains(err.Error(), want) {
					t.Errorf("no %q in:\n%v", want, err)
				}
			}
		})
	}
}

// peerList names n peers.
func peerList(n int) string {
	peers := make([]string, n)
	for i := range peers {
		peers[i] = fmt.Sprintf("n%d:7401", i)
	}
	return strings.Join(peers, ",")
}

func TestJoin(t *testing.T) {
	for _, tt := range []struct {
		name string
		s    sources
		want map[string]string
	}{
		{"other machines", sources{args: []string{"--node-id", "1", "--join", "n1:7401, n2:7401,[fd00::3]:7401"}}, map[string]string{
			"node.join": "n1:7401,n2:7401,[fd00::3]:7401", "listen.peer": ":7401", "node.advertise_peer": "this.example:7401", "node.id": "1",
		}},
		{"this machine", sources{args: []string{"--join", "127.0.0.1:7411,localhost:7421,[::1]:7431"}}, map[string]string{
			"listen.peer": "127.0.0.1:7401", "node.advertise_peer": "127.0.0.1:7401", "node.id": "auto",
		}},
		{"as many as are allowed", sources{args: []string{"--join", peerList(64)}}, nil},
		{"a list in a file", sources{file: "node: {join: ['a:1', 'b:2']}"}, map[string]string{"node.join": "a:1,b:2"}},
		{"all interfaces", sources{args: []string{"--peer-listen", "[::]:9", "--listen", "0.0.0.0:0", "--insecure"}}, map[string]string{
			"node.advertise_peer": "this.example:9", "node.advertise_client": "this.example:0",
		}},
		{"behind a port forward", sources{args: []string{"--join", "a:1", "--peer-listen", "127.0.0.1:7401", "--advertise-peer", "gate:1", "--advertise-client", "gate:2"}}, map[string]string{
			"node.advertise_peer": "gate:1", "node.advertise_client": "gate:2",
		}},
		{"off", sources{args: []string{"--peer-listen", "off", "--listen", "off", "--unix", "/s"}}, map[string]string{
			"node.advertise_peer": "", "node.advertise_client": "",
		}},
		{"words for zero", sources{file: "cluster: {replace_after: Never, snapshot_rate: unlimited, slow_disk_after: never, clock_drift: 0%}"}, map[string]string{
			"cluster.replace_after": "0", "cluster.snapshot_rate": "0", "cluster.slow_disk_after": "0", "cluster.clock_drift": "0%",
		}},
		{"number by the cluster", sources{args: []string{"--node-id", "0", "--join", "a:1"}}, map[string]string{"node.id": "auto"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			c := mustLoad(t, tt.s)
			for name, want := range tt.want {
				if got := c.setting(t, name).Value; got != want {
					t.Errorf("%s = %q, want %q", name, got, want)
				}
			}
		})
	}
}

// The Redis protocol is served beside a native one that keeps its usual port.
func TestListenRESP(t *testing.T) {
	for _, tt := range []struct {
		args               []string
		listen, advertised string
	}{
		{nil, "127.0.0.1:7403", "127.0.0.1:7403"},
		{[]string{"--listen", ":7400", "--insecure"}, ":7403", "this.example:7403"},
		{[]string{"--listen", "[::1]:7400"}, "[::1]:7403", "[::1]:7403"},
		{[]string{"--listen", ":7410", "--insecure"}, "", ""},
		{[]string{"--listen", "127.0.0.1:0"}, "", ""},
		{[]string{"--listen", "off", "--unix", "/s"}, "", ""},
		{[]string{"--resp-listen", "off"}, "", ""},
		{[]string{"--listen", ":7410", "--insecure", "--resp-listen", ":6379"}, ":6379", "this.example:6379"},
		{[]string{"--resp-listen", ":6379", "--auth=required", "--advertise-resp", "gate:1"}, ":6379", "gate:1"},
	} {
		c := mustLoad(t, sources{args: tt.args})
		if c.Listen.RESP != tt.listen || c.Node.AdvertiseRESP != tt.advertised {
			t.Errorf("%v: listens on %q, advertises %q; want %q and %q", tt.args, c.Listen.RESP, c.Node.AdvertiseRESP, tt.listen, tt.advertised)
		}
	}
}

func TestWarnings(t *testing.T) {
	for _, tt := range []struct {
		args []string
		want string
	}{
		{[]string{"--set", "cluster.replication_factor=4"}, "it tolerates no more failures than 3"},
		{[]string{"--join", "a:1"}, "node.advertise_client = 127.0.0.1:7400: clients on other machines"},
		{[]string{"--join", "a:1", "--listen", ":7400", "--auth=required"}, ""},
		{[]string{"--join", "127.0.0.1:1"}, ""},
		{[]string{"--set", "cluster.replication_factor=5"}, ""},
	} {
		c := mustLoad(t, sources{args: tt.args})
		got := strings.Join(c.Warnings(), "\n")
		if !strings.Contains(got, tt.want) || tt.want == "" && got != "" {
			t.Errorf("%v: warnings %q, want %q", tt.args, got, tt.want)
		}
		var b bytes.Buffer
		c.Report(slog.New(slog.NewTextHandler(&b, nil)))
		if !strings.Contains(b.String(), tt.want) {
			t.Errorf("%v: no %q in report", tt.args, tt.want)
		}
	}
}

func TestBoundAddress(t *testing.T) {
	bound := &net.TCPAddr{IP: net.IPv6loopback, Port: 4711}
	for in, want := range map[string]string{
		"host:0": "host:4711", "[fd00::1]:0": "[fd00::1]:4711", "host:1": "host:1", "": "", "host": "host",
	} {
		if got := BoundAddress(in, bound); got != want {
			t.Errorf("BoundAddress(%q) = %q, want %q", in, got, want)
		}
	}
	if got := BoundAddress("host:0", &net.UnixAddr{Name: "/s"}); got != "host:0" {
		t.Errorf("with a unix socket: %q", got)
	}
}

func TestFirstReachable(t *testing.T) {
	network := func(prefixes ...string) (out []net.Addr) {
		for _, p := range prefixes {
			ip, n, err := net.ParseCIDR(p)
			if err != nil {
				t.Fatal(err)
			}
			out = append(out, &net.IPNet{IP: ip, Mask: n.Mask})
		}
		return out
	}
	for _, tt := range []struct {
		addresses []net.Addr
		want      string
	}{
		{network("127.0.0.1/8", "::1/128", "fe80::1/64", "fd00::5/64", "10.0.0.7/24", "10.0.0.8/24"), "10.0.0.7"},
		{network("127.0.0.1/8", "169.254.1.1/16", "fd00::5/64", "fd00::6/64"), "fd00::5"},
		{network("127.0.0.1/8", "::1/128"), ""},
		{nil, ""},
	} {
		got := ""
		if a, ok := firstReachable(tt.addresses); ok {
			got = a.String()
		}
		if got != tt.want {
			t.Errorf("firstReachable(%v) = %q, want %q", tt.addresses, got, tt.want)
		}
	}
	if (&Machine{}).host() == "" {
		t.Error("this machine has no name")
	}
}

func FuzzPeers(f *testing.F) {
	for _, s := range []string{"", "a:1", "a:1,b:2", "[::1]:7401", "a", ",", "a:0", " a:1 ,a:1"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, text string) {
		var list, again []string
		set := func(p *[]string, text string) error { return peers(p).set(text, false) }
		if set(&list, text) != nil {
			return
		}
		if len(list) > joinMax {
			t.Fatalf("%d peers", len(list))
		}
		for _, p := range list {
			if port, err := checkReachable(p); err != nil || port == 0 {
				t.Fatalf("%q: port %d, %v", p, port, err)
			}
		}
		if err := set(&again, strings.Join(list, ",")); err != nil || !cmp.Equal(list, again) {
			t.Fatalf("%q prints as %q, which reads as %q, %v", text, list, again, err)
		}
	})
}

func TestTransportsThatAreNotHere(t *testing.T) {
	for transport, want := range map[string]string{
		"epoll":   "this system has no epoll; use net or auto",
		"netpoll": "netpoll does not run on this system; use net or auto",
	} {
		_, err := Load(Options{Environ: func() []string { return []string{"PROA_NETWORK_TRANSPORT=" + transport} }, Machine: &Machine{Processors: 1}})
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: error %v", transport, err)
		}
	}
	c := mustLoad(t, sources{env: []string{"PROA_NETWORK_TRANSPORT=netpoll"}})
	if c.Network.Transport != "netpoll" {
		t.Errorf("netpoll became %s", c.Network.Transport)
	}
}

func TestFileProblems(t *testing.T) {
	if _, err := Load(Options{File: filepath.Join(t.TempDir(), "missing.yaml"), Environ: func() []string { return nil }}); !errors.Is(err, os.ErrNotExist) || !strings.Contains(err.Error(), "missing.yaml") {
		t.Errorf("missing file: %v", err)
	}
	for _, text := range []string{"a: b: c", "node: {id: 1}\nnode: {id: 2}", "\t", "[1, 2]", "\xff"} {
		if _, err := load(t, sources{file: text}); err == nil {
			t.Errorf("%q is accepted", text)
		}
	}
	for _, text := range []string{"# nothing\n", "raft:\n", "raft: {}\n", "raft.max_batch_size: 5"} {
		if _, err := load(t, sources{file: text}); err != nil {
			t.Errorf("%q: %v", text, err)
		}
	}
}

func TestFileIsNamedByFlagThenEnvironment(t *testing.T) {
	first, second := writeFile(t, "node: {id: 11}"), writeFile(t, "node: {id: 12}")
	env := []string{"PROA_CONFIG=" + second}
	if c := mustLoad(t, sources{env: env}); c.Node.ID != 12 {
		t.Errorf("by environment: node %d", c.Node.ID)
	}
	if c := mustLoad(t, sources{env: env, args: []string{"--config", first}}); c.Node.ID != 11 {
		t.Errorf("by flag: node %d", c.Node.ID)
	}
}

// Kubernetes sets such variables for a service named proa.
func TestForeignVariablesAreIgnored(t *testing.T) {
	mustLoad(t, sources{env: []string{"PROA_SERVICE_HOST=10.0.0.1", "PROA_PORT_7400_TCP=tcp://10.0.0.1:7400", "PROA_ENDPOINTS=a:1", "HOME=/"}})
}

func TestSettingsWithoutEffectAreReported(t *testing.T) {
	c := mustLoad(t, sources{file: "network: {io_uring_depth: 1024, connection_pool_size: 5}"})
	var got []string
	for _, n := range c.Notices() {
		got = append(got, n.Name+": "+n.Effect.String())
	}
	want := []string{"network.io_uring_depth: not in this version", "network.connection_pool_size: only in a cluster of several nodes"}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	var b bytes.Buffer
	c.Report(slog.New(slog.NewTextHandler(&b, nil)))
	for _, want := range []string{"memory.cache_size=512MiB", "key=network.io_uring_depth", "level=WARN", "key=network.connection_pool_size"} {
		if !strings.Contains(b.String(), want) {
			t.Errorf("no %q in report:\n%s", want, &b)
		}
	}
}

// A token that is refused is not told, and its variable is named as it was set.
func TestRefusedTokenIsNotTold(t *testing.T) {
	for variable, s := range map[string]sources{
		"PROA_JOIN_TOKEN":      {env: []string{"PROA_JOIN_TOKEN=hush"}},
		"PROA_NODE_JOIN_TOKEN": {env: []string{"PROA_NODE_JOIN_TOKEN=hush"}},
		"--join-token":         {args: []string{"--join-token", "hush"}},
		"--set":                {args: []string{"--set", "node.join_token=hush"}},
	} {
		_, err := load(t, s)
		if err == nil || strings.Contains(err.Error(), "hush") || !strings.Contains(err.Error(), " "+variable+":") {
			t.Errorf("by %s: %v", variable, err)
		}
	}
}

// What config show prints is a file with the same meaning.
func TestWriteYAMLReadsBack(t *testing.T) {
	c := mustLoad(t, sources{args: []string{
		"--unix", "/run/a b#c", "--listen", ":7400", "--insecure", "--data", "- x: 'y'", "--set", "monitoring.error_rate_warn=0.07%",
		"--set", "network.idle_timeout=0", "--set", "memory.buffer_pool_size=0",
	}})
	var b bytes.Buffer
	if err := c.WriteYAML(&b, true); err != nil {
		t.Fatal(err)
	}
	again, err := load(t, sources{file: b.String()})
	if err != nil {
		t.Fatalf("%v in\n%s", err, &b)
	}
	if diff := cmp.Diff(c, again, cmpopts.IgnoreUnexported(Config{})); diff != "" {
		t.Error(diff)
	}
}

// Every key's default is what its own Set accepts, prints back to itself, has
// documentation, and every field of Config has a key.
func TestTableIsComplete(t *testing.T) {
	var c Config
	keys := c.keys()
	seen := map[string]bool{}
	for _, k := range keys {
		if seen[k.name] {
			t.Errorf("%s stands twice", k.name)
		}
		seen[k.name] = true
		if !regexp.MustCompile(`(?m)^### ` + k.name + `\n\n.*\.\n\n{{facts "` + k.name + `"}}$`).MatchString(reference) {
			t.Errorf("reference.md has no description of %s", k.name)
		}
		if !regexp.MustCompile(`(?m)^## ` + k.section() + `\n\n.*\.$`).MatchString(reference) {
			t.Errorf("reference.md has no title of section %s", k.section())
		}
		if (k.compute != nil) != (k.fallback == auto) && k.name != "log.format" {
			t.Errorf("%s: default %s and computed do not fit", k.name, k.fallback)
		}
		if k.zero == "" || k.fallback == auto {
			continue
		}
		if err := k.set("0"); err != nil {
			t.Errorf("%s: 0 means %q and is refused: %v", k.name, k.zero, err)
		}
	}
	fields := 0
	v := reflect.ValueOf(c)
	for i := range v.NumField() {
		if v.Type().Field(i).IsExported() {
			fields += v.Field(i).NumField()
		}
	}
	if fields != len(keys) {
		t.Errorf("%d fields, %d keys", fields, len(keys))
	}
}

func TestParseSize(t *testing.T) {
	for text, want := range map[string]int64{
		"0": 0, "17": 17, "17B": 17, "4GB": 4 << 30, "16MiB": 16 << 20, "1.5g": 3 << 29, " 2 kib ": 2048, "1tb": 1 << 40,
		"9007199254740993": 9007199254740993,
	} {
		if got, err := ParseSize(text); err != nil || got != want {
			t.Errorf("ParseSize(%q) = %d, %v, want %d", text, got, err, want)
		}
	}
	for _, text := range []string{"", "MB", "-1", "+1", "1e3", "0x10", "NaN", "Inf", "1 2", "1bb", "9999999999GB", "1.5.5MB", "99999999.5TB"} {
		if got, err := ParseSize(text); err == nil {
			t.Errorf("ParseSize(%q) = %d", text, got)
		}
	}
}

func FuzzParseSize(f *testing.F) {
	for _, s := range []string{"4GB", "1.5MiB", "0", "-1", "16 kib", ".5g", "9223372036854775807"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, text string) {
		n, err := ParseSize(text)
		if err != nil {
			return
		}
		if n < 0 {
			t.Fatalf("ParseSize(%q) = %d", text, n)
		}
		if again, err := ParseSize(FormatSize(n)); err != nil || again != n {
			t.Fatalf("%q: %d prints as %s, which reads as %d, %v", text, n, FormatSize(n), again, err)
		}
	})
}

func TestFormatDuration(t *testing.T) {
	for d, want := range map[time.Duration]string{
		0: "0", time.Hour: "1h", 90 * time.Minute: "1h30m", time.Minute: "1m", 10 * time.Second: "10s",
		150 * time.Millisecond: "150ms", time.Hour + time.Second: "1h0m1s",
	} {
		if got := FormatDuration(d); got != want {
			t.Errorf("FormatDuration(%d) = %s, want %s", d, got, want)
		}
	}
}

func TestBudget(t *testing.T) {
	c := mustLoad(t, sources{})
	b := c.Budget()
	if b.RowCache+b.BlockCache != c.Memory.CacheSize {
		t.Errorf("caches %+v do not add up to %d", b, c.Memory.CacheSize)
	}
	if sum := b.RowCache + b.BlockCache + b.Memtables + b.LogCache + b.Program + 2*b.Requests; sum > c.Memory.MaxMemoryUsage || b.Requests <= 0 {
		t.Errorf("%+v exceeds %d", b, c.Memory.MaxMemoryUsage)
	}
	if b.GoLimit+b.RowCache+b.Program != c.Memory.MaxMemoryUsage {
		t.Errorf("Go limit %d", b.GoLimit)
	}
}

// TestExampleOfReference loads the file that the reference shows.
func TestExampleOfReference(t *testing.T) {
	_, file, _ := strings.Cut(reference, "```yaml\n")
	file, _, ok := strings.Cut(file, "```")
	c, err := Load(Options{File: writeFile(t, file), Environ: func() []string { return nil }, Machine: &Machine{Processors: 16, MemoryBytes: 64 * gib}})
	if err != nil {
		t.Fatal(err)
	}
	if !ok || c.Access.Authentication != "required" {
		t.Errorf("the example is %q", file)
	}
}

// docs/configuration.md is what WriteReference writes.
func TestReferenceIsCurrent(t *testing.T) {
	const path = "../docs/configuration.md"
	var b bytes.Buffer
	if err := WriteReference(&b); err != nil {
		t.Fatal(err)
	}
	if *update {
		if err := os.WriteFile(path, b.Bytes(), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	old, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(old), b.String()); diff != "" {
		t.Errorf("docs/configuration.md is not current, run make docs:\n%s", diff)
	}
}
