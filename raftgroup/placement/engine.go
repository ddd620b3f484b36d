package placement

import "fmt"

// Engine is the library that runs a cluster's Raft groups, the same one on all nodes and
// from the founding on. Files, rows and messages do not name etcd's raft, which was once the
// only one.
type Engine string

// The engines.
const (
	Etcd       Engine = ""
	Dragonboat Engine = "dragonboat"
)

const etcdName = "etcd"

// ParseEngine returns the engine of a name, as String writes it.
func ParseEngine(name string) (Engine, error) {
	switch name {
	case etcdName:
		return Etcd, nil
	case string(Dragonboat):
		return Dragonboat, nil
	}
	return Etcd, fmt.Errorf("there is no engine %q, only %v and %v", name, Etcd, Dragonboat)
}

// Known reports whether this version knows the engine.
func (e Engine) Known() bool { return e == Etcd || e == Dragonboat }

// String returns the engine's name.
func (e Engine) String() string {
	if e == Etcd {
		return etcdName
	}
	return string(e)
}
