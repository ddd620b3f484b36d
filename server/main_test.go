package server

import (
	"testing"

	"go.uber.org/goleak"
)

// TestMain finds goroutines that outlive their servers.
func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }
