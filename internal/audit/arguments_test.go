package audit

import (
	"encoding/json"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"maps"
	"reflect"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/proa-kv/proa/access"
	"github.com/proa-kv/proa/command"
)

// secrets says of each field of the arguments of administrative requests, by the name of the
// type and its path in JSON, whether it is a secret: false may be told.
var secrets = map[string]bool{
	"MemberArgs.node": false, "MemberArgs.address": false, "MemberArgs.undo": false, "MemberArgs.force": false,
	"TokenArgs.new": false, "TokenArgs.revoke": false, "TokenArgs.ttl_ms": false,
	"ShardArgs.shard": false, "ShardArgs.from": false, "ShardArgs.to": false,
	"NameArgs.name": false,

	"UserArgs.name": false, "UserArgs.mode": false, "UserArgs.reset": false, "UserArgs.no_passwords": false, "UserArgs.newest": false,
	"UserArgs.certificate": false, "UserArgs.disabled": false, "UserArgs.roles": false, "UserArgs.add_roles": false, "UserArgs.drop_roles": false,
	"UserArgs.no_grants": false, "UserArgs.grants.prefix": false, "UserArgs.grants.rights": false, "UserArgs.rights": false,
	"UserArgs.hashes": true, "UserArgs.drop_hashes": true, "UserArgs.passwords": true, "UserArgs.drop_passwords": true,

	"PasswordArgs.name": false, "PasswordArgs.keep_old": false, "PasswordArgs.drop_old": false,
	"PasswordArgs.current": true, "PasswordArgs.password": true,

	"RoleEdit.name": false, "RoleEdit.mode": false, "RoleEdit.no_grants": false, "RoleEdit.grants.prefix": false, "RoleEdit.grants.rights": false, "RoleEdit.rights": false,
}

// paths are the fields of a type, those of structs in it included.
func paths(t *testing.T, typ reflect.Type, prefix string) (all []string) {
	for _, f := range reflect.VisibleFields(typ) {
		name, _, _ := strings.Cut(f.Tag.Get("json"), ",")
		switch {
		case f.Anonymous && name == "":
			continue // its fields are visible
		case name == "" || name == "-":
			t.Errorf("%s%s has no name in JSON", prefix, f.Name)
			continue
		}
		inner := f.Type
		for inner.Kind() == reflect.Pointer || inner.Kind() == reflect.Slice {
			inner = inner.Elem()
		}
		switch inner.Kind() {
		case reflect.Struct:
			all = append(all, paths(t, inner, prefix+name+".")...)
		case reflect.Map, reflect.Interface:
			t.Errorf("%s%s can have anything in it", prefix, name)
		default:
			all = append(all, prefix+name)
		}
	}
	return all
}

// verbs are the administrative requests that package command declares, and the names of the
// types of their arguments: "nothing" where there are none.
func verbs(t *testing.T) map[string]string {
	t.Helper()
	f, err := parser.ParseFile(token.NewFileSet(), "../../command/admin.go", nil, parser.ParseComments)
	if err != nil {
		t.Fatal(err)
	}
	all := make(map[string]string)
	takes := regexp.MustCompile(`^(?:\w+\.)?(\w+) → \w+`)
	ast.Inspect(f, func(n ast.Node) bool {
		spec, ok := n.(*ast.ValueSpec)
		if !ok || !strings.HasPrefix(spec.Names[0].Name, "Admin") || len(spec.Values) != 1 {
			return true
		}
		lit, ok := spec.Values[0].(*ast.BasicLit)
		if !ok || lit.Kind != token.STRING {
			return true
		}
		verb, err := strconv.Unquote(lit.Value)
		m := takes.FindStringSubmatch(spec.Comment.Text())
		if err != nil || m == nil {
			t.Errorf("the comment of %s does not say Arguments → Answer", spec.Names[0].Name)
			return true
		}
		all[verb] = m[1]
		return true
	})
	return all
}

// TestForms: a new request, or a new field of one, is not told before somebody has said
// here whether it may be.
func TestForms(t *testing.T) {
	declared := verbs(t)
	if len(declared) < 16 {
		t.Errorf("only %d requests are declared", len(declared))
	}
	for _, other := range []map[string]bool{set(command.AdminRights), set(forms)} {
		if got, want := slices.Sorted(maps.Keys(other)), slices.Sorted(maps.Keys(declared)); !slices.Equal(got, want) {
			t.Errorf("requests %q, declared are %q", got, want)
		}
	}
	seen := make(map[string]bool)
	for verb, takes := range declared {
		f := forms[verb]
		if f.args == nil {
			if takes != "nothing" {
				t.Errorf("%s has no form, but takes %s", verb, takes)
			}
			continue
		}
		if takes != f.args.Name() {
			t.Errorf("%s takes %s, its form is that of %s", verb, takes, f.args)
		}
		left := slices.Clone(f.shown)
		for _, path := range paths(t, f.args, "") {
			full := f.args.Name() + "." + path
			field, _, _ := strings.Cut(path, ".")
			shown := slices.Contains(f.shown, field)
			if secret, ok := secrets[full]; !ok || secret == shown {
				t.Errorf("%s: %s is shown: %v; known: %v, secret: %v", verb, full, shown, ok, secret)
			}
			seen[full] = true
			left = slices.DeleteFunc(left, func(name string) bool { return name == field })
		}
		if len(left) > 0 {
			t.Errorf("%s shows %q, which %s does not have", verb, left, f.args)
		}
	}
	if got, want := slices.Sorted(maps.Keys(seen)), slices.Sorted(maps.Keys(secrets)); !slices.Equal(got, want) {
		t.Errorf("fields %q, known are %q", got, want)
	}
}

