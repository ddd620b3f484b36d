package audit

import (
	"encoding/json"

	"github.com/proa-kv/proa/command"
)

// fields are what is told of the arguments of each administrative request. What is not here
// is told as being there, and no more: it may be a password.
var fields = map[string][]string{
	command.AdminStatus:       nil,
	command.AdminMemberAdd:    {"node", "address"},
	command.AdminMemberRemove: {"node", "undo", "force"},
	command.AdminMemberToken:  {"new", "revoke", "ttl_ms"},
	command.AdminMemberDrain:  {"node", "undo"},
	command.AdminShardMove:    {"shard", "from", "to"},
	command.AdminTransfer:     {"shard", "to"},
	command.AdminSplitLeaders: nil,
	command.AdminChecksum:     {"shard"},
	command.AdminUserList:     nil,
	command.AdminUserSet: {"name", "mode", "reset", "no_passwords", "newest", "certificate", "disabled", "roles", "add_roles", "drop_roles",
		"no_grants", "grants", "rights"},
	command.AdminUserRemove:   {"name"},
	command.AdminUserPassword: {"name", "keep_old", "drop_old"},
	command.AdminUserSelf:     nil,
	command.AdminRoleSet:      {"name", "mode", "no_grants", "grants", "rights"},
	command.AdminRoleRemove:   {"name"},
}

// argumentBytesMax bounds the arguments that are told.
const argumentBytesMax = 4 << 10

// Arguments returns what may be told of the arguments of an administrative request.
func Arguments(verb string, args []byte) map[string]any {
	var all map[string]json.RawMessage
	if json.Unmarshal(args, &all) != nil || len(all) == 0 {
		return nil
	}
	told := make(map[string]any)
	known, size := fields[verb], 0
	for name, value := range all {
		shown := false
		for _, f := range known {
			shown = shown || f == name
		}
		if size += len(name) + len(value); size > argumentBytesMax {
			told["more"] = "not shown"
			break
		}
		if told[name] = any(value); !shown {
			told[clip(name)] = "not shown"
		}
	}
	return told
}
