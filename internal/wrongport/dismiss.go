package wrongport

import (
	"io"
	"net"
	"time"
)

// What a connection that is dismissed may cost.
const (
	dismissTime  = time.Second
	dismissBytes = 64 << 10
)

// Dismiss sends a last answer on a connection and closes it, once the caller has
// closed it too: closing at once would reset it where the caller has sent more
// than was read, and the answer might be lost. That takes a second at most.
func Dismiss(nc net.Conn, answer []byte) {
	defer nc.Close()
	_ = nc.SetDeadline(time.Now().Add(dismissTime))
	if _, err := nc.Write(answer); err != nil {
		return
	}
	if half, ok := nc.(interface{ CloseWrite() error }); ok {
		_ = half.CloseWrite()
		_, _ = io.CopyN(io.Discard, nc, dismissBytes)
	}
}
