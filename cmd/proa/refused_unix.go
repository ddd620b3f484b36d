//go:build unix

package main

import "syscall"

// errRefused is what the system says where nothing listens on a port.
const errRefused = syscall.ECONNREFUSED