func set[V any](m map[string]V) map[string]bool {
	keys := make(map[string]bool)
	for k := range m {
		keys[k] = true
	}
	return keys
}

func TestArguments(t *testing.T) {
	long := strings.Repeat("n", argumentBytesMax)
	for _, x := range []struct{ verb, args, want string }{
		{command.AdminUserSet, `{"name":"svc","passwords":["hush"],"add_roles":["ops"]}`, `{"add_roles":["ops"],"name":"svc","passwords":"not shown"}`},
		// Who carries out the request reads these as well: nobody hides what they do.
		{command.AdminUserSet, `{"NAME":"svc","Add_Roles":["admin"],"PassWords":["hush"]}`, `{"add_roles":["admin"],"name":"svc","passwords":"not shown"}`},
		{command.AdminUserSet, `{"name":"other","name":"svc"}`, `{"name":"svc"}`},
		{command.AdminUserSet, `{"\u006eame":"svc"}`, `{"name":"svc"}`},
		// Nobody reads these.
		{command.AdminUserSet, `{"name":"svc","unheard-of":"hush"}`, `{"name":"svc"}`},
		{command.AdminUserSet, `{"name":"svc","` + long + `":"hush"}`, `{"name":"svc"}`},
		{command.AdminUserSet, `{"name":{"password":"hush"}}`, `null`},
		{command.AdminUserSet, `{"name":["hush"]}`, `null`},
		{command.AdminUserSet, `{"name":"svc"}{"passwords":["hush"]}`, `null`},
		{command.AdminUserSet, `{"name":"svc","grants":[{"prefix":"az8=","rights":"read","secret":"hush"}]}`, `{"grants":[{"prefix":"az8=","rights":"read"}],"name":"svc"}`},
		{command.AdminUserPassword, `{"name":"svc","current":"hush","password":"hush","drop_old":true}`, `{"current":"not shown","drop_old":true,"name":"svc","password":"not shown"}`},
		{command.AdminMemberAdd, `{"node":4,"address":"a\nb"}`, `{"address":"a\nb","node":4}`},
		{command.AdminShardMove, `{"shard":-1,"from":1,"to":2}`, `{"from":1,"shard":-1,"to":2}`},
		{command.AdminStatus, `{"passwords":"hush"}`, `null`},
		{"unheard-of", `{"name":"hush"}`, `null`},
		{command.AdminUserRemove, ``, `null`},
		{command.AdminUserRemove, `null`, `{"name":""}`},
		// The bound, at its edge, and what comes after.
		{command.AdminUserSet, fmt.Sprintf(`{"name":%q,"disabled":true}`, long[:argumentBytesMax-2-4]), fmt.Sprintf(`{"disabled":true,"name":%q}`, long[:argumentBytesMax-2-4])},
		{command.AdminUserSet, fmt.Sprintf(`{"name":%q,"disabled":true}`, long[:argumentBytesMax-2-3]), fmt.Sprintf(`{"disabled":"too long to show","name":%q}`, long[:argumentBytesMax-2-3])},
		{command.AdminUserSet, fmt.Sprintf(`{"name":%q,"disabled":true}`, long), `{"disabled":true,"name":"too long to show"}`},
	} {
		b, err := json.Marshal(Arguments(x.verb, []byte(x.args)))
		if err != nil || string(b) != x.want {
			t.Errorf("%s %.200s: %.200s, %v, want %.200s", x.verb, x.args, b, err, x.want)
		}
	}
}

// FuzzArguments: what is told of arguments is what was read of them, and nothing of a
// secret, however they are written.
func FuzzArguments(f *testing.F) {
	f.Add(`{"name":"svc","passwords":["hush"],"PASSWORDS":["hush"]}`)
	f.Add(`{"grants":[{"prefix":"az8=","rights":"read"}],"rights":"admin","mode":"add","name":"\ud800"}`)
	f.Fuzz(func(t *testing.T, args string) {
		for verb, form := range forms {
			told := Arguments(verb, []byte(args))
			size := 0
			for name, value := range told {
				switch value := value.(type) {
				case json.RawMessage:
					if secret, ok := secrets[form.args.Name()+"."+name]; secret || !ok && name != "grants" {
						t.Errorf("%s of %s is told", name, verb)
					}
					size += len(value)
				case string:
					if value != "not shown" && value != "too long to show" {
						t.Errorf("%s: %q", name, value)
					}
				default:
					t.Errorf("%s: %v", name, value)
				}
			}
			if size > argumentBytesMax {
				t.Errorf("%d bytes", size)
			}
		}
		var edit access.UserEdit
		if json.Unmarshal([]byte(args), &edit) != nil || len(edit.Name) > 100 {
			return
		}
		if told := Arguments(command.AdminUserSet, []byte(args)); told != nil {
			var name string
			if err := json.Unmarshal(told["name"].(json.RawMessage), &name); err != nil || name != edit.Name {
				t.Errorf("%q is told, %q was read: %v", name, edit.Name, err)
			}
		}
	})
}
