package raftgroup

import (
	"github.com/proa-kv/proa/raftgroup/datadir"
	"github.com/proa-kv/proa/raftgroup/dragonboat"
	"github.com/proa-kv/proa/raftgroup/engine"
	"github.com/proa-kv/proa/raftgroup/etcd"
	"github.com/proa-kv/proa/raftgroup/placement"
)

// Capability is something that not every engine can do.
type Capability string

const (
	// AcrossShards: a node that is the cluster's only one carries out commands whose keys
	// lie in several shards all at once.
	AcrossShards Capability = "commands across shards"
	// ResumesSnapshots: a transfer of a snapshot that broke off goes on where it was.
	ResumesSnapshots Capability = "snapshots that go on"
	// HandsOverStalled: a node whose log disk hangs gives its leaderships away meanwhile.
	HandsOverStalled Capability = "hand-over by a hanging disk"
	// CutsWhenFull: a write that finds the disk full waits while the log is cut.
	CutsWhenFull Capability = "room on a full disk"
	// IdleShards: a shard in which nothing happens costs next to nothing.
	IdleShards Capability = "idle shards for nothing"
	// StopsInOrder: whatever fails, the node says why and stops in order.
	StopsInOrder Capability = "orderly end after any fault"
)

// Engine is a library that runs Raft groups.
type Engine struct {
	Name  placement.Engine
	Lacks map[Capability]string // and what happens instead
	open  func(*Node) engine.Engine
}

// Engines are all engines. What one lacks is told by this table alone: the documentation
// and the tests have it from here.
var Engines = []Engine{
	{Name: placement.Etcd, open: func(n *Node) engine.Engine { return etcd.New(&n.lent, host{n}) }},
	{Name: placement.Dragonboat, open: openDragonboat, Lacks: map[Capability]string{
		AcrossShards:     "entries of different shards are not applied together. A batch, transaction or rename whose keys lie in several shards is refused (CROSS_SHARD, CROSSSLOT) as by a cluster of several nodes, also by a node that is alone",
		ResumesSnapshots: "a transfer that broke off begins anew. A node takes a snapshot only while its disk has as much room again as has come of it, beside what log and store need; else the transfer ends with a sentence, and is tried again",
		HandsOverStalled: "the thread that waits for the disk is the one that would hand over. The other nodes elect a leader when the election timeout has passed; a disk that is only slow is noticed as with etcd",
		CutsWhenFull:     "the thread that waits for room is the one that would cut the log. The log is cut when room becomes short, before; a node whose disk is full nevertheless stops, with what it has acknowledged in its log",
		IdleShards:       "each shard has heartbeats of its own, and costs some microseconds of the processor in each tick. 1,024 shards take a tenth of a core of each node when nothing happens, several seconds when they are created, and on a machine of few cores with three nodes they may not find leaders; choose fewer, or a longer `raft.election_timeout_min`",
		StopsInOrder:     "an error of disk, log or state stops the node with a sentence, but dragonboat panics where it finds itself contradicted or cannot read a file of its own: the process ends at once with a stack trace. What was acknowledged is in the log",
	}},
}

func openDragonboat(n *Node) engine.Engine {
	files := dragonboat.Files{FS: n.dir.FS, Dir: n.dir.FS.PathJoin(n.dir.Path, datadir.EngineDir), KeepFree: n.opt.segmentBytes() + n.opt.keepFree()}
	return dragonboat.New(&n.lent, host{n}, files)
}

// newEngine returns the engine of the node's cluster.
func (n *Node) newEngine() engine.Engine {
	for _, e := range Engines {
		if e.Name == n.dir.Engine {
			return e.open(n)
		}
	}
	panic("the directory was opened with an engine that is not there: " + n.dir.Engine.String())
}
