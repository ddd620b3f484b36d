package server

import (
	"bytes"
	"context"
	"fmt"
	"net"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/proa-kv/proa/access"
	"github.com/proa-kv/proa/command"
	"github.com/proa-kv/proa/protocol"
)

const testPassword = "a good password"

var testHash = access.Hash(testPassword)

// allow gives all nodes these users, whose password is testPassword.
func (fc *fakeCluster) allow(users ...access.User) {
	d := access.Directory{}
	for _, u := range users {
		if u.Passwords == nil {
			u.Passwords = []string{testHash}
		}
		n, err := d.With(access.Change{User: &u})
		if err != nil {
			fc.t.Fatal(err)
		}
		d = *n
	}
	for _, n := range fc.nodes {
		n.policy.Store(d.Policy())
	}
}

func grants(rights ...any) (gs []access.Grant) {
	for i := 0; i < len(rights); i += 2 {
		gs = append(gs, access.Grant{Prefix: []byte(rights[i].(string)), Rights: rights[i+1].(access.Rights)})
	}
	return gs
}

// hello opens a connection and returns the answer to its HELLO.
func hello(t testing.TB, n *fakeNode, user, password string) (*dialer, protocol.Frame) {
	t.Helper()
	d := &dialer{t: t, nc: dialRaw(t, n.addr)}
	m := protocol.Hello{VersionMin: 1, VersionMax: 1, Name: []byte("test"), User: []byte(user), Secret: []byte(password)}
	return d, d.call(protocol.OpHello, m.AppendTo(nil))
}

func loggedIn(t testing.TB, n *fakeNode, user string) *dialer {
	t.Helper()
	d, f := hello(t, n, user, testPassword)
	if protocol.Status(f.Code) != protocol.StatusOK {
		t.Fatalf("HELLO of %s: %v %q", user, protocol.Status(f.Code), f.Body)
	}
	return d
}

// need is a request for each operation, and the rights it takes: on the keys whose prefix
// is given, or of the cluster. An operation that has no row fails the test.
type need struct {
	keys, cluster access.Rights
	variant       string
	body          func(prefix, tag string) []byte
}

func op(code protocol.Opcode, body []byte) protocol.Op { return protocol.Op{Code: code, Body: body} }

