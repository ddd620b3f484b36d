//go:build !linux

package server

import "errors"

// newEpollTransport reports that there is no epoll here.
func newEpollTransport(*Server) (transport, error) { return nil, errors.ErrUnsupported }
