package server

import (
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strings"
	"syscall"
	"time"
)

const unixScheme = "unix://"

// Reserve listens on address, serving nobody, until the result is closed. The
// error is the one that Listen would return. flag is the option by which another
// address is given.
func Reserve(address, flag string) (io.Closer, error) { return listen(address, flag) }

// listen opens a listener on host:port or unix:///path and explains failures.
// flag is the one that says where to listen.
func listen(address, flag string) (net.Listener, error) {
	network, addr := "tcp", address
	if path, ok := strings.CutPrefix(address, unixScheme); ok {
		network, addr = "unix", path
		if err := removeStaleSocket(path); err != nil {
			return nil, fmt.Errorf("cannot listen on %s: %w; choose another path with %s", address, err, flag)
		}
	}
	ln, err := net.Listen(network, addr)
	if err != nil {
		return nil, fmt.Errorf("cannot listen on %s: %w; %s", address, err, listenAdvice(err, network, flag))
	}
	return ln, nil
}

// listenAdvice says what to do where listening failed with err.
func listenAdvice(err error, network, flag string) string {
	another := "choose another address with " + flag
	if network == "unix" {
		another = "choose another path with " + flag
	}
	switch {
	case errors.Is(err, syscall.EADDRINUSE):
		return "is another server running there, or does another option name the same port? " + another
	case errors.Is(err, os.ErrNotExist):
		return "create the directory, or " + another
	case errors.Is(err, syscall.EADDRNOTAVAIL):
		return "no interface of this machine has this address: " + another
	}
	return another
}

// Bounds of the pause after an error of accept. Out of descriptors or memory,
// most likely: a listener that is asked again at once would only keep the
// processor from what gives them back.
const (
	acceptPauseMin = 10 * time.Millisecond
	acceptPauseMax = time.Second
)

// acceptPause logs an error of accept and returns how long the listener is left
// alone, last being the pause after the error before it, 0 if that led to a
// connection.
func (s *Server) acceptPause(err error, last time.Duration) time.Duration {
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
		return errors.New("the file exists and is not a socket")
	}
	c, err := net.DialTimeout("unix", path, time.Second)
	if err == nil {
		c.Close()
		return errors.New("another server is listening there")
	}
	return os.Remove(path)
}