func needs() map[protocol.Opcode][]need {
	k := func(prefix, tag string) []byte { return []byte(prefix + "{" + tag + "}k") }
	key := func(p, tag string) []byte { m := protocol.Key{Key: k(p, tag)}; return m.AppendTo(nil) }
	put := func(flags protocol.WriteFlags) func(p, tag string) []byte {
		return func(p, tag string) []byte {
			m := protocol.Put{Flags: flags, Key: k(p, tag), Value: []byte("v")}
			return m.AppendTo(nil)
		}
	}
	one := func(keys access.Rights, body func(p, tag string) []byte) []need {
		return []need{{keys: keys, body: body}}
	}
	batch := func(p, tag string, ops ...protocol.Op) []byte {
		m := protocol.Batch{Ops: append([]protocol.Op{op(protocol.OpGet, key("rw/", tag))}, ops...)}
		return m.AppendTo(nil)
	}
	return map[protocol.Opcode][]need{
		protocol.OpHello:   nil, // see TestLogin
		protocol.OpPing:    {{body: func(_, _ string) []byte { return nil }}},
		protocol.OpRoutes:  {{body: func(_, _ string) []byte { return nil }}},
		protocol.OpStatus:  {{cluster: access.Monitor, body: func(_, _ string) []byte { return nil }}},
		protocol.OpAdmin:   nil, // see TestVerbs
		protocol.OpGet:     one(access.Read, key),
		protocol.OpExists:  one(access.Read, key),
		protocol.OpExpiry:  one(access.Read, key),
		protocol.OpWatch:   one(access.Read, key),
		protocol.OpPersist: one(access.Write, key),
		protocol.OpGetRange: one(access.Read, func(p, tag string) []byte {
			m := protocol.GetRange{Key: k(p, tag), End: 1}
			return m.AppendTo(nil)
		}),
		protocol.OpPut: {
			{keys: access.Write, body: put(0)},
			{keys: access.Write, variant: "if absent", body: put(protocol.WriteIfAbsent)},
			{keys: access.ReadWrite, variant: "previous", body: put(protocol.WriteReturnPrevious)},
		},
		protocol.OpDelete: {
			{keys: access.Write, body: func(p, tag string) []byte { m := protocol.Delete{Key: k(p, tag)}; return m.AppendTo(nil) }},
			{keys: access.ReadWrite, variant: "previous", body: func(p, tag string) []byte {
				m := protocol.Delete{Flags: protocol.WriteReturnPrevious, Key: k(p, tag)}
				return m.AppendTo(nil)
			}},
		},
		protocol.OpIncr: one(access.ReadWrite, func(p, tag string) []byte {
			m := protocol.Incr{Key: k(p, tag), Delta: 1}
			return m.AppendTo(nil)
		}),
		protocol.OpIncrFloat: one(access.ReadWrite, func(p, tag string) []byte {
			m := protocol.IncrFloat{Key: k(p, tag), Increment: []byte("1")}
			return m.AppendTo(nil)
		}),
		protocol.OpExpire: one(access.Write, func(p, tag string) []byte {
			m := protocol.Expire{Key: k(p, tag), TTLMillis: 60_000}
			return m.AppendTo(nil)
		}),
		protocol.OpSetExpiry: {
			{keys: access.Write, body: func(p, tag string) []byte {
				m := protocol.SetExpiry{Key: k(p, tag), Millis: 60_000}
				return m.AppendTo(nil)
			}},
			{keys: access.ReadWrite, variant: "row", body: func(p, tag string) []byte {
				m := protocol.SetExpiry{Flags: protocol.ExpiryReturnRow, Key: k(p, tag), Millis: 60_000}
				return m.AppendTo(nil)
			}},
		},
		protocol.OpAppend: one(access.Write, func(p, tag string) []byte {
			m := protocol.Append{Key: k(p, tag), Value: []byte("v")}
			return m.AppendTo(nil)
		}),
		protocol.OpSetRange: one(access.Write, func(p, tag string) []byte {
			m := protocol.SetRange{Key: k(p, tag), Value: []byte("v")}
			return m.AppendTo(nil)
		}),
		protocol.OpRename: {
			{keys: access.ReadWrite, variant: "source", body: func(p, tag string) []byte {
				m := protocol.Rename{Source: k(p, tag), Destination: k("rw/to", tag)}
				return m.AppendTo(nil)
			}},
			{keys: access.Read, variant: "source of a copy", body: func(p, tag string) []byte {
				m := protocol.Rename{Flags: protocol.RenameKeepSource, Source: k(p, tag), Destination: k("rw/to", tag)}
				return m.AppendTo(nil)
			}},
			{keys: access.Write, variant: "destination", body: func(p, tag string) []byte {
				m := protocol.Rename{Source: k("rw/from", tag), Destination: k(p, tag)}
				return m.AppendTo(nil)
			}},
		},
		protocol.OpMGet: one(access.Read, func(p, tag string) []byte {
			m := protocol.MGet{Keys: [][]byte{k("rw/", tag), k(p, tag)}}
			return m.AppendTo(nil)
		}),
		protocol.OpBatch: {
			{keys: access.Read, variant: "get", body: func(p, tag string) []byte { return batch(p, tag, op(protocol.OpGet, key(p, tag))) }},
			{keys: access.Write, variant: "put", body: func(p, tag string) []byte { return batch(p, tag, op(protocol.OpPut, put(0)(p, tag))) }},
			{keys: access.ReadWrite, variant: "put with previous", body: func(p, tag string) []byte {
				return batch(p, tag, op(protocol.OpPut, put(protocol.WriteReturnPrevious)(p, tag)))
			}},
			{keys: access.Write, variant: "not atomic", body: func(p, tag string) []byte {
				m := protocol.Batch{Flags: protocol.BatchNonAtomic, Ops: []protocol.Op{op(protocol.OpPut, put(0)("rw/", "elsewhere")), op(protocol.OpPut, put(0)(p, tag))}}
				return m.AppendTo(nil)
			}},
		},
		protocol.OpTxn: {
			{keys: access.Read, variant: "compare", body: func(p, tag string) []byte {
				m := protocol.Txn{Compares: []protocol.Compare{{Target: protocol.CompareVersion, Relation: protocol.Equal, Key: k(p, tag)}}}
				return m.AppendTo(nil)
			}},
			{keys: access.Write, variant: "then", body: func(p, tag string) []byte {
				m := protocol.Txn{Then: []protocol.Op{op(protocol.OpPut, put(0)(p, tag))}}
				return m.AppendTo(nil)
			}},
			{keys: access.Write, variant: "else", body: func(p, tag string) []byte {
				m := protocol.Txn{Else: []protocol.Op{op(protocol.OpPut, put(0)(p, tag))}}
				return m.AppendTo(nil)
			}},
		},
		protocol.OpScan: nil, // see TestScansShowWhatMayBeRead
		protocol.OpDeleteRange: one(access.Write, func(p, tag string) []byte {
			m := protocol.DeleteRange{Start: []byte(p), Flags: protocol.DeleteRangePrefix}
			return m.AppendTo(nil)
		}),
	}
}

