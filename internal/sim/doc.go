// Package sim runs a whole cluster, its network, its disks, its clocks and its
// clients from one number, and judges what came of it.
//
// # How it is deterministic
//
// A run is one testing/synctest bubble, so time is virtual: it moves only when
// nobody has anything to do. One goroutine, the simulator's, owns a queue of
// events, the only source of randomness and the state of the world. For each
// event it moves the time, does what the event says, and then has the nodes run
// passes, one at a time and in the order of their numbers, each time waiting
// until every other goroutine of the bubble has come to rest. So the background
// goroutines of the stores never run beside anything that could tell in which
// order they ran. What has to wait for virtual time, above all a log write for
// its fsync, waits on a goroutine of its own for an event.
//
// Randomness that is drawn below has seams: Raft's election timeouts come from
// crypto/rand.Reader, which a run replaces. Numbers that only tell things apart
// (of clusters, directories, segments, views) stay random; nothing here looks
// at them.
//
// # What is simulated
//
// The nodes are the real ones, above the real log and the real state machine,
// each on a file system in memory that knows what was synced. The network
// loses, doubles, delays and so reorders messages, in each direction by itself.
// A fsync takes time, stalls, or fails. A crash loses everything that was not
// synced, or a random part of it, or nothing. Clocks run at different speeds
// and wall clocks are set. See faults.go for the whole list, and client.go for
// what the clients do.
//
// # What is judged
//
// Every key's history must be linearizable, with what was promised beyond that:
// versions grow, session reads do not go back, stale reads are not older than
// they say. No two nodes may hold a lease of one shard at once. After the last
// fault the cluster must become whole within bounded time, every write that was
// acknowledged must be there, and all replicas must be equal.
package sim
