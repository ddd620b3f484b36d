package config

import "runtime"

// Machine is what computed defaults depend on.
type Machine struct {
	Processors  int   // the process may use at the same time
	MemoryBytes int64 // it may use: physical memory, or its control group's limit if lower
	Epoll       bool  // the system has epoll
}

// memoryFallbackBytes stands for the memory of a system that does not say how
// much it has.
const memoryFallbackBytes = 2 * gib

// ThisMachine describes the machine, or the container, the process runs on.
func ThisMachine() Machine {
	m := Machine{
		Processors:  runtime.GOMAXPROCS(0),
		MemoryBytes: memoryBytes(),
		Epoll:       runtime.GOOS == "linux",
	}
	if m.MemoryBytes <= 0 {
		m.MemoryBytes = memoryFallbackBytes
	}
	return m
}
