// Package rig holds what comparisons of servers on one machine have in common:
// starting servers so that they end with the program, their CPU time and
// memory, the floors that disk and loopback set, and a description of the
// machine. It needs Linux.
package rig
