package testcluster

import (
	"bufio"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
)

// canIdentify says whether owner works on this system.
const canIdentify = true

// owner returns which of the processes holds the other end of nc, a loopback
// connection over IPv4. It goes by the inode of the socket, so that it need not
// know what is said over the connection.
func owner(nc *net.TCPConn, pids []int) (i int, ok bool) {
	inode, err := peerInode(nc)
	if err != nil {
		return 0, false
	}
	for i, pid := range pids {
		if pid != 0 && holds(pid, inode) {
			return i, true
		}
	}
	return 0, false
}

// peerInode finds the other end of nc in the kernel's table of sockets
// (proc_net_tcp.txt of the Linux documentation).
func peerInode(nc *net.TCPConn) (inode string, err error) {
	table, err := os.Open("/proc/net/tcp")
	if err != nil {
		return "", err
	}
	defer table.Close()
	local := fmt.Sprintf(":%04X", nc.RemoteAddr().(*net.TCPAddr).Port)
	remote := fmt.Sprintf(":%04X", nc.LocalAddr().(*net.TCPAddr).Port)
	for lines := bufio.NewScanner(table); lines.Scan(); {
		// slot local remote state queues timer retransmissions uid timeout inode …
		f := strings.Fields(lines.Text())
		if len(f) > 9 && strings.HasSuffix(f[1], local) && strings.HasSuffix(f[2], remote) && f[9] != "0" {
			return f[9], nil
		}
	}
	return "", fmt.Errorf("no socket %s %s", local, remote)
}

// holds reports whether a process has a socket open.
func holds(pid int, inode string) bool {
	names, err := filepath.Glob(fmt.Sprintf("/proc/%d/fd/*", pid))
	if err != nil {
		return false
	}
	for _, name := range names {
		if target, err := os.Readlink(name); err == nil && target == "socket:["+inode+"]" {
			return true
		}
	}
	return false
}
