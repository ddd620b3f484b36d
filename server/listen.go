package server

import (
	"fmt"
	"net"
	"os"
	"time"
)

// Bounds of the pause after an error of accept. Out of descriptors or memory,
// most likely: a listener that is asked again at once would only keep the
// processor from what gives them back.
const (
	acceptPauseMin = 10 * time.Millisecond
	acceptPauseMax = time.Second
)

// restAfter logs an error of accept and returns how long the listener is left
// alone, last being the pause after the error before it, 0 if that led to a
// connection.
func (s *Server) restAfter(err error, last time.Duration) time.Duration {
	pause := min(max(2*last, acceptPauseMin), acceptPauseMax)
	s.lines.accept.Warn(s.log, "cannot accept a connection", "error", err, "retry_in", pause)
	return pause
}

// removeStaleSocket removes a unix socket that a server which was killed has
// left behind. One that somebody answers on is left alone.
func removeStaleSocket(path string) error {
	fi, err := os.Lstat(path)
	if err != nil {
		return nil
	}
	if fi.Mode()&os.ModeSocket == 0 {
		return fmt.Errorf("cannot listen on unix://%s: the file exists and is not a socket", path)
	}
	c, err := net.DialTimeout("unix", path, time.Second)
	if err == nil {
		c.Close()
		return fmt.Errorf("cannot listen on unix://%s: another server is listening there", path)
	}
	return os.Remove(path)
}
