package server

import (
	"testing"

	"go.uber.org/goleak"
)

// TestMain finds goroutines that outlive their servers. The pollers of netpoll are
// the process's.
func TestMain(m *testing.M) {
	goleak.VerifyTestMain(m, goleak.IgnoreAnyFunction("github.com/cloudwego/netpoll.(*defaultPoll).Wait"))
}
