// Package rig is the harness of programs that compare servers on one machine:
// their flags, their run in a directory of its own, the clusters they start and
// end, the floors that disk, loopback and memory set, the loop of callers that
// drives a cluster through its client library, the samples of each round, and
// the pages made of them. It needs Linux.
package rig
