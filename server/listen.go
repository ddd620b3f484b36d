package server

import (
	"fmt"
	"net"
	"os"
	"time"
)

// removeStaleSocket removes a unix socket that a server which was killed has
// left behind. One that somebody answers on is left alone.
func removeStaleSocket(path string) error {
	fi, err := os.Lstat(path)
	if err != nil {
		return nil
	}
	if fi.Mode()&os.ModeSocket == 0 {
		return fmt.Errorf("cannot listen on unix://%s: a file that is not a socket is there", path)
	}
	c, err := net.DialTimeout("unix", path, time.Second)
	if err == nil {
		c.Close()
		return fmt.Errorf("cannot listen on unix://%s: another server answers there", path)
	}
	return os.Remove(path)
}
