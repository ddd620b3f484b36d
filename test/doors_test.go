package test

import (
	"fmt"
	"net"
	"strings"
	"testing"

	"github.com/proa-kv/proa/internal/testcluster"
	"github.com/proa-kv/proa/protocol"
)

// limited has a server start under a limit of open files that it cannot raise.
func limited(files int) []string {
	return []string{"sh", "-c", fmt.Sprintf(`ulimit -n %d && exec "$@"`, files), "sh"}
}

// TestFilesAreKeptForTheStores opens more connections than there are
// descriptors, on every port, and has log and state turn over meanwhile. The
// stores must find the files they need, whoever else wants some.
func TestFilesAreKeptForTheStores(t *testing.T) {
	for _, files := range []int{256, 1024} {
		t.Run(fmt.Sprint(files), func(t *testing.T) {
			t.Parallel()
			resp, admin, peer := testcluster.FreeAddress(t), testcluster.FreeAddress(t), testcluster.FreeAddress(t)
			node := testcluster.Start(t, testcluster.Config{
				Command: limited(files), Settings: smallStores, Peer: peer,
				Args: []string{"--resp-listen", resp, "--admin-listen", admin},
			})
			old := greetWire(t, node)
			crowd := func(address, says string, n int) {
				for range n {
					nc, err := net.Dial("tcp", address)
					if err != nil {
						t.Fatal(err)
					}
					t.Cleanup(func() { nc.Close() })
					_, _ = nc.Write([]byte(says)) // it may have been closed already
				}
			}
			crowd(node.Address(), "", files)
			crowd(resp, "*2\r\n", files)
			crowd(admin, "POST /status HTTP/1.1\r\nHost: x\r\nContent-Length: 100000\r\n\r\n", files)
			crowd(peer, "", files)
			value := strings.Repeat("v", 256<<10)
			for i := range 64 {
				if f := old.call(protocol.OpPut, putBody(fmt.Sprintf("k%d", i), value)); protocol.Status(f.Code) != protocol.StatusOK {
					t.Fatalf("PUT %d was answered with %v", i, protocol.Status(f.Code))
				}
			}
			node.Stop()
			if log := node.Log(); strings.Contains(log, "too many open files") || !strings.Contains(log, "lowered_to") {
				t.Error("the log does not say that max_connections was lowered, or speaks of too many open files")
			}
			if n := len(node.Log()); n > 64<<10 {
				t.Errorf("%d bytes of log", n)
			}
		})
	}
}

// A limit that leaves nothing for clients is told at once.
func TestTooFewFiles(t *testing.T) {
	node := testcluster.New(t, testcluster.Config{Command: limited(100)})
	node.Spawn()
	if status := node.AwaitExit(); status == 0 || !strings.Contains(node.Log(), "ulimit -n") {
		t.Errorf("exit status %d; the log must say what to do", status)
	}
}
