// Package environment is what dragonboat finds around it in a node: the file system, its
// directory, and its log.
//
// A NodeHost keeps little in files, since its log is a database's (package logdb):
//
//	dragonboat.ds   what the directory was made for
//	NODEHOST.ID     a random number, of which nothing is made here
//	LOCK            empty
//	node/<deployment>/snapshot-part-<n>/snapshot-<shard>-<replica>/
//	                snapshots, most of them metadata alone; a mark where the replica
//	                was removed
//
// What must hold:
//
//   - The directory is a node's, not a host's. dragonboat would put the name of the host
//     between its directory and what is in it, and refuse to start under another name.
//   - A crash at any moment leaves a directory that a NodeHost opens. dragonboat writes
//     its first two files in place, and panics at each start over one that is half
//     written: they are here before it.
//   - All of it goes through the node's file system, so that tests see it lose power and
//     fail.
//   - Nobody's files in the working directory change dragonboat (package workdir).
package environment
