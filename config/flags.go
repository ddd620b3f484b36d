package config

import "github.com/spf13/pflag"

const (
	flagConfig = "config"
	flagSet    = "set"
)

// flagKeys maps the flags with a name of their own to their keys. Every other
// key is reached by --set.
var flagKeys = map[string]string{
	"data":             "node.data_dir",
	"node-id":          "node.id",
	"shards":           "node.shards",
	"join":             "node.join",
	"join-token":       "node.join_token",
	"listen":           "listen.client",
	"unix":             "listen.unix",
	"peer-listen":      "listen.peer",
	"advertise-peer":   "node.advertise_peer",
	"advertise-client": "node.advertise_client",
	"advertise-resp":   "node.advertise_resp",
	"admin-listen":     "listen.admin",
	"resp-listen":      "listen.resp",
	"log-level":        "log.level",
	"log-format":       "log.format",
}

// AddFlags adds the flags of the configuration to set: --config, --set, and
// those of flagKeys. They are all read as text; Load checks them.
func AddFlags(set *pflag.FlagSet) {
	set.String(flagConfig, "", "configuration `file` (YAML); also "+EnvFile)
	set.StringArray(flagSet, nil, "set any configuration `key=value`; repeatable")
	add := func(name, usage string) {
		var c Config
		for _, k := range c.keys() {
			if k.name == flagKeys[name] && k.fallback != "" {
				usage += " (default " + k.fallback + ")"
			}
		}
		set.String(name, "", usage)
	}
	add("data", "data `directory`")
	add("node-id", "`number` of this node in its cluster")
	add("shards", "`number` of shards; fixed at the first start")
	add("join", "`peers`, host:port,...: all nodes of a new cluster, or members of a running cluster to join")
	add("join-token", "join `token` of a running cluster; also "+EnvJoinToken)
	add("listen", "client `address`; :7400 accepts connections from the network")
	add("unix", "unix socket `path` for clients")
	add("peer-listen", "`address` for other nodes, or off")
	add("advertise-peer", "`address` at which other nodes reach this one")
	add("advertise-client", "`address` at which clients reach this node")
	add("admin-listen", "`address` of the administration server")
	add("resp-listen", "`address` of the Redis protocol, or off")
	add("advertise-resp", "`address` at which clients of the Redis protocol reach this node")
	add("log-level", "minimum log `level`: debug, info, warn, error")
	add("log-format", "log `format`: text, json, or auto")
}
