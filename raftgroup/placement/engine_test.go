package placement

import (
	"encoding/json"
	"errors"
	"strings"
	"testing"

	"github.com/proa-kv/proa/command"
)

func TestEngineNames(t *testing.T) {
	for _, e := range []Engine{Etcd, Dragonboat} {
		if got, err := ParseEngine(e.String()); err != nil || got != e || !e.Known() {
			t.Errorf("%v: %v, %v, known %v", e, got, err, e.Known())
		}
	}
	for _, name := range []string{"", "Etcd", "raft"} {
		if e, err := ParseEngine(name); err == nil {
			t.Errorf("%q is %v", name, e)
		}
	}
	if Engine("raft").Known() {
		t.Error("raft is known")
	}
}

// The row of a cluster of etcd is what versions that know no other engine write and read.
func TestEngineInTheMap(t *testing.T) {
	for engine, row := range map[Engine]string{
		Etcd:       `{"replicas":3,"token":"secret"}`,
		Dragonboat: `{"replicas":3,"token":"secret","engine":"dragonboat"}`,
	} {
		changes := Found(Cluster{Replicas: 3, Token: "secret", Engine: engine}, []Node{{ID: 1, UID: 1}}, 1)
		b, err := json.Marshal(changes[0].Row)
		if err != nil || changes[0].Key != "cluster" || string(b) != row {
			t.Errorf("%v: %s %s, %v; want %s", engine, changes[0].Key, b, err, row)
		}
		m := NewMap(1)
		if err := m.Add("cluster", []byte(row), 1); err != nil || m.Cluster.Engine != engine {
			t.Errorf("%s: %v, %v", row, m.Cluster.Engine, err)
		}
		if c := SetToken(m, "other", 5).Row.(Cluster); c.Engine != engine {
			t.Errorf("with another token %v has %v", engine, c.Engine)
		}
	}
}

// A node that would run another engine is refused: it is of a version that does not have
// the cluster's, because others take what they were told.
func TestJoinRefusesOtherEngines(t *testing.T) {
	for _, c := range []struct{ cluster, joining Engine }{{Etcd, Etcd}, {Dragonboat, Dragonboat}, {Dragonboat, Etcd}, {Etcd, Dragonboat}} {
		m := NewMap(1)
		m.Cluster = Cluster{Replicas: 3, Engine: c.cluster}
		row, err := Join(m, &Request{UID: 7, Peer: "n7", Engine: c.joining})
		switch {
		case c.cluster == c.joining && (err != nil || row.UID != 7):
			t.Errorf("%v joins %v: %v", c.joining, c.cluster, err)
		case c.cluster != c.joining && (!errors.Is(err, command.ErrRefused) || row.UID != 0 || !strings.Contains(err.Error(), "the engine of this cluster is "+c.cluster.String()+", and that of the joining node is "+c.joining.String())):
			t.Errorf("%v joins %v: %v", c.joining, c.cluster, err)
		}
	}
}
