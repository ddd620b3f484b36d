package audit

import (
	"encoding/json"
	"reflect"
	"slices"

	"github.com/proa-kv/proa/access"
	"github.com/proa-kv/proa/command"
)

// form is the type of a request's arguments, and the fields whose values are told.
type form struct {
	args  reflect.Type // nil: there are none
	shown []string     // by their names in JSON
}

func of[T any](shown ...string) form { return form{reflect.TypeFor[T](), shown} }

var (
	memberForm = of[command.MemberArgs]("node", "address", "undo", "force")
	shardForm  = of[command.ShardArgs]("shard", "from", "to")
	nameForm   = of[command.NameArgs]("name")
)

// forms are those of each administrative request. Of fields that are not shown it is told
// that they are there, and no more: they may be passwords.
var forms = map[string]form{
	command.AdminStatus:       {},
	command.AdminMemberAdd:    memberForm,
	command.AdminMemberRemove: memberForm,
	command.AdminMemberToken:  of[command.TokenArgs]("new", "revoke", "ttl_ms"),
	command.AdminMemberDrain:  memberForm,
	command.AdminShardMove:    shardForm,
	command.AdminTransfer:     shardForm,
	command.AdminSplitLeaders: {},
	command.AdminChecksum:     shardForm,
	command.AdminUserList:     {},
	command.AdminUserSet: of[command.UserArgs]("name", "mode", "reset", "no_passwords", "newest", "certificate", "disabled", "roles", "add_roles", "drop_roles",
		"no_grants", "grants", "rights"),
	command.AdminUserRemove:   nameForm,
	command.AdminUserPassword: of[command.PasswordArgs]("name", "keep_old", "drop_old"),
	command.AdminUserSelf:     {},
	command.AdminRoleSet:      of[access.RoleEdit]("name", "mode", "no_grants", "grants", "rights"),
	command.AdminRoleRemove:   nameForm,
}

// argumentBytesMax bounds the values of the arguments that are told.
const argumentBytesMax = 4 << 10

// Arguments returns what may be told of the arguments of an administrative request; nil
// where they make no sense, so that the request is refused.
//
// It reads them into the type into which who carries out the request does. In the text of
// the arguments the names of fields can be written in many ways, and anything can be where
// a name is expected.
func Arguments(verb string, args []byte) map[string]any {
	f := forms[verb]
	if f.args == nil {
		return nil
	}
	v := reflect.New(f.args).Interface()
	if json.Unmarshal(args, v) != nil {
		return nil
	}
	text, err := json.Marshal(v)
	if err != nil {
		return nil
	}
	var all map[string]json.RawMessage
	if json.Unmarshal(text, &all) != nil {
		return nil
	}
	told := make(map[string]any, len(all))
	for name := range all {
		if !slices.Contains(f.shown, name) {
			told[name] = "not shown"
		}
	}
	size := 0
	for _, name := range f.shown {
		value, ok := all[name]
		switch {
		case !ok:
		case size+len(value) > argumentBytesMax:
			told[name] = "too long to show"
		default:
			told[name] = value
			size += len(value)
		}
	}
	return told
}