// TestOperationsAreChecked sends each operation for keys that may be read, written, both or
// neither, to a node that carries it out and to one that sends it on.
func TestOperationsAreChecked(t *testing.T) {
	fc := newFakeCluster(t, Config{Authentication: true}, 2, 2, 1)
	fc.allow(access.User{Name: "root", Roles: []string{"admin"}},
		access.User{Name: "svc", Grants: grants("r/", access.Read, "w/", access.Write, "rw/", access.ReadWrite)},
		access.User{Name: "watcher", Roles: []string{"monitor"}})
	tags := map[int]string{}
	for i := 0; len(tags) < 2; i++ {
		tag := fmt.Sprint("t", i)
		tags[fc.shardOf(protocol.Slot([]byte("{"+tag+"}")))] = tag
	}
	here := map[string]*dialer{}
	for _, user := range []string{"root", "svc", "watcher"} {
		here[user] = loggedIn(t, fc.nodes[1], user)
	}
	rows := needs()
	for code := range 256 {
		o := protocol.Opcode(code)
		row, ok := rows[o]
		if o.Known() && !ok {
			t.Errorf("%v has no row: say which rights it takes, and check them in permitted", o)
		}
		for _, n := range row {
			for where, shard := range map[string]int{"direct": 0, "forwarded": 1} {
				for prefix, has := range map[string]access.Rights{"r/": access.Read, "w/": access.Write, "rw/": access.ReadWrite, "no/": 0} {
					for user, d := range here {
						want := true
						switch user {
						case "svc":
							want = n.keys&^has == 0 && n.cluster == 0
						case "watcher":
							want = n.keys == 0 && n.cluster&^access.Monitor == 0
						}
						f := d.call(o, n.body(prefix, tags[shard]))
						for protocol.Status(f.Code) == protocol.StatusOK && f.Flags&protocol.FlagMore != 0 {
							f = d.receive()
						}
						if got := protocol.Status(f.Code) != protocol.StatusPermission; got != want {
							t.Errorf("%v %s of %s, %s, by %s: %v %q", o, n.variant, prefix, where, user, protocol.Status(f.Code), f.Body)
						}
					}
				}
			}
		}
	}
	// What nobody knows is refused whoever asks.
	for user, d := range here {
		if f := d.call(200, nil); user != "root" && protocol.Status(f.Code) != protocol.StatusPermission {
			t.Errorf("an unknown operation of %s: %v", user, protocol.Status(f.Code))
		}
	}
}

