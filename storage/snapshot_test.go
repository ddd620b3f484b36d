package storage

import (
	"bytes"
	"fmt"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"
)

var testConf = []byte("configuration")

// install sends shard of from to to, and returns the index.
func installAt(t testing.TB, from, to *Store, shard int) InstallMeta {
	t.Helper()
	v, err := from.OpenView(shard)
	if err != nil {
		t.Fatal(err)
	}
	defer v.Close()
	m := InstallMeta{Index: v.Applied(), Term: 7, Conf: testConf}
	in, err := to.BeginInstall(shard, v.ID(), m)
	if err != nil {
		t.Fatal(err)
	}
	if err := v.Export(in.Write, in.Token()); err != nil {
		t.Fatal(err)
	}
	if err := in.Finish(); err != nil {
		t.Fatal(err)
	}
	if err := to.Install(in); err != nil {
		t.Fatal(err)
	}
	return m
}

func TestInstallSmoke(t *testing.T) {
	a, b := open(t, testOptions(nil)), open(t, testOptions(vfs.NewCrashableMem()))
	defer closeStore(t, a)
	for i := range 2000 {
		do(t, a, uint64(i+1), in(uint64(i%5+1), uint64(i+1), 0, putTTL(fmt.Sprint("k", i), "v", 1000000)), put(fmt.Sprint("big", i%3), string(bytes.Repeat([]byte{'x'}, 10000))))
	}
	do(t, a, 1, put("huge", string(bytes.Repeat([]byte{'x'}, 3<<20))))
	do(t, b, 1, put("old", "v"))
	m := installAt(t, a, b, 0)
	diff(t, "sum", checksums(t, b), checksums(t, a))
	got, _ := b.Installed(0)
	diff(t, "installed", got, m)
	closeStore(t, b)
}
