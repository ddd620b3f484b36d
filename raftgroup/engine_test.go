package raftgroup

// etcd returns the engine of n, for tests that look into it.
func (n *Node) etcd() *etcdEngine { return n.engine.(*etcdEngine) }
