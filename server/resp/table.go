package resp

// ID names a command, or the subcommand of one, where code has to tell them
// apart. It means nothing outside of this process.
type ID uint8

// All commands, with their subcommands behind them.
const (
	CmdPing ID = iota + 1
	CmdEcho
	CmdHello
	CmdAuth
	CmdSelect
	CmdQuit
	CmdReset
	CmdClient
	CmdClientID
	CmdClientGetName
	CmdClientSetName
	CmdClientSetInfo
	CmdClientInfo
	CmdClientList
	CmdClientKill
	CmdClientNoEvict
	CmdClientNoTouch
	CmdClientHelp
	CmdCommand
	CmdCommandCount
	CmdCommandDocs
	CmdCommandInfo
	CmdCommandGetKeys
	CmdCommandHelp
	CmdCommandList
	CmdCommandGetKeysAndFlags
	CmdConfig
	CmdConfigGet
	CmdConfigSet
	CmdConfigHelp
	CmdConfigResetStat
	CmdRole
	CmdMemory
	CmdMemoryUsage
	CmdMemoryHelp
	CmdInfo
	CmdDBSize
	CmdFlushAll
	CmdFlushDB
	CmdTime
	CmdGet
	CmdSet
	CmdSetNX
	CmdSetEX
	CmdPSetEX
	CmdGetSet
	CmdGetDel
	CmdGetEX
	CmdMGet
	CmdMSet
	CmdMSetNX
	CmdStrlen
	CmdAppend
	CmdGetRange
	CmdSetRange
	CmdSubstr
	CmdIncr
	CmdIncrBy
	CmdDecr
	CmdDecrBy
	CmdIncrByFloat
	CmdDel
	CmdUnlink
	CmdExists
	CmdType
	CmdExpire
	CmdPExpire
	CmdExpireAt
	CmdPExpireAt
	CmdTTL
	CmdPTTL
	CmdExpireTime
	CmdPExpireTime
	CmdPersist
	CmdScan
	CmdKeys
	CmdRename
	CmdRenameNX
	CmdRandomKey
	CmdCopy
	CmdTouch
	CmdObject
	CmdObjectEncoding
	CmdObjectHelp
	CmdObjectFreq
	CmdObjectIdleTime
	CmdObjectRefCount
	CmdMulti
	CmdExec
	CmdDiscard
	CmdWatch
	CmdUnwatch
	CmdWait
	CmdCluster
	CmdClusterSlots
	CmdClusterShards
	CmdClusterNodes
	CmdClusterInfo
	CmdClusterKeySlot
	CmdClusterMyID
	CmdClusterCountKeysInSlot
	CmdClusterHelp
	CmdClusterGetKeysInSlot
	CmdClusterReplicas
	CmdClusterSlaves
	CmdClusterLinks
	CmdReadOnly
	CmdReadWrite
	CmdAsking
)