// TestDeniedRequestsDoNothing looks at what is there after a refusal.
func TestDeniedRequestsDoNothing(t *testing.T) {
	fc := newFakeCluster(t, Config{Authentication: true}, 2, 2, 1)
	fc.allow(access.User{Name: "root", Roles: []string{"admin"}}, access.User{Name: "svc", Grants: grants("own/", access.ReadWrite)})
	root, svc := loggedIn(t, fc.nodes[1], "root"), loggedIn(t, fc.nodes[2], "svc")
	for shard := range 2 {
		key := []byte(fc.key(shard, 1))
		root.put(string(key), "value")
		m := protocol.Batch{Flags: protocol.BatchNonAtomic, Ops: []protocol.Op{
			op(protocol.OpPut, (&protocol.Put{Key: []byte("own/k"), Value: []byte("v")}).AppendTo(nil)),
			op(protocol.OpPut, (&protocol.Put{Key: key, Value: []byte("stolen")}).AppendTo(nil)),
		}}
		if f := svc.call(protocol.OpBatch, m.AppendTo(nil)); protocol.Status(f.Code) != protocol.StatusPermission {
			t.Errorf("a batch: %v", protocol.Status(f.Code))
		}
		all := protocol.DeleteRange{Flags: protocol.DeleteRangeAll}
		if f := svc.call(protocol.OpDeleteRange, all.AppendTo(nil)); protocol.Status(f.Code) != protocol.StatusPermission {
			t.Errorf("a range: %v", protocol.Status(f.Code))
		}
		for k, want := range map[string]string{string(key): "value", "own/k": ""} {
			f := root.call(protocol.OpGet, []byte(k))
			if got := string(f.Body[min(len(f.Body), 16):]); protocol.Status(f.Code) == protocol.StatusOK && got != want {
				t.Errorf("%s is %q", k, got)
			}
		}
	}
}

// TestVerbs: administrative requests are for administrators, but for the status.
func TestVerbs(t *testing.T) {
	fc := newFakeCluster(t, Config{Authentication: true}, 1, 1, 1)
	fc.allow(access.User{Name: "root", Roles: []string{"admin"}}, access.User{Name: "svc", Roles: []string{"readwrite"}}, access.User{Name: "watcher", Roles: []string{"monitor"}})
	fc.nodes[1].administers(func(context.Context, string, []byte) ([]byte, error) { return []byte("{}"), nil })
	for _, user := range []string{"root", "svc", "watcher"} {
		d := loggedIn(t, fc.nodes[1], user)
		for verb, rights := range command.AdminRights {
			if verb == command.AdminUserPassword {
				continue // see TestOwnPassword
			}
			has := map[string]access.Rights{"root": access.Admin | access.Monitor, "watcher": access.Monitor}[user]
			m := protocol.Admin{Verb: []byte(verb), Args: []byte("{}")}
			f := d.call(protocol.OpAdmin, m.AppendTo(nil))
			if got, want := protocol.Status(f.Code) == protocol.StatusOK, rights&^has == 0; got != want {
				t.Errorf("%s by %s: %v %q", verb, user, protocol.Status(f.Code), f.Body)
			}
		}
		m := protocol.Admin{Verb: []byte("unknown"), Args: []byte("{}")}
		if f := d.call(protocol.OpAdmin, m.AppendTo(nil)); user != "root" && protocol.Status(f.Code) != protocol.StatusPermission {
			t.Errorf("an unknown verb by %s: %v", user, protocol.Status(f.Code))
		}
	}
}

