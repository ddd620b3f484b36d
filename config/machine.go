package config

import (
	"net"
	"net/netip"
	"os"
	"runtime"
)

// Machine is what computed defaults depend on.
type Machine struct {
	Processors  int   // the process may use at the same time
	MemoryBytes int64 // it may use: physical memory, or its control group's limit if lower
	Epoll       bool  // the system has epoll
	Netpoll     bool  // the module netpoll runs on it

	// Host is the name or address by which other machines know this one;
	// empty: its first address that is not loopback, looked up when needed.
	Host string
}

// host returns Host or what stands for it. A machine without a network is
// known to itself alone.
func (m *Machine) host() string {
	if m.Host != "" {
		return m.Host
	}
	// Interfaces that cannot be read are as good as none.
	addresses, _ := net.InterfaceAddrs()
	if a, ok := firstReachable(addresses); ok {
		return a.String()
	}
	if name, err := os.Hostname(); err == nil && name != "" {
		return name
	}
	return "localhost"
}

// firstReachable returns the first IPv4 address that other machines can reach,
// or else the first such IPv6 address.
func firstReachable(addresses []net.Addr) (first netip.Addr, ok bool) {
	for _, address := range addresses {
		prefix, err := netip.ParsePrefix(address.String())
		if err != nil {
			continue
		}
		a := prefix.Addr().Unmap()
		if !a.IsGlobalUnicast() {
			continue
		}
		if a.Is4() {
			return a, true
		}
		if !ok {
			first, ok = a, true
		}
	}
	return first, ok
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
		Netpoll:     runtime.GOOS == "linux" || runtime.GOOS == "darwin",
	}
	if m.MemoryBytes <= 0 {
		m.MemoryBytes = memoryFallbackBytes
	}
	return m
}
