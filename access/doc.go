// Package access says who may do what: users, their passwords, and the roles that give
// them rights.
//
//	user.go      users and roles as they are stored, and what makes them valid
//	span.go      sets of keys, as disjoint ranges
//	policy.go    all users and roles at one time, compiled: Policy, Account, Permit
//	change.go    what an administrator may change, and what no change may lead to
//	hash.go      passwords as argon2id hashes
//	verify.go    checks credentials: bounded, and slower for whoever guesses
//
// A role grants rights on the keys that begin with a prefix (read, write), and rights of
// the whole cluster (monitor, admin). A user may do what any of the user's roles allows.
// There is nothing that forbids: grants of overlapping prefixes add up.
//
// The package does no I/O. A Policy and what hangs on it are immutable: whoever checks a
// request needs no lock.
package access