func TestLogin(t *testing.T) {
	for _, authentication := range []bool{true, false} {
		t.Run(fmt.Sprint("authentication ", authentication), func(t *testing.T) {
			fc := newFakeCluster(t, Config{Authentication: authentication}, 1, 1, 1)
			fc.allow(access.User{Name: "root", Roles: []string{"admin"}}, access.User{Name: "svc"}, access.User{Name: "off", Disabled: true})
			for _, x := range []struct {
				user, password string
				status         protocol.Status
				text           string
			}{
				{"root", testPassword, protocol.StatusOK, ""},
				{"root", "a wrong password", protocol.StatusUnauthenticated, "wrong user name or password"},
				{"svc", "", protocol.StatusUnauthenticated, "wrong user name or password"},
				{"off", testPassword, protocol.StatusUnauthenticated, "wrong user name or password"},
				{"none", testPassword, protocol.StatusUnauthenticated, "wrong user name or password"},
				{"", testPassword, protocol.StatusUnauthenticated, "wrong user name or password"},
				{strings.Repeat("u", 256), testPassword, protocol.StatusUnauthenticated, "wrong user name or password"},
				{"root", testPassword, protocol.StatusOK, ""}, // known by now
			} {
				d, f := hello(t, fc.nodes[1], x.user, x.password)
				if s := protocol.Status(f.Code); s != x.status || !strings.Contains(string(f.Body), x.text) {
					t.Errorf("%s with %q: %v %q", x.user, x.password, s, f.Body)
				}
				if x.status != protocol.StatusOK {
					if f, err := d.tryReceive(); err == nil {
						t.Errorf("the connection of %s is not closed: %v", x.user, f)
					}
				} else if f := d.put("key", "value"); protocol.Status(f.Code) != protocol.StatusOK {
					t.Errorf("a PUT of %s: %v", x.user, protocol.Status(f.Code))
				}
			}
			empty := newFakeCluster(t, Config{Authentication: authentication}, 1, 1, 1)
			_, f := hello(t, empty.nodes[1], "root", testPassword)
			if s := protocol.Status(f.Code); (s == protocol.StatusBusy) != authentication || s != protocol.StatusBusy && s != protocol.StatusUnauthenticated || !strings.Contains(string(f.Body), "no users") {
				t.Errorf("without any users: %v %q", s, f.Body)
			}
			d, f := hello(t, fc.nodes[1], "", "")
			if s := protocol.Status(f.Code); s == protocol.StatusOK == authentication {
				t.Errorf("without credentials: %v %q", s, f.Body)
			}
			if !authentication {
				if f := d.put("key", "value"); protocol.Status(f.Code) != protocol.StatusOK {
					t.Errorf("a PUT of nobody: %v", protocol.Status(f.Code))
				}
			}
		})
	}
}

// TestPipelinedLogin: what comes behind a HELLO waits until the password is verified, and is
// not carried out if it is wrong.
func TestPipelinedLogin(t *testing.T) {
	fc := newFakeCluster(t, Config{Authentication: true}, 1, 1, 1)
	fc.allow(access.User{Name: "root", Roles: []string{"admin"}})
	for password, want := range map[string]bool{testPassword: true, "a wrong password": false} {
		m := protocol.Hello{VersionMin: 1, VersionMax: 1, User: []byte("root"), Secret: []byte(password)}
		d := &dialer{t: t, nc: dialRaw(t, fc.nodes[1].addr)}
		b := frame(protocol.OpHello, 1, m.AppendTo(nil))
		put := protocol.Put{Key: []byte("key" + password), Value: []byte("v")}
		for id := uint64(2); id < 50; id++ {
			b = append(b, frame(protocol.OpPut, id, put.AppendTo(nil))...)
		}
		if _, err := d.nc.Write(b); err != nil {
			t.Fatal(err)
		}
		if f := d.receive(); (protocol.Status(f.Code) == protocol.StatusOK) != want {
			t.Fatalf("with %q: %v", password, protocol.Status(f.Code))
		}
		answered := 0
		for ; answered < 48; answered++ {
			if f, err := d.tryReceive(); err != nil || protocol.Status(f.Code) != protocol.StatusOK {
				break
			}
		}
		if done := answered == 48; done != want || !done && answered > 0 {
			t.Errorf("with %q: %d requests were carried out", password, answered)
		}
	}
}

