//go:build !linux && !darwin

package server

import "errors"

// newNetpollTransport reports that netpoll does not run here.
func newNetpollTransport(*Server) (transport, error) { return nil, errors.ErrUnsupported }
