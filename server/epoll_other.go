//go:build !linux

package server

import "errors"

// newEpollFront reports that there is no epoll here.
func newEpollFront(*Server) (front, error) { return nil, errors.ErrUnsupported }
