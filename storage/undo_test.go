package storage

import (
	"strings"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/proa-kv/proa/command"
)

// TestTxnThatIsTooLarge: a transaction whose results do not fit in a reply does
// nothing at all, and what comes after it in the same pass sees nothing of it.
func TestTxnThatIsTooLarge(t *testing.T) {
	large := strings.Repeat("v", 9<<20)
	getOf := func(key string) command.Command { return command.Command{Kind: command.Get, Key: []byte(key)} }
	setup := cmds{watch("x"), put("a", large), put("b", large), putTTL("ttl", "1", 1000), put("n", "5")}
	changes := cmds{
		put("new", "v"), del("n"), put("n", "7"), putTTL("ttl", "2", 5000), del("a"), put("a", large),
		{Kind: command.Append, Key: []byte("b"), Value: []byte("more")},
		{Kind: command.Rename, Key: []byte("b"), Value: []byte("c")},
	}
	read := cmds{getOf("n"), getOf("new"), getOf("ttl"), {Kind: command.GetRange, Key: []byte("a"), Delta: -2, Until: -1}, {Kind: command.GetRange, Key: []byte("b")}, getOf("c")}
	whole := func(ops cmds) command.Command {
		return command.Command{Kind: command.Txn, Flags: command.Whole, Ops: ops}
	}
	for name, passes := range map[string]int{"in one pass": 1, "in passes of their own": 2} {
		t.Run(name, func(t *testing.T) {
			s, other := open(t, testOptions(vfs.NewMem())), open(t, testOptions(vfs.NewMem()))
			defer closeStore(t, s)
			defer closeStore(t, other)
			do(t, s, 1000, setup...)
			do(t, other, 1000, setup...)
			failed := whole(append(append(cmds{}, changes...), getOf("a"), getOf("c")))
			last := cmds{del("n"), ifAbsentSince("new", 1)}
			var r []command.Result
			if passes == 1 {
				r = do(t, s, 1000, append(append(cmds{failed}, read...), last...)...)
			} else {
				r = append(do(t, s, 1000, failed), do(t, s, 1000, append(append(cmds{}, read...), last...)...)...)
			}
			if r[0].Status != command.TooLarge || r[0].Succeeded || r[0].Results != nil {
				t.Fatalf("%v, %d results", r[0].Status, len(r[0].Results))
			}
			want := do(t, other, 1000, append(append(cmds{}, read...), last...)...)
			diff(t, "what follows", r[1:], want)
			// Applied indexes differ by passes, which is no part of the checksum.
			if a, b := checksums(t, s)[0], checksums(t, other)[0]; a != b {
				t.Errorf("checksums %x and %x", a, b)
			}
			fits := do(t, s, 1000, whole(append(append(cmds{}, changes[:4]...), getOf("a"), command.Command{Kind: command.GetRange, Key: []byte("b"), Delta: 1})))
			if fits[0].Status != command.OK || len(fits[0].Results) != 6 || len(fits[0].Results[4].Value) != len(large) || fits[0].Results[5].Integer != int64(len(large)) {
				t.Errorf("%v, %d results", fits[0].Status, len(fits[0].Results))
			}
		})
	}
}

// TestTxnThatIsBusy: where one operation of a transaction cannot be carried out
// now, none is.
func TestTxnThatIsBusy(t *testing.T) {
	s := openTest(t)
	large := strings.Repeat("v", 14<<20)
	var ops cmds
	for _, key := range []string{"a", "b", "c", "d", "e", "f"} {
		do(t, s, 1000, put(key, large))
		ops = append(ops, command.Command{Kind: command.Append, Key: []byte(key), Value: []byte("x")})
	}
	if r := do(t, s, 1000, command.Command{Kind: command.Txn, Flags: command.Whole, Ops: append(cmds{put("new", "v")}, ops...)}); r[0].Status != command.Busy {
		t.Fatalf("%v", r[0].Status)
	}
	if get(t, s, 0, "new", 1000).Found || len(get(t, s, 0, "a", 1000).Value) != len(large) {
		t.Error("a part of it was done")
	}
}