// table describes all commands. Names, numbers, flags, categories and
// arguments are those of Redis 7.0, since clients go by them; where there is
// more in Redis than here (subcommands), only what Proa has is listed. CLIENT
// SETINFO and CLIENT NO-TOUCH are newer, and as in Redis 7.2.
var table = []*Command{
	{
		ID: CmdPing, Name: "ping", Arity: -1, Flags: FlagFast,
		Categories: CategoryConnection,
		Tips:       []string{"request_policy:all_shards", "response_policy:all_succeeded"},
		Summary:    "Returns PONG, or its argument.",
		Since:      "1.0.0", Group: "connection", Complexity: "O(1)",
		Arguments: []Argument{
			{Name: "message", Type: "string", Optional: true},
		},
	},
	{
		ID: CmdEcho, Name: "echo", Arity: 2, Flags: FlagLoading | FlagStale | FlagFast,
		Categories: CategoryConnection,
		Summary:    "Returns its argument.",
		Since:      "1.0.0", Group: "connection", Complexity: "O(1)",
		Arguments: []Argument{
			{Name: "message", Type: "string"},
		},
	},
	{
		ID: CmdHello, Name: "hello", Arity: -1, Flags: FlagNoScript | FlagLoading | FlagStale | FlagFast | FlagNoAuth | FlagAllowBusy,
		Categories: CategoryConnection,
		Summary:    "Handshake: sets the protocol version, credentials and connection name.",
		Since:      "6.0.0", Group: "connection", Complexity: "O(1)",
		Arguments: []Argument{
			{Name: "arguments", Type: "block", Optional: true, Choices: []Argument{
				{Name: "protover", Type: "integer"},
				{Name: "username_password", Type: "block", Token: "AUTH", Optional: true, Choices: []Argument{
					{Name: "username", Type: "string"},
					{Name: "password", Type: "string"},
				}},
				{Name: "clientname", Type: "string", Token: "SETNAME", Optional: true},
			}},
		},
	},
	{
		ID: CmdAuth, Name: "auth", Arity: -2, Flags: FlagNoScript | FlagLoading | FlagStale | FlagFast | FlagNoAuth | FlagAllowBusy,
		Categories: CategoryConnection,
		Summary:    "Authenticates this connection.",
		Since:      "1.0.0", Group: "connection", Complexity: "O(1)",
		Arguments: []Argument{
			{Name: "username", Type: "string", Since: "6.0.0", Optional: true},
			{Name: "password", Type: "string"},
		},
	},
	{
		ID: CmdSelect, Name: "select", Arity: 2, Flags: FlagLoading | FlagStale | FlagFast,
		Categories: CategoryConnection,
		Summary:    "Selects a database; only database 0 exists.",
		Since:      "1.0.0", Group: "connection", Complexity: "O(1)",
		Arguments: []Argument{
			{Name: "index", Type: "integer"},
		},
	},
	{
		ID: CmdQuit, Name: "quit", Arity: -1, Flags: FlagNoScript | FlagLoading | FlagStale | FlagFast | FlagNoAuth | FlagAllowBusy,
		Categories: CategoryConnection,
		Summary:    "Closes the connection after all earlier commands are answered.",
		Since:      "1.0.0", Group: "connection", Complexity: "O(1)",
	},
	{
		ID: CmdReset, Name: "reset", Arity: 1, Flags: FlagNoScript | FlagLoading | FlagStale | FlagFast | FlagNoAuth | FlagAllowBusy,
		Categories: CategoryConnection,
		Summary:    "Resets the connection to the state of a new one.",
		Since:      "6.2.0", Group: "connection", Complexity: "O(1)",
	},
	{
		ID: CmdClient, Name: "client", Arity: -2,
		Summary: "Commands about connections.",
		Since:   "2.4.0", Group: "connection", Complexity: "Depends on the subcommand.",
		Subcommands: []*Command{
			{
				ID: CmdClientID, Name: "client|id", Arity: 2, Flags: FlagNoScript | FlagLoading | FlagStale,
				Categories: CategoryConnection,
				Summary:    "Returns the ID of this connection.",
				Since:      "5.0.0", Group: "connection", Complexity: "O(1)",
			},
			{
				ID: CmdClientGetName, Name: "client|getname", Arity: 2, Flags: FlagNoScript | FlagLoading | FlagStale,
				Categories: CategoryConnection,
				Summary:    "Returns the name of this connection.",
				Since:      "2.6.9", Group: "connection", Complexity: "O(1)",
			},
			{
				ID: CmdClientSetName, Name: "client|setname", Arity: 3, Flags: FlagNoScript | FlagLoading | FlagStale,
				Categories: CategoryConnection,
				Summary:    "Sets the name of this connection.",
				Since:      "2.6.9", Group: "connection", Complexity: "O(1)",
				Arguments: []Argument{
					{Name: "connection-name", Type: "string"},
				},
			},
			{
				ID: CmdClientSetInfo, Name: "client|setinfo", Arity: 4, Flags: FlagNoScript | FlagLoading | FlagStale,
				Categories: CategoryConnection,
				Tips:       []string{"request_policy:all_nodes", "response_policy:all_succeeded"},
				Summary:    "Records the client's library and its version.",
				Since:      "7.2.0", Group: "connection", Complexity: "O(1)",
				Arguments: []Argument{
					{Name: "attr", Type: "oneof", Choices: []Argument{
						{Name: "libname", Type: "string", Token: "LIB-NAME"},
						{Name: "libver", Type: "string", Token: "LIB-VER"},
					}},
				},
			},
			{
				ID: CmdClientInfo, Name: "client|info", Arity: 2, Flags: FlagNoScript | FlagLoading | FlagStale,
				Categories: CategoryConnection,
				Tips:       []string{"nondeterministic_output"},
				Summary:    "Describes this connection.",
				Since:      "6.2.0", Group: "connection", Complexity: "O(1)",
			},
			{
				ID: CmdClientList, Name: "client|list", Arity: -2, Flags: FlagAdmin | FlagNoScript | FlagLoading | FlagStale,
				Categories: CategoryConnection,
				Tips:       []string{"nondeterministic_output"},
				Summary:    "Describes all connections, one on a line.",
				Since:      "2.4.0", Group: "connection", Complexity: "O(N), N: connections",
				Arguments: []Argument{
					{Name: "normal_master_replica_pubsub", Type: "oneof", Token: "TYPE", Since: "5.0.0", Optional: true, Choices: []Argument{
						{Name: "normal", Type: "pure-token", Token: "NORMAL"},
						{Name: "master", Type: "pure-token", Token: "MASTER"},
						{Name: "replica", Type: "pure-token", Token: "REPLICA"},
						{Name: "pubsub", Type: "pure-token", Token: "PUBSUB"},
					}},
					{Name: "id", Type: "block", Token: "ID", Since: "6.2.0", Optional: true, Choices: []Argument{
						{Name: "client-id", Type: "integer", Multiple: true},
					}},
				},
			},
			{
				ID: CmdClientKill, Name: "client|kill", Arity: -3, Flags: FlagAdmin | FlagNoScript | FlagLoading | FlagStale,
				Categories: CategoryConnection,
				Summary:    "Closes connections.",
				Since:      "2.4.0", Group: "connection", Complexity: "O(N), N: connections",
				Arguments: []Argument{
					{Name: "filter", Type: "oneof", Choices: []Argument{
						{Name: "ip:port", Type: "string", Deprecated: "2.8.12"},
						{Name: "new-format", Type: "oneof", Multiple: true, Choices: []Argument{
							{Name: "client-id", Type: "integer", Token: "ID", Since: "2.8.12", Optional: true},
							{Name: "normal_master_slave_pubsub", Type: "oneof", Token: "TYPE", Since: "2.8.12", Optional: true, Choices: []Argument{
								{Name: "normal", Type: "pure-token", Token: "NORMAL"},
								{Name: "master", Type: "pure-token", Token: "MASTER", Since: "3.2.0"},
								{Name: "slave", Type: "pure-token", Token: "SLAVE"},
								{Name: "replica", Type: "pure-token", Token: "REPLICA", Since: "5.0.0"},
								{Name: "pubsub", Type: "pure-token", Token: "PUBSUB"},
							}},
							{Name: "username", Type: "string", Token: "USER", Optional: true},
							{Name: "ip:port", Type: "string", Token: "ADDR", Optional: true},
							{Name: "ip:port", Type: "string", Token: "LADDR", Since: "6.2.0", Optional: true},
							{Name: "yes/no", Type: "string", Token: "SKIPME", Optional: true},
						}},
					}},
				},
			},
			{
				ID: CmdClientNoEvict, Name: "client|no-evict", Arity: 3, Flags: FlagAdmin | FlagNoScript | FlagLoading | FlagStale,
				Categories: CategoryConnection,
				Summary:    "Accepted without effect: connections are never closed to free memory.",
				Since:      "7.0.0", Group: "connection", Complexity: "O(1)",
				Arguments: []Argument{
					{Name: "enabled", Type: "oneof", Choices: []Argument{
						{Name: "on", Type: "pure-token", Token: "ON"},
						{Name: "off", Type: "pure-token", Token: "OFF"},
					}},
				},
			},
			{
				ID: CmdClientNoTouch, Name: "client|no-touch", Arity: 3, Flags: FlagNoScript | FlagLoading | FlagStale,
				Categories: CategoryConnection,
				Summary:    "Accepted without effect: reads do not record access times.",
				Since:      "7.2.0", Group: "connection", Complexity: "O(1)",
				Arguments: []Argument{
					{Name: "enabled", Type: "oneof", Choices: []Argument{
						{Name: "on", Type: "pure-token", Token: "ON"},
						{Name: "off", Type: "pure-token", Token: "OFF"},
					}},
				},
			},
			{
				ID: CmdClientHelp, Name: "client|help", Arity: 2, Flags: FlagLoading | FlagStale,
				Categories: CategoryConnection,
				Summary:    "Lists the subcommands.",
				Since:      "5.0.0", Group: "connection", Complexity: "O(1)",
			},
		},
	},
	{
		ID: CmdCommand, Name: "command", Arity: -1, Flags: FlagLoading | FlagStale,
		Categories: CategoryConnection,
		Tips:       []string{"nondeterministic_output_order"},
		Summary:    "Describes all commands.",
		Since:      "2.8.13", Group: "server", Complexity: "O(N), N: commands",
		Subcommands: []*Command{
			{
				ID: CmdCommandCount, Name: "command|count", Arity: 2, Flags: FlagLoading | FlagStale,
				Categories: CategoryConnection,
				Summary:    "Counts the commands.",
				Since:      "2.8.13", Group: "server", Complexity: "O(1)",
			},
			{
				ID: CmdCommandDocs, Name: "command|docs", Arity: -2, Flags: FlagLoading | FlagStale,
				Categories: CategoryConnection,
				Tips:       []string{"nondeterministic_output_order"},
				Summary:    "Returns documentation of commands.",
				Since:      "7.0.0", Group: "server", Complexity: "O(N), N: commands asked for",
				Arguments: []Argument{
					{Name: "command-name", Type: "string", Optional: true, Multiple: true},
				},
			},
			{
				ID: CmdCommandInfo, Name: "command|info", Arity: -2, Flags: FlagLoading | FlagStale,
				Categories: CategoryConnection,
				Tips:       []string{"nondeterministic_output_order"},
				Summary:    "Returns information about commands for clients.",
				Since:      "2.8.13", Group: "server", Complexity: "O(N), N: commands asked for",
				Arguments: []Argument{
					{Name: "command-name", Type: "string", Optional: true, Multiple: true},
				},
			},
			{
				ID: CmdCommandGetKeys, Name: "command|getkeys", Arity: -4, Flags: FlagLoading | FlagStale,
				Categories: CategoryConnection,
				Summary:    "Extracts the keys from the arguments of a command.",
				Since:      "2.8.13", Group: "server", Complexity: "O(N), N: arguments",
			},
			{
				ID: CmdCommandGetKeysAndFlags, Name: "command|getkeysandflags", Arity: -4, Flags: FlagLoading | FlagStale,
				Categories: CategoryConnection,
				Summary:    "Extracts the keys from the arguments of a command, with access flags.",
				Since:      "7.0.0", Group: "server", Complexity: "O(N), N: arguments",
			},
			{
				ID: CmdCommandList, Name: "command|list", Arity: -2, Flags: FlagLoading | FlagStale,
				Categories: CategoryConnection,
				Tips:       []string{"nondeterministic_output_order"},
				Summary:    "Lists the names of all commands.",
				Since:      "7.0.0", Group: "server", Complexity: "O(N), N: commands",
				Arguments: []Argument{
					{Name: "filterby", Type: "oneof", Token: "FILTERBY", Optional: true, Choices: []Argument{
						{Name: "module-name", Type: "string", Token: "MODULE"},
						{Name: "category", Type: "string", Token: "ACLCAT"},
						{Name: "pattern", Type: "pattern", Token: "PATTERN"},
					}},
				},
			},
			{
				ID: CmdCommandHelp, Name: "command|help", Arity: 2, Flags: FlagLoading | FlagStale,
				Categories: CategoryConnection,
				Summary:    "Lists the subcommands.",
				Since:      "5.0.0", Group: "server", Complexity: "O(1)",
			},
		},
	},
	{
		ID: CmdConfig, Name: "config", Arity: -2,
		Summary: "Commands about settings.",
		Since:   "2.0.0", Group: "server", Complexity: "Depends on the subcommand.",
		Subcommands: []*Command{
			{
				ID: CmdConfigGet, Name: "config|get", Arity: -3, Flags: FlagAdmin | FlagNoScript | FlagLoading | FlagStale,
				Summary: "Returns the settings whose names match patterns.",
				Since:   "2.0.0", Group: "server", Complexity: "O(N), N: settings",
				Arguments: []Argument{
					{Name: "parameter", Type: "block", Multiple: true, Choices: []Argument{
						{Name: "parameter", Type: "string"},
					}},
				},
			},
			{
				ID: CmdConfigSet, Name: "config|set", Arity: -4, Flags: FlagAdmin | FlagNoScript | FlagLoading | FlagStale,
				Tips:    []string{"request_policy:all_nodes", "response_policy:all_succeeded"},
				Summary: "Changes settings.",
				Since:   "2.0.0", Group: "server", Complexity: "O(N), N: settings given",
				Arguments: []Argument{
					{Name: "parameter_value", Type: "block", Multiple: true, Choices: []Argument{
						{Name: "parameter", Type: "string"},
						{Name: "value", Type: "string"},
					}},
				},
			},
			{
				ID: CmdConfigResetStat, Name: "config|resetstat", Arity: 2, Flags: FlagAdmin | FlagNoScript | FlagLoading | FlagStale,
				Summary: "Resets the counters of INFO commandstats.",
				Since:   "2.0.0", Group: "server", Complexity: "O(1)",
			},
			{
				ID: CmdConfigHelp, Name: "config|help", Arity: 2, Flags: FlagLoading | FlagStale,
				Summary: "Lists the subcommands.",
				Since:   "5.0.0", Group: "server", Complexity: "O(1)",
			},
		},
	},
	{
		ID: CmdRole, Name: "role", Arity: 1, Flags: FlagNoScript | FlagLoading | FlagStale | FlagFast,
		Categories: CategoryAdmin | CategoryDangerous,
		Summary:    "Returns the role of this server: always master.",
		Since:      "2.8.12", Group: "server", Complexity: "O(1)",
	},
	{
		ID: CmdMemory, Name: "memory", Arity: -2,
		Summary: "Commands about memory.",
		Since:   "4.0.0", Group: "server", Complexity: "Depends on the subcommand.",
		Subcommands: []*Command{
			{
				ID: CmdMemoryUsage, Name: "memory|usage", Arity: -3, Flags: FlagReadOnly,
				FirstKey: 2, LastKey: 2, Step: 1,
				KeySpecs: []KeySpec{{Index: 2, LastKey: 0, Step: 1, Flags: []string{"RO"}}},
				Summary:  "Returns the approximate memory usage of a key in bytes.",
				Since:    "4.0.0", Group: "server", Complexity: "O(N), N: bytes of the value",
				Arguments: []Argument{
					{Name: "key", Type: "key"},
					{Name: "count", Type: "integer", Token: "SAMPLES", Optional: true},
				},
			},
			{
				ID: CmdMemoryHelp, Name: "memory|help", Arity: 2, Flags: FlagLoading | FlagStale,
				Summary: "Lists the subcommands.",
				Since:   "4.0.0", Group: "server", Complexity: "O(1)",
			},
		},
	},
	{
		ID: CmdInfo, Name: "info", Arity: -1, Flags: FlagLoading | FlagStale,
		Categories: CategoryDangerous,
		Tips:       []string{"nondeterministic_output", "request_policy:all_shards", "response_policy:special"},
		Summary:    "Returns information and statistics about the server.",
		Since:      "1.0.0", Group: "server", Complexity: "O(1)",
		Arguments: []Argument{
			{Name: "section", Type: "string", Optional: true, Multiple: true},
		},
	},
	{
		ID: CmdDBSize, Name: "dbsize", Arity: 1, Flags: FlagReadOnly | FlagFast,
		Categories: CategoryKeyspace,
		Tips:       []string{"request_policy:all_shards", "response_policy:agg_sum"},
		Summary:    "Counts all keys by reading them.",
		Since:      "1.0.0", Group: "server", Complexity: "O(N), N: keys",
	},
	{
		ID: CmdFlushAll, Name: "flushall", Arity: -1, Flags: FlagWrite,
		Categories: CategoryKeyspace | CategoryDangerous,
		Tips:       []string{"request_policy:all_shards", "response_policy:all_succeeded"},
		Summary:    "Deletes all keys, atomically in each shard.",
		Since:      "1.0.0", Group: "server", Complexity: "O(S), S: shards",
		Arguments: []Argument{
			{Name: "async", Type: "oneof", Optional: true, Choices: []Argument{
				{Name: "async", Type: "pure-token", Token: "ASYNC", Since: "4.0.0"},
				{Name: "sync", Type: "pure-token", Token: "SYNC", Since: "6.2.0"},
			}},
		},
	},
	{
		ID: CmdFlushDB, Name: "flushdb", Arity: -1, Flags: FlagWrite,
		Categories: CategoryKeyspace | CategoryDangerous,
		Tips:       []string{"request_policy:all_shards", "response_policy:all_succeeded"},
		Summary:    "Deletes all keys, atomically in each shard.",
		Since:      "1.0.0", Group: "server", Complexity: "O(S), S: shards",
		Arguments: []Argument{
			{Name: "async", Type: "oneof", Optional: true, Choices: []Argument{
				{Name: "async", Type: "pure-token", Token: "ASYNC", Since: "4.0.0"},
				{Name: "sync", Type: "pure-token", Token: "SYNC", Since: "6.2.0"},
			}},
		},
	},
	{
		ID: CmdTime, Name: "time", Arity: 1, Flags: FlagLoading | FlagStale | FlagFast,
		Tips:    []string{"nondeterministic_output"},
		Summary: "Returns the server's time: Unix seconds and microseconds.",
		Since:   "2.6.0", Group: "server", Complexity: "O(1)",
	},
	{
		ID: CmdGet, Name: "get", Arity: 2, Flags: FlagReadOnly | FlagFast,
		FirstKey: 1, LastKey: 1, Step: 1,
		Categories: CategoryString,
		KeySpecs:   []KeySpec{{Index: 1, LastKey: 0, Step: 1, Flags: []string{"RO", "access"}}},
		Summary:    "Returns a value.",
		Since:      "1.0.0", Group: "string", Complexity: "O(1)",
		Arguments: []Argument{
			{Name: "key", Type: "key"},
		},
	},
	{
		ID: CmdSet, Name: "set", Arity: -3, Flags: FlagWrite | FlagDenyOOM,
		FirstKey: 1, LastKey: 1, Step: 1,
		Categories: CategoryString,
		KeySpecs:   []KeySpec{{Index: 1, LastKey: 0, Step: 1, Flags: []string{"RW", "access", "update", "variable_flags"}, Notes: "Reads only with GET"}},
		Summary:    "Sets a value, optionally under a condition or with an expiry.",
		Since:      "1.0.0", Group: "string", Complexity: "O(1)",
		Arguments: []Argument{
			{Name: "key", Type: "key"},
			{Name: "value", Type: "string"},
			{Name: "condition", Type: "oneof", Since: "2.6.12", Optional: true, Choices: []Argument{
				{Name: "nx", Type: "pure-token", Token: "NX"},
				{Name: "xx", Type: "pure-token", Token: "XX"},
			}},
			{Name: "get", Type: "pure-token", Token: "GET", Since: "6.2.0", Optional: true},
			{Name: "expiration", Type: "oneof", Optional: true, Choices: []Argument{
				{Name: "seconds", Type: "integer", Token: "EX", Since: "2.6.12"},
				{Name: "milliseconds", Type: "integer", Token: "PX", Since: "2.6.12"},
				{Name: "unix-time-seconds", Type: "unix-time", Token: "EXAT", Since: "6.2.0"},
				{Name: "unix-time-milliseconds", Type: "unix-time", Token: "PXAT", Since: "6.2.0"},
				{Name: "keepttl", Type: "pure-token", Token: "KEEPTTL", Since: "6.0.0"},
			}},
		},
	},
	{
		ID: CmdSetNX, Name: "setnx", Arity: 3, Flags: FlagWrite | FlagDenyOOM | FlagFast,
		FirstKey: 1, LastKey: 1, Step: 1,
		Categories: CategoryString,
		KeySpecs:   []KeySpec{{Index: 1, LastKey: 0, Step: 1, Flags: []string{"OW", "insert"}}},
		Summary:    "Sets a value if the key does not exist.",
		Since:      "1.0.0", Group: "string", Complexity: "O(1)",
		Arguments: []Argument{
			{Name: "key", Type: "key"},
			{Name: "value", Type: "string"},
		},
	},
	{
		ID: CmdSetEX, Name: "setex", Arity: 4, Flags: FlagWrite | FlagDenyOOM,
		FirstKey: 1, LastKey: 1, Step: 1,
		Categories: CategoryString,
		KeySpecs:   []KeySpec{{Index: 1, LastKey: 0, Step: 1, Flags: []string{"OW", "update"}}},
		Summary:    "Sets a value with a time to live in seconds.",
		Since:      "2.0.0", Group: "string", Complexity: "O(1)",
		Arguments: []Argument{
			{Name: "key", Type: "key"},
			{Name: "seconds", Type: "integer"},
			{Name: "value", Type: "string"},
		},
	},
	{
		ID: CmdPSetEX, Name: "psetex", Arity: 4, Flags: FlagWrite | FlagDenyOOM,
		FirstKey: 1, LastKey: 1, Step: 1,
		Categories: CategoryString,
		KeySpecs:   []KeySpec{{Index: 1, LastKey: 0, Step: 1, Flags: []string{"OW", "update"}}},
		Summary:    "Sets a value with a time to live in milliseconds.",
		Since:      "2.6.0", Group: "string", Complexity: "O(1)",
		Arguments: []Argument{
			{Name: "key", Type: "key"},
			{Name: "milliseconds", Type: "integer"},
			{Name: "value", Type: "string"},
		},
	},
	{
		ID: CmdGetSet, Name: "getset", Arity: 3, Flags: FlagWrite | FlagDenyOOM | FlagFast,
		FirstKey: 1, LastKey: 1, Step: 1,
		Categories: CategoryString,
		KeySpecs:   []KeySpec{{Index: 1, LastKey: 0, Step: 1, Flags: []string{"RW", "access", "update"}}},
		Summary:    "Sets a value and returns the previous one.",
		Since:      "1.0.0", Group: "string", Complexity: "O(1)",
		Deprecated: "6.2.0", ReplacedBy: "SET with GET",
		Arguments: []Argument{
			{Name: "key", Type: "key"},
			{Name: "value", Type: "string"},
		},
	},
	{
		ID: CmdGetDel, Name: "getdel", Arity: 2, Flags: FlagWrite | FlagFast,
		FirstKey: 1, LastKey: 1, Step: 1,
		Categories: CategoryString,
		KeySpecs:   []KeySpec{{Index: 1, LastKey: 0, Step: 1, Flags: []string{"RW", "access", "delete"}}},
		Summary:    "Deletes a key and returns its value.",
		Since:      "6.2.0", Group: "string", Complexity: "O(1)",
		Arguments: []Argument{
			{Name: "key", Type: "key"},
		},
	},
	{
		ID: CmdGetEX, Name: "getex", Arity: -2, Flags: FlagWrite | FlagFast,
		FirstKey: 1, LastKey: 1, Step: 1,
		Categories: CategoryString,
		KeySpecs:   []KeySpec{{Index: 1, LastKey: 0, Step: 1, Flags: []string{"RW", "access", "update"}, Notes: "Writes only if it changes the expiry"}},
		Summary:    "Returns a value and changes its expiry.",
		Since:      "6.2.0", Group: "string", Complexity: "O(1)",
		Arguments: []Argument{
			{Name: "key", Type: "key"},
			{Name: "expiration", Type: "oneof", Optional: true, Choices: []Argument{
				{Name: "seconds", Type: "integer", Token: "EX"},
				{Name: "milliseconds", Type: "integer", Token: "PX"},
				{Name: "unix-time-seconds", Type: "unix-time", Token: "EXAT"},
				{Name: "unix-time-milliseconds", Type: "unix-time", Token: "PXAT"},
				{Name: "persist", Type: "pure-token", Token: "PERSIST"},
			}},
		},
	},
	{
		ID: CmdMGet, Name: "mget", Arity: -2, Flags: FlagReadOnly | FlagFast,
		FirstKey: 1, LastKey: -1, Step: 1,
		Categories: CategoryString,
		Tips:       []string{"request_policy:multi_shard"},
		KeySpecs:   []KeySpec{{Index: 1, LastKey: -1, Step: 1, Flags: []string{"RO", "access"}}},
		Summary:    "Returns several values.",
		Since:      "1.0.0", Group: "string", Complexity: "O(N), N: keys",
		Arguments: []Argument{
			{Name: "key", Type: "key", Multiple: true},
		},
	},
	{
		ID: CmdMSet, Name: "mset", Arity: -3, Flags: FlagWrite | FlagDenyOOM,
		FirstKey: 1, LastKey: -1, Step: 2,
		Categories: CategoryString,
		Tips:       []string{"request_policy:multi_shard", "response_policy:all_succeeded"},
		KeySpecs:   []KeySpec{{Index: 1, LastKey: -1, Step: 2, Flags: []string{"OW", "update"}}},
		Summary:    "Sets several values atomically.",
		Since:      "1.0.1", Group: "string", Complexity: "O(N), N: keys",
		Arguments: []Argument{
			{Name: "key_value", Type: "block", Multiple: true, Choices: []Argument{
				{Name: "key", Type: "key"},
				{Name: "value", Type: "string"},
			}},
		},
	},
	{
		ID: CmdMSetNX, Name: "msetnx", Arity: -3, Flags: FlagWrite | FlagDenyOOM,
		FirstKey: 1, LastKey: -1, Step: 2,
		Categories: CategoryString,
		Tips:       []string{"request_policy:multi_shard", "response_policy:agg_min"},
		KeySpecs:   []KeySpec{{Index: 1, LastKey: -1, Step: 2, Flags: []string{"OW", "insert"}}},
		Summary:    "Sets several values atomically if none of the keys exists.",
		Since:      "1.0.1", Group: "string", Complexity: "O(N), N: keys",
		Arguments: []Argument{
			{Name: "key_value", Type: "block", Multiple: true, Choices: []Argument{
				{Name: "key", Type: "key"},
				{Name: "value", Type: "string"},
			}},
		},
	},
	{
		ID: CmdStrlen, Name: "strlen", Arity: 2, Flags: FlagReadOnly | FlagFast,
		FirstKey: 1, LastKey: 1, Step: 1,
		Categories: CategoryString,
		KeySpecs:   []KeySpec{{Index: 1, LastKey: 0, Step: 1, Flags: []string{"RO"}}},
		Summary:    "Returns the length of a value.",
		Since:      "2.2.0", Group: "string", Complexity: "O(N), N: bytes of the value",
		Arguments: []Argument{
			{Name: "key", Type: "key"},
		},
	},
	{
		ID: CmdAppend, Name: "append", Arity: 3, Flags: FlagWrite | FlagDenyOOM | FlagFast,
		FirstKey: 1, LastKey: 1, Step: 1,
		Categories: CategoryString,
		KeySpecs:   []KeySpec{{Index: 1, LastKey: 0, Step: 1, Flags: []string{"RW", "insert"}}},
		Summary:    "Appends to a value.",
		Since:      "2.0.0", Group: "string", Complexity: "O(N), N: bytes of the new value",
		Arguments: []Argument{
			{Name: "key", Type: "key"},
			{Name: "value", Type: "string"},
		},
	},
	{
		ID: CmdGetRange, Name: "getrange", Arity: 4, Flags: FlagReadOnly,
		FirstKey: 1, LastKey: 1, Step: 1,
		Categories: CategoryString,
		KeySpecs:   []KeySpec{{Index: 1, LastKey: 0, Step: 1, Flags: []string{"RO", "access"}}},
		Summary:    "Returns a part of a value.",
		Since:      "2.4.0", Group: "string", Complexity: "O(N), N: bytes of the value",
		Arguments: []Argument{
			{Name: "key", Type: "key"},
			{Name: "start", Type: "integer"},
			{Name: "end", Type: "integer"},
		},
	},
	{
		ID: CmdSetRange, Name: "setrange", Arity: 4, Flags: FlagWrite | FlagDenyOOM,
		FirstKey: 1, LastKey: 1, Step: 1,
		Categories: CategoryString,
		KeySpecs:   []KeySpec{{Index: 1, LastKey: 0, Step: 1, Flags: []string{"RW", "update"}}},
		Summary:    "Overwrites a part of a value.",
		Since:      "2.2.0", Group: "string", Complexity: "O(N), N: bytes of the new value",
		Arguments: []Argument{
			{Name: "key", Type: "key"},
			{Name: "offset", Type: "integer"},
			{Name: "value", Type: "string"},
		},
	},
	{
		ID: CmdSubstr, Name: "substr", Arity: 4, Flags: FlagReadOnly,
		FirstKey: 1, LastKey: 1, Step: 1,
		Categories: CategoryString,
		KeySpecs:   []KeySpec{{Index: 1, LastKey: 0, Step: 1, Flags: []string{"RO", "access"}}},
		Summary:    "Returns a part of a value.",
		Since:      "1.0.0", Group: "string", Complexity: "O(N), N: bytes of the value",
		Deprecated: "2.0.0", ReplacedBy: "GETRANGE",
		Arguments: []Argument{
			{Name: "key", Type: "key"},
			{Name: "start", Type: "integer"},
			{Name: "end", Type: "integer"},
		},
	},
	{
		ID: CmdIncr, Name: "incr", Arity: 2, Flags: FlagWrite | FlagDenyOOM | FlagFast,
		FirstKey: 1, LastKey: 1, Step: 1,
		Categories: CategoryString,
		KeySpecs:   []KeySpec{{Index: 1, LastKey: 0, Step: 1, Flags: []string{"RW", "access", "update"}}},
		Summary:    "Increments an integer by one.",
		Since:      "1.0.0", Group: "string", Complexity: "O(1)",
		Arguments: []Argument{
			{Name: "key", Type: "key"},
		},
	},
	{
		ID: CmdIncrBy, Name: "incrby", Arity: 3, Flags: FlagWrite | FlagDenyOOM | FlagFast,
		FirstKey: 1, LastKey: 1, Step: 1,
		Categories: CategoryString,
		KeySpecs:   []KeySpec{{Index: 1, LastKey: 0, Step: 1, Flags: []string{"RW", "access", "update"}}},
		Summary:    "Increments an integer by a number.",
		Since:      "1.0.0", Group: "string", Complexity: "O(1)",
		Arguments: []Argument{
			{Name: "key", Type: "key"},
			{Name: "increment", Type: "integer"},
		},
	},
	{
		ID: CmdDecr, Name: "decr", Arity: 2, Flags: FlagWrite | FlagDenyOOM | FlagFast,
		FirstKey: 1, LastKey: 1, Step: 1,
		Categories: CategoryString,
		KeySpecs:   []KeySpec{{Index: 1, LastKey: 0, Step: 1, Flags: []string{"RW", "access", "update"}}},
		Summary:    "Decrements an integer by one.",
		Since:      "1.0.0", Group: "string", Complexity: "O(1)",
		Arguments: []Argument{
			{Name: "key", Type: "key"},
		},
	},
	{
		ID: CmdDecrBy, Name: "decrby", Arity: 3, Flags: FlagWrite | FlagDenyOOM | FlagFast,
		FirstKey: 1, LastKey: 1, Step: 1,
		Categories: CategoryString,
		KeySpecs:   []KeySpec{{Index: 1, LastKey: 0, Step: 1, Flags: []string{"RW", "access", "update"}}},
		Summary:    "Decrements an integer by a number.",
		Since:      "1.0.0", Group: "string", Complexity: "O(1)",
		Arguments: []Argument{
			{Name: "key", Type: "key"},
			{Name: "decrement", Type: "integer"},
		},
	},
	{
		ID: CmdIncrByFloat, Name: "incrbyfloat", Arity: 3, Flags: FlagWrite | FlagDenyOOM | FlagFast,
		FirstKey: 1, LastKey: 1, Step: 1,
		Categories: CategoryString,
		KeySpecs:   []KeySpec{{Index: 1, LastKey: 0, Step: 1, Flags: []string{"RW", "access", "update"}}},
		Summary:    "Increments a floating point number.",
		Since:      "2.6.0", Group: "string", Complexity: "O(1)",
		Arguments: []Argument{
			{Name: "key", Type: "key"},
			{Name: "increment", Type: "double"},
		},
	},
	{
		ID: CmdDel, Name: "del", Arity: -2, Flags: FlagWrite,
		FirstKey: 1, LastKey: -1, Step: 1,
		Categories: CategoryKeyspace,
		Tips:       []string{"request_policy:multi_shard", "response_policy:agg_sum"},
		KeySpecs:   []KeySpec{{Index: 1, LastKey: -1, Step: 1, Flags: []string{"RM", "delete"}}},
		Summary:    "Deletes keys.",
		Since:      "1.0.0", Group: "generic", Complexity: "O(N), N: keys",
		Arguments: []Argument{
			{Name: "key", Type: "key", Multiple: true},
		},
	},
	{
		ID: CmdUnlink, Name: "unlink", Arity: -2, Flags: FlagWrite | FlagFast,
		FirstKey: 1, LastKey: -1, Step: 1,
		Categories: CategoryKeyspace,
		Tips:       []string{"request_policy:multi_shard", "response_policy:agg_sum"},
		KeySpecs:   []KeySpec{{Index: 1, LastKey: -1, Step: 1, Flags: []string{"RM", "delete"}}},
		Summary:    "Deletes keys, like DEL.",
		Since:      "4.0.0", Group: "generic", Complexity: "O(N), N: keys",
		Arguments: []Argument{
			{Name: "key", Type: "key", Multiple: true},
		},
	},
	{
		ID: CmdExists, Name: "exists", Arity: -2, Flags: FlagReadOnly | FlagFast,
		FirstKey: 1, LastKey: -1, Step: 1,
		Categories: CategoryKeyspace,
		Tips:       []string{"request_policy:multi_shard", "response_policy:agg_sum"},
		KeySpecs:   []KeySpec{{Index: 1, LastKey: -1, Step: 1, Flags: []string{"RO"}}},
		Summary:    "Counts which of the keys exist.",
		Since:      "1.0.0", Group: "generic", Complexity: "O(N), N: keys",
		Arguments: []Argument{
			{Name: "key", Type: "key", Multiple: true},
		},
	},
	{
		ID: CmdType, Name: "type", Arity: 2, Flags: FlagReadOnly | FlagFast,
		FirstKey: 1, LastKey: 1, Step: 1,
		Categories: CategoryKeyspace,
		KeySpecs:   []KeySpec{{Index: 1, LastKey: 0, Step: 1, Flags: []string{"RO"}}},
		Summary:    "Returns the type of a value, which is always string.",
		Since:      "1.0.0", Group: "generic", Complexity: "O(1)",
		Arguments: []Argument{
			{Name: "key", Type: "key"},
		},
	},
	{
		ID: CmdExpire, Name: "expire", Arity: -3, Flags: FlagWrite | FlagFast,
		FirstKey: 1, LastKey: 1, Step: 1,
		Categories: CategoryKeyspace,
		KeySpecs:   []KeySpec{{Index: 1, LastKey: 0, Step: 1, Flags: []string{"RW", "update"}}},
		Summary:    "Sets a key's time to live in seconds.",
		Since:      "1.0.0", Group: "generic", Complexity: "O(1)",
		Arguments: []Argument{
			{Name: "key", Type: "key"},
			{Name: "seconds", Type: "integer"},
			{Name: "condition", Type: "oneof", Since: "7.0.0", Optional: true, Choices: []Argument{
				{Name: "nx", Type: "pure-token", Token: "NX"},
				{Name: "xx", Type: "pure-token", Token: "XX"},
				{Name: "gt", Type: "pure-token", Token: "GT"},
				{Name: "lt", Type: "pure-token", Token: "LT"},
			}},
		},
	},
	{
		ID: CmdPExpire, Name: "pexpire", Arity: -3, Flags: FlagWrite | FlagFast,
		FirstKey: 1, LastKey: 1, Step: 1,
		Categories: CategoryKeyspace,
		KeySpecs:   []KeySpec{{Index: 1, LastKey: 0, Step: 1, Flags: []string{"RW", "update"}}},
		Summary:    "Sets a key's time to live in milliseconds.",
		Since:      "2.6.0", Group: "generic", Complexity: "O(1)",
		Arguments: []Argument{
			{Name: "key", Type: "key"},
			{Name: "milliseconds", Type: "integer"},
			{Name: "condition", Type: "oneof", Since: "7.0.0", Optional: true, Choices: []Argument{
				{Name: "nx", Type: "pure-token", Token: "NX"},
				{Name: "xx", Type: "pure-token", Token: "XX"},
				{Name: "gt", Type: "pure-token", Token: "GT"},
				{Name: "lt", Type: "pure-token", Token: "LT"},
			}},
		},
	},
	{
		ID: CmdExpireAt, Name: "expireat", Arity: -3, Flags: FlagWrite | FlagFast,
		FirstKey: 1, LastKey: 1, Step: 1,
		Categories: CategoryKeyspace,
		KeySpecs:   []KeySpec{{Index: 1, LastKey: 0, Step: 1, Flags: []string{"RW", "update"}}},
		Summary:    "Sets a key's expiry to a Unix time in seconds.",
		Since:      "1.2.0", Group: "generic", Complexity: "O(1)",
		Arguments: []Argument{
			{Name: "key", Type: "key"},
			{Name: "unix-time-seconds", Type: "unix-time"},
			{Name: "condition", Type: "oneof", Since: "7.0.0", Optional: true, Choices: []Argument{
				{Name: "nx", Type: "pure-token", Token: "NX"},
				{Name: "xx", Type: "pure-token", Token: "XX"},
				{Name: "gt", Type: "pure-token", Token: "GT"},
				{Name: "lt", Type: "pure-token", Token: "LT"},
			}},
		},
	},
	{
		ID: CmdPExpireAt, Name: "pexpireat", Arity: -3, Flags: FlagWrite | FlagFast,
		FirstKey: 1, LastKey: 1, Step: 1,
		Categories: CategoryKeyspace,
		KeySpecs:   []KeySpec{{Index: 1, LastKey: 0, Step: 1, Flags: []string{"RW", "update"}}},
		Summary:    "Sets a key's expiry to a Unix time in milliseconds.",
		Since:      "2.6.0", Group: "generic", Complexity: "O(1)",
		Arguments: []Argument{
			{Name: "key", Type: "key"},
			{Name: "unix-time-milliseconds", Type: "unix-time"},
			{Name: "condition", Type: "oneof", Since: "7.0.0", Optional: true, Choices: []Argument{
				{Name: "nx", Type: "pure-token", Token: "NX"},
				{Name: "xx", Type: "pure-token", Token: "XX"},
				{Name: "gt", Type: "pure-token", Token: "GT"},
				{Name: "lt", Type: "pure-token", Token: "LT"},
			}},
		},
	},
	{
		ID: CmdTTL, Name: "ttl", Arity: 2, Flags: FlagReadOnly | FlagFast,
		FirstKey: 1, LastKey: 1, Step: 1,
		Categories: CategoryKeyspace,
		Tips:       []string{"nondeterministic_output"},
		KeySpecs:   []KeySpec{{Index: 1, LastKey: 0, Step: 1, Flags: []string{"RO", "access"}}},
		Summary:    "Returns a key's remaining time to live in seconds.",
		Since:      "1.0.0", Group: "generic", Complexity: "O(1)",
		Arguments: []Argument{
			{Name: "key", Type: "key"},
		},
	},
	{
		ID: CmdPTTL, Name: "pttl", Arity: 2, Flags: FlagReadOnly | FlagFast,
		FirstKey: 1, LastKey: 1, Step: 1,
		Categories: CategoryKeyspace,
		Tips:       []string{"nondeterministic_output"},
		KeySpecs:   []KeySpec{{Index: 1, LastKey: 0, Step: 1, Flags: []string{"RO", "access"}}},
		Summary:    "Returns a key's remaining time to live in milliseconds.",
		Since:      "2.6.0", Group: "generic", Complexity: "O(1)",
		Arguments: []Argument{
			{Name: "key", Type: "key"},
		},
	},
	{
		ID: CmdExpireTime, Name: "expiretime", Arity: 2, Flags: FlagReadOnly | FlagFast,
		FirstKey: 1, LastKey: 1, Step: 1,
		Categories: CategoryKeyspace,
		KeySpecs:   []KeySpec{{Index: 1, LastKey: 0, Step: 1, Flags: []string{"RO", "access"}}},
		Summary:    "Returns a key's expiry as a Unix time in seconds.",
		Since:      "7.0.0", Group: "generic", Complexity: "O(1)",
		Arguments: []Argument{
			{Name: "key", Type: "key"},
		},
	},
	{
		ID: CmdPExpireTime, Name: "pexpiretime", Arity: 2, Flags: FlagReadOnly | FlagFast,
		FirstKey: 1, LastKey: 1, Step: 1,
		Categories: CategoryKeyspace,
		KeySpecs:   []KeySpec{{Index: 1, LastKey: 0, Step: 1, Flags: []string{"RO", "access"}}},
		Summary:    "Returns a key's expiry as a Unix time in milliseconds.",
		Since:      "7.0.0", Group: "generic", Complexity: "O(1)",
		Arguments: []Argument{
			{Name: "key", Type: "key"},
		},
	},
	{
		ID: CmdPersist, Name: "persist", Arity: 2, Flags: FlagWrite | FlagFast,
		FirstKey: 1, LastKey: 1, Step: 1,
		Categories: CategoryKeyspace,
		KeySpecs:   []KeySpec{{Index: 1, LastKey: 0, Step: 1, Flags: []string{"RW", "update"}}},
		Summary:    "Removes a key's expiry.",
		Since:      "2.2.0", Group: "generic", Complexity: "O(1)",
		Arguments: []Argument{
			{Name: "key", Type: "key"},
		},
	},
	{
		ID: CmdScan, Name: "scan", Arity: -2, Flags: FlagReadOnly,
		Categories: CategoryKeyspace,
		Tips:       []string{"nondeterministic_output", "request_policy:special"},
		Summary:    "Iterates over all keys in steps.",
		Since:      "2.8.0", Group: "generic", Complexity: "O(N), N: keys read in one call",
		Arguments: []Argument{
			{Name: "cursor", Type: "integer"},
			{Name: "pattern", Type: "pattern", Token: "MATCH", Optional: true},
			{Name: "count", Type: "integer", Token: "COUNT", Optional: true},
			{Name: "type", Type: "string", Token: "TYPE", Since: "6.0.0", Optional: true},
		},
	},
	{
		ID: CmdKeys, Name: "keys", Arity: 2, Flags: FlagReadOnly,
		Categories: CategoryKeyspace | CategoryDangerous,
		Tips:       []string{"request_policy:all_shards", "nondeterministic_output_order"},
		Summary:    "Lists all keys that match a pattern.",
		Since:      "1.0.0", Group: "generic", Complexity: "O(N), N: keys",
		Arguments: []Argument{
			{Name: "pattern", Type: "pattern"},
		},
	},
	{
		ID: CmdRename, Name: "rename", Arity: 3, Flags: FlagWrite,
		FirstKey: 1, LastKey: 2, Step: 1,
		Categories: CategoryKeyspace,
		KeySpecs: []KeySpec{
			{Index: 1, LastKey: 0, Step: 1, Flags: []string{"RW", "access", "delete"}},
			{Index: 2, LastKey: 0, Step: 1, Flags: []string{"OW", "update"}},
		},
		Summary: "Renames a key within its shard.",
		Since:   "1.0.0", Group: "generic", Complexity: "O(1)",
		Arguments: []Argument{
			{Name: "key", Type: "key"},
			{Name: "newkey", Type: "key"},
		},
	},
	{
		ID: CmdRenameNX, Name: "renamenx", Arity: 3, Flags: FlagWrite | FlagFast,
		FirstKey: 1, LastKey: 2, Step: 1,
		Categories: CategoryKeyspace,
		KeySpecs: []KeySpec{
			{Index: 1, LastKey: 0, Step: 1, Flags: []string{"RW", "access", "delete"}},
			{Index: 2, LastKey: 0, Step: 1, Flags: []string{"OW", "insert"}},
		},
		Summary: "Renames a key within its shard if the new key does not exist.",
		Since:   "1.0.0", Group: "generic", Complexity: "O(1)",
		Arguments: []Argument{
			{Name: "key", Type: "key"},
			{Name: "newkey", Type: "key"},
		},
	},
	{
		ID: CmdRandomKey, Name: "randomkey", Arity: 1, Flags: FlagReadOnly,
		Categories: CategoryKeyspace,
		Tips:       []string{"request_policy:all_shards", "nondeterministic_output"},
		Summary:    "Returns a random key.",
		Since:      "1.0.0", Group: "generic", Complexity: "O(1)",
	},
	{
		ID: CmdCopy, Name: "copy", Arity: -3, Flags: FlagWrite | FlagDenyOOM,
		FirstKey: 1, LastKey: 2, Step: 1,
		Categories: CategoryKeyspace,
		KeySpecs: []KeySpec{
			{Index: 1, LastKey: 0, Step: 1, Flags: []string{"RO", "access"}},
			{Index: 2, LastKey: 0, Step: 1, Flags: []string{"OW", "update"}},
		},
		Summary: "Copies a value to another key in the same shard.",
		Since:   "6.2.0", Group: "generic", Complexity: "O(1)",
		Arguments: []Argument{
			{Name: "source", Type: "key"},
			{Name: "destination", Type: "key"},
			{Name: "destination-db", Type: "integer", Token: "DB", Optional: true},
			{Name: "replace", Type: "pure-token", Token: "REPLACE", Optional: true},
		},
	},
	{
		ID: CmdTouch, Name: "touch", Arity: -2, Flags: FlagReadOnly | FlagFast,
		FirstKey: 1, LastKey: -1, Step: 1,
		Categories: CategoryKeyspace,
		Tips:       []string{"request_policy:multi_shard", "response_policy:agg_sum"},
		KeySpecs:   []KeySpec{{Index: 1, LastKey: -1, Step: 1, Flags: []string{"RO"}}},
		Summary:    "Counts which of the keys exist.",
		Since:      "3.2.1", Group: "generic", Complexity: "O(N), N: keys",
		Arguments: []Argument{
			{Name: "key", Type: "key", Multiple: true},
		},
	},
	{
		ID: CmdObject, Name: "object", Arity: -2,
		Summary: "Commands about how values are stored.",
		Since:   "2.2.3", Group: "generic", Complexity: "Depends on the subcommand.",
		Subcommands: []*Command{
			{
				ID: CmdObjectEncoding, Name: "object|encoding", Arity: 3, Flags: FlagReadOnly,
				FirstKey: 2, LastKey: 2, Step: 1,
				Categories: CategoryKeyspace,
				Tips:       []string{"nondeterministic_output"},
				KeySpecs:   []KeySpec{{Index: 2, LastKey: 0, Step: 1, Flags: []string{"RO"}}},
				Summary:    "Returns the encoding that Redis would use for a value.",
				Since:      "2.2.3", Group: "generic", Complexity: "O(N), N: bytes of the value",
				Arguments: []Argument{
					{Name: "key", Type: "key"},
				},
			},
			{
				ID: CmdObjectFreq, Name: "object|freq", Arity: 3, Flags: FlagReadOnly,
				FirstKey: 2, LastKey: 2, Step: 1,
				Categories: CategoryKeyspace,
				Tips:       []string{"nondeterministic_output"},
				KeySpecs:   []KeySpec{{Index: 2, LastKey: 0, Step: 1, Flags: []string{"RO"}}},
				Summary:    "Returns an error: access frequencies are not recorded.",
				Since:      "4.0.0", Group: "generic", Complexity: "O(1)",
				Arguments: []Argument{
					{Name: "key", Type: "key"},
				},
			},
			{
				ID: CmdObjectIdleTime, Name: "object|idletime", Arity: 3, Flags: FlagReadOnly,
				FirstKey: 2, LastKey: 2, Step: 1,
				Categories: CategoryKeyspace,
				Tips:       []string{"nondeterministic_output"},
				KeySpecs:   []KeySpec{{Index: 2, LastKey: 0, Step: 1, Flags: []string{"RO"}}},
				Summary:    "Returns 0: access times are not recorded.",
				Since:      "2.2.3", Group: "generic", Complexity: "O(1)",
				Arguments: []Argument{
					{Name: "key", Type: "key"},
				},
			},
			{
				ID: CmdObjectRefCount, Name: "object|refcount", Arity: 3, Flags: FlagReadOnly,
				FirstKey: 2, LastKey: 2, Step: 1,
				Categories: CategoryKeyspace,
				Tips:       []string{"nondeterministic_output"},
				KeySpecs:   []KeySpec{{Index: 2, LastKey: 0, Step: 1, Flags: []string{"RO"}}},
				Summary:    "Returns 1 if the key exists.",
				Since:      "2.2.3", Group: "generic", Complexity: "O(1)",
				Arguments: []Argument{
					{Name: "key", Type: "key"},
				},
			},
			{
				ID: CmdObjectHelp, Name: "object|help", Arity: 2, Flags: FlagLoading | FlagStale,
				Categories: CategoryKeyspace,
				Summary:    "Lists the subcommands.",
				Since:      "6.2.0", Group: "generic", Complexity: "O(1)",
			},
		},
	},
	{
		ID: CmdMulti, Name: "multi", Arity: 1, Flags: FlagNoScript | FlagLoading | FlagStale | FlagFast | FlagAllowBusy,
		Categories: CategoryTransaction,
		Summary:    "Starts a transaction: commands are queued until EXEC.",
		Since:      "1.2.0", Group: "transactions", Complexity: "O(1)",
	},
	{
		ID: CmdExec, Name: "exec", Arity: 1, Flags: FlagNoScript | FlagLoading | FlagStale | FlagSkipSlowlog,
		Categories: CategoryTransaction,
		Summary:    "Executes the transaction atomically, unless a watched key has changed.",
		Since:      "1.2.0", Group: "transactions", Complexity: "Depends on the commands in it.",
	},
	{
		ID: CmdDiscard, Name: "discard", Arity: 1, Flags: FlagNoScript | FlagLoading | FlagStale | FlagFast | FlagAllowBusy,
		Categories: CategoryTransaction,
		Summary:    "Discards the transaction.",
		Since:      "2.0.0", Group: "transactions", Complexity: "O(N), N: queued commands",
	},
	{
		ID: CmdWatch, Name: "watch", Arity: -2, Flags: FlagNoScript | FlagLoading | FlagStale | FlagFast | FlagAllowBusy,
		FirstKey: 1, LastKey: -1, Step: 1,
		Categories: CategoryTransaction,
		KeySpecs:   []KeySpec{{Index: 1, LastKey: -1, Step: 1, Flags: []string{"RO"}}},
		Summary:    "Makes the next EXEC conditional on keys being unchanged.",
		Since:      "2.2.0", Group: "transactions", Complexity: "O(N), N: keys",
		Arguments: []Argument{
			{Name: "key", Type: "key", Multiple: true},
		},
	},
	{
		ID: CmdUnwatch, Name: "unwatch", Arity: 1, Flags: FlagNoScript | FlagLoading | FlagStale | FlagFast | FlagAllowBusy,
		Categories: CategoryTransaction,
		Summary:    "Unwatches all keys.",
		Since:      "2.2.0", Group: "transactions", Complexity: "O(1)",
	},
	{
		ID: CmdWait, Name: "wait", Arity: 3, Flags: FlagNoScript,
		Categories: CategoryConnection,
		Tips:       []string{"request_policy:all_shards", "response_policy:agg_min"},
		Summary:    "Returns how many replicas have the writes of this connection; a majority already has them.",
		Since:      "3.0.0", Group: "generic", Complexity: "O(1)",
		Arguments: []Argument{
			{Name: "numreplicas", Type: "integer"},
			{Name: "timeout", Type: "integer"},
		},
	},
	{
		ID: CmdCluster, Name: "cluster", Arity: -2,
		Summary: "Commands about the cluster.",
		Since:   "3.0.0", Group: "cluster", Complexity: "Depends on the subcommand.",
		Subcommands: []*Command{
			{
				ID: CmdClusterSlots, Name: "cluster|slots", Arity: 2, Flags: FlagStale,
				Tips:    []string{"nondeterministic_output"},
				Summary: "Returns which nodes serve which slots.",
				Since:   "3.0.0", Group: "cluster", Complexity: "O(N), N: slots that change hands",
				Deprecated: "7.0.0", ReplacedBy: "CLUSTER SHARDS",
			},
			{
				ID: CmdClusterShards, Name: "cluster|shards", Arity: 2, Flags: FlagStale,
				Tips:    []string{"nondeterministic_output"},
				Summary: "Returns which nodes serve which slots, by shard.",
				Since:   "7.0.0", Group: "cluster", Complexity: "O(N), N: shards",
			},
			{
				ID: CmdClusterNodes, Name: "cluster|nodes", Arity: 2, Flags: FlagStale,
				Tips:    []string{"nondeterministic_output"},
				Summary: "Describes all nodes, one on a line.",
				Since:   "3.0.0", Group: "cluster", Complexity: "O(N), N: nodes",
			},
			{
				ID: CmdClusterInfo, Name: "cluster|info", Arity: 2, Flags: FlagStale,
				Tips:    []string{"nondeterministic_output"},
				Summary: "Returns the state of the cluster.",
				Since:   "3.0.0", Group: "cluster", Complexity: "O(1)",
			},
			{
				ID: CmdClusterKeySlot, Name: "cluster|keyslot", Arity: 3, Flags: FlagStale,
				Summary: "Returns the slot of a key.",
				Since:   "3.0.0", Group: "cluster", Complexity: "O(N), N: bytes of the key",
				Arguments: []Argument{
					{Name: "key", Type: "string"},
				},
			},
			{
				ID: CmdClusterMyID, Name: "cluster|myid", Arity: 2, Flags: FlagStale,
				Summary: "Returns the ID of this node.",
				Since:   "3.0.0", Group: "cluster", Complexity: "O(1)",
			},
			{
				ID: CmdClusterCountKeysInSlot, Name: "cluster|countkeysinslot", Arity: 3, Flags: FlagStale,
				Summary: "Counts the keys of a slot.",
				Since:   "3.0.0", Group: "cluster", Complexity: "O(N), N: keys",
				Arguments: []Argument{
					{Name: "slot", Type: "integer"},
				},
			},
			{
				ID: CmdClusterGetKeysInSlot, Name: "cluster|getkeysinslot", Arity: 4, Flags: FlagStale,
				Tips:    []string{"nondeterministic_output"},
				Summary: "Returns the first keys of a slot.",
				Since:   "3.0.0", Group: "cluster", Complexity: "O(N), N: keys of the shard",
				Arguments: []Argument{
					{Name: "slot", Type: "integer"},
					{Name: "count", Type: "integer"},
				},
			},
			{
				ID: CmdClusterReplicas, Name: "cluster|replicas", Arity: 3, Flags: FlagAdmin | FlagStale,
				Tips:    []string{"nondeterministic_output"},
				Summary: "Lists the nodes that are shown as replicas of a node.",
				Since:   "5.0.0", Group: "cluster", Complexity: "O(N), N: nodes",
				Arguments: []Argument{
					{Name: "node-id", Type: "string"},
				},
			},
			{
				ID: CmdClusterSlaves, Name: "cluster|slaves", Arity: 3, Flags: FlagAdmin | FlagStale,
				Tips:    []string{"nondeterministic_output"},
				Summary: "Lists the nodes that are shown as replicas of a node (old name of CLUSTER REPLICAS).",
				Since:   "3.0.0", Group: "cluster", Complexity: "O(N), N: nodes",
				Deprecated: "5.0.0", ReplacedBy: "CLUSTER REPLICAS",
				Arguments: []Argument{
					{Name: "node-id", Type: "string"},
				},
			},
			{
				ID: CmdClusterLinks, Name: "cluster|links", Arity: 2, Flags: FlagStale,
				Tips:    []string{"nondeterministic_output"},
				Summary: "Lists the cluster bus links between nodes: none.",
				Since:   "7.0.0", Group: "cluster", Complexity: "O(N), N: nodes",
			},
			{
				ID: CmdClusterHelp, Name: "cluster|help", Arity: 2, Flags: FlagLoading | FlagStale,
				Summary: "Lists the subcommands.",
				Since:   "5.0.0", Group: "cluster", Complexity: "O(1)",
			},
		},
	},
	{
		ID: CmdReadOnly, Name: "readonly", Arity: 1, Flags: FlagLoading | FlagStale | FlagFast,
		Categories: CategoryConnection,
		Summary:    "Allows stale reads from replicas on this connection.",
		Since:      "3.0.0", Group: "cluster", Complexity: "O(1)",
	},
	{
		ID: CmdReadWrite, Name: "readwrite", Arity: 1, Flags: FlagLoading | FlagStale | FlagFast,
		Categories: CategoryConnection,
		Summary:    "Ends READONLY.",
		Since:      "3.0.0", Group: "cluster", Complexity: "O(1)",
	},
	{
		ID: CmdAsking, Name: "asking", Arity: 1, Flags: FlagFast,
		Categories: CategoryConnection,
		Summary:    "Accepted without effect: slots are never in migration.",
		Since:      "3.0.0", Group: "cluster", Complexity: "O(1)",
	},
}
