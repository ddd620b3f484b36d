package storage

import (
	"fmt"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/proa-kv/proa/command"
)

func watch(key string) command.Command {
	return command.Command{Kind: command.Watch, Key: []byte(key)}
}

// ifAbsentSince is a Txn that succeeds if key is absent and has been.
func ifAbsentSince(key string, revision int64) command.Command {
	return command.Command{Kind: command.Txn, Compares: []command.Compare{
		{Target: command.OnAbsence, Relation: command.Equal, Key: []byte(key), Version: uint64(revision)},
	}}
}

// TestAbsence: a row that came and went was not absent all the time, whatever
// lies between: passes, files, a restart, a snapshot.
func TestAbsence(t *testing.T) {
	for _, between := range []string{"nothing", "one pass", "drain", "restart", "snapshot"} {
		t.Run(between, func(t *testing.T) {
			o := testOptions(vfs.NewMem())
			s := open(t, o)
			defer func() { closeStore(t, s) }()
			do(t, s, 1000, put("other", "v"))
			if r := do(t, s, 1000, ifAbsentSince("k", 1)); r[0].Succeeded {
				t.Error("nobody has watched, and absence is certain")
			}
			seen := do(t, s, 1000, watch("k"), watch("still"), watch("other"))
			if seen[0].Version != 0 || seen[2].Version == 0 || seen[0].Integer != 1 {
				t.Fatalf("%+v", seen)
			}
			changes := []command.Command{put("k", "v"), del("k"), put("ttl", "v"), putTTL("short", "v", 1)}
			r := seen[0].Integer
			switch between {
			case "one pass":
				got := do(t, s, 1000, append(changes, ifAbsentSince("k", r), ifAbsentSince("still", r))...)
				if got[4].Succeeded || !got[5].Succeeded {
					t.Errorf("in the pass of the change: %v, %v", got[4].Succeeded, got[5].Succeeded)
				}
			default:
				do(t, s, 1000, changes...)
			}
			do(t, s, 2000)
			switch between {
			case "drain":
				if err := s.Flush(); err != nil {
					t.Fatal(err)
				}
			case "restart":
				closeStore(t, s)
				s = open(t, o)
			case "snapshot":
				to := open(t, testOptions(vfs.NewMem()))
				send(t, s, to, 0)
				if a, b := checksums(t, s)[0], checksums(t, to)[0]; a != b {
					t.Errorf("checksums %x and %x", a, b)
				}
				closeStore(t, s)
				s = to
			}
			for _, x := range []struct {
				key  string
				want bool
			}{{"k", false}, {"still", true}, {"ttl", false}, {"short", false}, {"other", false}} {
				if got := do(t, s, 2000, ifAbsentSince(x.key, r))[0].Succeeded; got != x.want {
					t.Errorf("%s is absent since then: %v", x.key, got)
				}
			}
			do(t, s, 2000, command.Command{Kind: command.Sweep, Limit: 100, TTLMillis: 1e6})
			if do(t, s, 2000, ifAbsentSince("short", r))[0].Succeeded {
				t.Error("a row that has expired and was swept has never been there")
			}
			if do(t, s, 2000, ifAbsentSince("k", r-1))[0].Succeeded {
				t.Error("what was before the first Watch is certain")
			}
			again := do(t, s, 2000, watch("k"))[0].Integer
			if !do(t, s, 2000, ifAbsentSince("k", again))[0].Succeeded {
				t.Error("a second look is not enough")
			}
		})
	}
}

// TestNoMarksUnasked: where nobody watches, deletions leave nothing behind, so
// that states from before this operation stay equal.
func TestNoMarksUnasked(t *testing.T) {
	sum := func(commands ...command.Command) uint64 {
		s := openTest(t)
		do(t, s, 1000, commands...)
		return checksums(t, s)[0]
	}
	if a, b := sum(put("k", "v"), del("k")), sum(put("l", "v"), del("l")); a != b {
		t.Error("a deletion left its key behind")
	}
	if a, b := sum(watch("a"), put("k", "v"), del("k")), sum(watch("a"), put("l", "v"), del("l")); a == b {
		t.Error("a deletion after a Watch left nothing behind")
	}
}

// TestMarksAreFew: other keys seldom share a mark.
func TestMarksAreFew(t *testing.T) {
	seen := map[uint16]int{}
	for i := range 10 * markBuckets {
		seen[markBucket(hashKey(3, fmt.Append(nil, "key", i)))]++
	}
	for b, n := range seen {
		if n > 40 {
			t.Errorf("mark %d is shared by %d of %d keys", b, n, 10*markBuckets)
		}
	}
}