// TestChangesReachOpenConnections: a connection gets what its user may do now, and ends with
// its user.
func TestChangesReachOpenConnections(t *testing.T) {
	fc := newFakeCluster(t, Config{Authentication: true}, 2, 2, 1)
	root := access.User{Name: "root", Roles: []string{"admin"}}
	fc.allow(root, access.User{Name: "svc", Roles: []string{"readonly"}})
	svc, other := loggedIn(t, fc.nodes[1], "svc"), loggedIn(t, fc.nodes[1], "root")
	until := func(what string, ok func() bool) {
		t.Helper()
		for end := time.Now().Add(10 * time.Second); !ok(); {
			if time.Now().After(end) {
				t.Fatalf("in vain: %s", what)
			}
		}
	}
	status := func() protocol.Status { return protocol.Status(svc.put("key", "value").Code) }
	if s := status(); s != protocol.StatusPermission {
		t.Fatalf("at first: %v", s)
	}
	fc.allow(root, access.User{Name: "svc", Roles: []string{"readwrite"}})
	until("more rights", func() bool { return status() == protocol.StatusOK })
	fc.allow(root, access.User{Name: "svc"})
	until("fewer rights", func() bool { return status() == protocol.StatusPermission })
	fc.allow(root, access.User{Name: "svc", Passwords: []string{access.Hash("another password")}})
	until("another password", func() bool {
		svc.send(protocol.OpPing, nil)
		for {
			f, err := svc.tryReceive()
			switch {
			case err != nil:
				return true
			case f.ID == svc.id:
				return false
			case f.ID == 0 && protocol.Status(f.Code) != protocol.StatusUnauthenticated:
				t.Fatalf("a notice: %v %q", protocol.Status(f.Code), f.Body)
			}
		}
	})
	if f := other.put("key", "value"); protocol.Status(f.Code) != protocol.StatusOK {
		t.Errorf("another user's connection: %v", protocol.Status(f.Code))
	}
}

// TestScansShowWhatMayBeRead scans ranges of which parts may be read, page by page, on nodes
// with all shards, with some, and with none.
func TestScansShowWhatMayBeRead(t *testing.T) {
	for _, copies := range []int{1, 2, 3} {
		t.Run(fmt.Sprint(copies, " copies"), func(t *testing.T) {
			fc := newFakeCluster(t, Config{Authentication: true}, 3, 6, copies)
			var all []string
			for _, prefix := range []string{"a/", "b/", "b/x/", "c/", "d", "e/", "\xff"} {
				for i := range 7 {
					all = append(all, fmt.Sprint(prefix, i))
				}
			}
			slices.Sort(all)
			for _, key := range all {
				fc.set(key, "value of "+key)
			}
			users := map[string][]string{"none": nil, "b": {"b/"}, "some": {"a/", "c/", "e/3", "\xff"}, "gaps": {"a/0", "a/2", "a/4", "b/x/", "d5", "zz"}, "empty": {"x/", "y/"}, "root": {""}}
			list := []access.User{{Name: "admin", Roles: []string{"admin"}}}
			for name, prefixes := range users {
				u := access.User{Name: name, Grants: grants("w/", access.Write)}
				for _, p := range prefixes {
					u.Grants = append(u.Grants, access.Grant{Prefix: []byte(p), Rights: access.Read})
				}
				list = append(list, u)
			}
			fc.allow(list...)
			for name, prefixes := range users {
				d := loggedIn(t, fc.nodes[1], name)
				for _, m := range []protocol.Scan{
					{}, {Start: []byte("b"), Flags: protocol.ScanPrefix}, {Start: []byte("a/3"), End: []byte("e/4")}, {Start: []byte("b/x/2")}, {End: []byte("c/")},
					{Start: []byte("d"), End: []byte("a")},
				} {
					var want, byShard []string
					for _, key := range all {
						in := bytes.Compare([]byte(key), m.Start) >= 0 && (len(m.End) == 0 || key < string(m.End))
						if m.Flags&protocol.ScanPrefix != 0 {
							in = strings.HasPrefix(key, string(m.Start))
						}
						if in && slices.ContainsFunc(prefixes, func(p string) bool { return strings.HasPrefix(key, p) }) {
							want = append(want, key)
						}
					}
					for shard := range uint16(6) { // as of a node that has no replica of it
						if name != "none" {
							m.CountMax = 2
							keys, _ := fc.readAll([]*dialer{d}, protocol.Extensions{HasShard: true, Shard: shard}, m)
							byShard = append(byShard, keys...)
						}
					}
					slices.Sort(byShard)
					if !slices.Equal(byShard, want) {
						t.Errorf("%s, shard by shard, of %q to %q: %q, want %q", name, m.Start, m.End, byShard, want)
					}
					for _, reverse := range []bool{false, true} {
						if m.Flags &^= protocol.ScanReverse; reverse {
							m.Flags |= protocol.ScanReverse
							slices.Reverse(want)
						}
						for _, rows := range []uint32{1, 3, 1000} {
							m.CountMax = rows
							got, status := scanAll(t, d, m)
							if name == "none" {
								if status != protocol.StatusPermission {
									t.Errorf("%s: %v", name, status)
								}
								continue
							}
							if !slices.Equal(got, want) {
								t.Errorf("%s, %d rows at a time of %q to %q (flags %v): %q, want %q (%v)", name, rows, m.Start, m.End, m.Flags, got, want, status)
							}
						}
					}
				}
			}
		})
	}
}

// scanAll returns the keys of all pages.
func scanAll(t *testing.T, d *dialer, m protocol.Scan) (keys []string, status protocol.Status) {
	t.Helper()
	for pages := 0; ; pages++ {
		if pages > 200 {
			t.Fatal("the scan does not end")
		}
		d.send(protocol.OpScan, m.AppendTo(nil))
		m.Cursor = nil
		for more := true; more; {
			f := d.receive()
			if status = protocol.Status(f.Code); status != protocol.StatusOK {
				return keys, status
			}
			var r protocol.ScanReply
			if err := r.Decode(f.Body); err != nil {
				t.Fatal(err)
			}
			for _, row := range r.Rows {
				if string(row.Value) != "value of "+string(row.Key) {
					t.Errorf("%q is %q", row.Key, row.Value)
				}
				keys = append(keys, string(row.Key))
			}
			if m.Cursor = bytes.Clone(r.Cursor); len(r.Rows) == 0 && len(r.Cursor) > 0 {
				t.Error("a page without rows, and with a cursor")
			}
			more = f.Flags&protocol.FlagMore != 0
		}
		if len(m.Cursor) == 0 {
			return keys, status
		}
	}
}

// TestLocalOperator: who connects to the unix socket as the server's own user needs no login,
// whatever the transport; over TCP everybody does.
func TestLocalOperator(t *testing.T) {
	transports(t, func(t *testing.T, cfg Config) {
		cfg.Authentication = true
		var unix net.Addr
		_, addr := live(t, cfg, func(s *Server) {
			var err error
			if unix, err = s.Listen("unix://" + filepath.Join(t.TempDir(), "socket")); err != nil {
				t.Fatal(err)
			}
		})
		nc, err := net.Dial("unix", unix.String())
		if err != nil {
			t.Fatal(err)
		}
		defer nc.Close()
		d := speak(t, nc)
		want(t, d.put("k", "v"), protocol.StatusOK)
		want(t, d.call(protocol.OpStatus, nil), protocol.StatusOK)
		tcp, err := connect(addr)
		if err != nil {
			t.Fatal(err)
		}
		defer tcp.Close()
		m := protocol.Hello{VersionMin: 1, VersionMax: 1}
		want(t, (&dialer{t: t, nc: tcp}).call(protocol.OpHello, m.AppendTo(nil)), protocol.StatusUnauthenticated)
	})
}
