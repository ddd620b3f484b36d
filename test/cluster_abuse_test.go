package test

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"go.etcd.io/raft/v3/raftpb"

	"github.com/proa-kv/proa/client"
	"github.com/proa-kv/proa/internal/testcluster"
	"github.com/proa-kv/proa/raftgroup/peer"
)

// TestClusterPeerPortAbuse sends the peer ports what no server would. Nobody
// may notice but the log.
func TestClusterPeerPortAbuse(t *testing.T) {
	t.Parallel()
	rng := seeded(t)
	c := testcluster.StartCluster(t, testcluster.ClusterConfig{Shards: 2, Settings: []string{"cluster.balance_leaders=false"}})
	tr := startTraffic(t, []*client.Client{connectAll(t, c, nil)}, 4, 5*time.Millisecond)
	tr.progress(50)
	var ports []string
	for _, n := range c.View(c.Node(1)).Nodes {
		ports = append(ports, n.Peer)
	}

	noise := make([]byte, 256<<10)
	for i := range noise {
		noise[i] = byte(rng.Uint32())
	}
	const magic = "\xf1ProaPee"
	record := func(length uint16, body []byte) []byte {
		b := binary.LittleEndian.AppendUint16([]byte(magic), length)
		return append(append(b, body...), 1, 2, 3, 4) // not its checksum
	}
	sends := map[string][]byte{
		"noise":              noise,
		"HTTP":               []byte("GET / HTTP/1.1\r\nHost: proa\r\n\r\n"),
		"a TLS hello":        append([]byte{22, 3, 1, 2, 0, 1, 0, 1, 252, 3, 3}, noise[:502]...),
		"zeros":              make([]byte, 64<<10),
		"a huge record":      record(0xffff, noise),
		"a wrong checksum":   record(40, noise[:40]),
		"an empty record":    record(0, nil),
		"the magic and less": []byte(magic),
		"a client's HELLO":   append([]byte{24, 0, 0, 0, 1, 1, 0, 0}, make([]byte, 16)...),
	}
	for name, b := range sends {
		for _, port := range ports {
			for range 5 {
				abuse(t, name, port, b)
			}
		}
	}
	// Very many that say nothing at all.
	for range 300 {
		if nc, err := net.Dial("tcp", ports[0]); err == nil {
			defer nc.Close()
		}
	}
	tr.progress(100)

	// Servers of another cluster, and one that says it is node 3.
	id := peer.Identity{Cluster: rng.Uint64(), Node: 3, UID: rng.Uint64(), Peer: testcluster.FreeAddress(t), Version: "test", Engine: engineUnderTest().String()}
	expectRefused(t, id, ports[0], "this node belongs to cluster "+clusterID(t, c.Node(1).Dir()))
	id.Cluster = identityOf(t, c.Node(1).Dir()).Cluster
	expectRefused(t, id, ports[0], "other data")
	id.Node = 1
	expectRefused(t, id, ports[0], "both nodes claim to be node 1")
	tr.progress(50)

	// One that knows all about node 3 but its key.
	id = identityOf(t, c.Node(3).Dir())
	expectRefused(t, id, ports[0], "has not proven it")

	// After a handshake that is in order: node 3's, while it is down.
	c.Node(3).Kill()
	awaitLedWithout(t, c, c.Node(3))
	for name, frame := range map[string][]byte{
		"a huge length":    {0xff, 0xff, 0xff, 0xff, 1, 0, 0, 0, 0, 0, 0, 0},
		"an unknown frame": {4, 0, 0, 0, 99, 0, 0, 0, 0, 0, 0, 0, 1, 2, 3, 4},
		"a wrong checksum": {4, 0, 0, 0, 1, 0, 0, 0, 9, 9, 9, 9, 1, 2, 3, 4},
		"another engine's": {1, 0, 0, 0, 12, 0, 0, 0, 0x08, 0x07, 0xb8, 0x91, 'x'},
		"noise":            noise,
	} {
		impersonate(t, name, c.Node(3), c.Node(1), ports[0], frame)
	}
	tr.progress(50)
	c.Node(3).Start()
	awaitSettled(t, c)
	tr.check(connectAll(t, c, nil))
	for _, err := range tr.errors {
		if !errors.Is(err, client.ErrOutcomeUnknown) { // of node 3, when it was killed
			t.Error(err)
		}
	}
	checkEqual(t, c)
}

// abuse sends b to address and waits for the connection's end: the server may
// neither answer as to a peer nor keep it.
func abuse(t *testing.T, what, address string, b []byte) {
	t.Helper()
	nc, err := net.Dial("tcp", address)
	if err != nil {
		t.Errorf("%s: %v", what, err)
		return
	}
	defer nc.Close()
	_, _ = nc.Write(b) // it may have been closed already
	_ = nc.(*net.TCPConn).CloseWrite()
	_ = nc.SetReadDeadline(time.Now().Add(answerTimeout))
	if _, err := io.Copy(io.Discard, nc); errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("%s: the server keeps the connection", what)
	}
}

// transportOf starts a transport that says it is id. dial may be nil.
func transportOf(t *testing.T, id peer.Identity, dial func(context.Context, string) (net.Conn, error)) *peer.Transport {
	t.Helper()
	tr, err := peer.New(peer.Config{Listen: "127.0.0.1:0", Dial: dial})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = tr.Close() })
	tr.SetIdentity(id)
	tr.Start(stranger{})
	return tr
}

// stranger takes in whatever comes.
type stranger struct{}

func (stranger) Recognize(peer.Identity) error            { return nil }
func (stranger) Admit(peer.Identity) error                { return nil }
func (stranger) JoinToken() string                        { return "" }
func (stranger) Refused(peer.Identity, peer.Code, string) {}
func (stranger) Messages(uint64, []peer.Message)          {}
func (stranger) Frame(uint64, []byte) error               { return nil }
func (stranger) Report(uint64, []byte)                    {}
func (stranger) Unreachable(uint64)                       {}
func (stranger) Call(context.Context, peer.Identity, string, []byte) ([]byte, error) {
	return nil, errors.New("no")
}
func (stranger) Snapshot(uint64, []byte, *peer.Incoming) error { return errors.New("no") }
func (stranger) ServeClient(_ uint64, c net.Conn)              { c.Close() }

// expectRefused checks that a server refuses id with a sentence that holds says.
func expectRefused(t *testing.T, id peer.Identity, address, says string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), answerTimeout)
	defer cancel()
	_, _, err := transportOf(t, id, nil).CallAddress(ctx, address, "probe", nil)
	if err == nil || !strings.Contains(err.Error(), says) {
		t.Errorf("the server does not refuse with %q: %v", says, err)
	}
}

// impersonate shakes hands as a server that is down, with the key in its
// directory, and sends frame then. It passes for the server's last run, which
// another one remembers.
func impersonate(t *testing.T, what string, down, other *testcluster.Node, address string, frame []byte) {
	t.Helper()
	id := identityOf(t, down.Dir())
	id.Generation, id.Run, id.Began = lastRun(t, other.Dir(), id.Node)
	spoiled := make(chan *spoiler, 16)
	tr := transportOf(t, id, func(ctx context.Context, address string) (net.Conn, error) {
		nc, err := new(net.Dialer).DialContext(ctx, "tcp", address)
		if err != nil {
			return nil, err
		}
		s := &spoiler{Conn: nc, frame: frame, ended: make(chan struct{})}
		select {
		case spoiled <- s:
		default:
		}
		return s, nil
	})
	tr.SetKey(keyOf(t, down.Dir()))
	defer tr.Close() // it would come again in the place of the one it says it is
	tr.SetPeer(1, address)
	select {
	case s := <-spoiled:
		// Anything it is given to send turns into the frame.
		eventually(t, what+" to end the connection", func() error {
			tr.Send(1, 0, &raftpb.Message{Type: raftpb.MsgHeartbeat, From: 3<<24 | 1, To: 1<<24 | 1, Term: 1})
			tr.Transmit()
			select {
			case <-s.ended:
				return nil
			default:
				return fmt.Errorf("it stands")
			}
		})
	case <-time.After(answerTimeout):
		t.Errorf("%s: no connection was made", what)
	}
}

// spoiler is a connection that sends a frame of its own instead of all that
// comes after the handshake.
type spoiler struct {
	net.Conn
	frame []byte
	ended chan struct{} // closed when the other side has closed the connection
	over  bool
}

func (s *spoiler) Write(b []byte) (int, error) {
	if bytes.HasPrefix(b, []byte("\xf1ProaPee")) {
		return s.Conn.Write(b)
	}
	_, err := s.Conn.Write(s.frame)
	return len(b), err
}

func (s *spoiler) Read(b []byte) (int, error) {
	n, err := s.Conn.Read(b)
	if err != nil && !errors.Is(err, net.ErrClosed) && !s.over {
		s.over = true
		close(s.ended)
	}
	return n, err
}

// identityOf reads who the server of a directory is.
func identityOf(t *testing.T, dir string) peer.Identity {
	t.Helper()
	var id struct {
		Cluster uint64 `json:"cluster_id,string"`
		Node    uint64 `json:"node_id"`
		UID     uint64 `json:"uid,string"`
	}
	readJSON(t, filepath.Join(dir, "proa.json"), &id)
	return peer.Identity{Cluster: id.Cluster, Node: id.Node, UID: id.UID, Version: "test", Engine: engineUnderTest().String()}
}

// keyOf reads the key of a directory.
func keyOf(t *testing.T, dir string) ed25519.PrivateKey {
	t.Helper()
	var id struct {
		Key []byte `json:"key"`
	}
	readJSON(t, filepath.Join(dir, "proa.json"), &id)
	return ed25519.NewKeyFromSeed(id.Key)
}

// lastRun reads what the server of a directory remembers of another one.
func lastRun(t *testing.T, dir string, node uint64) (generation, run, began uint64) {
	t.Helper()
	var runs struct {
		Nodes map[uint64]struct {
			Generation uint64 `json:"generation"`
			Run        uint64 `json:"run,string"`
			Began      uint64 `json:"began"`
		} `json:"nodes"`
	}
	readJSON(t, filepath.Join(dir, "runs.json"), &runs)
	r := runs.Nodes[node]
	return r.Generation, r.Run, r.Began
}

func readJSON(t *testing.T, path string, into any) {
	t.Helper()
	b, err := os.ReadFile(path)
	if err == nil {
		err = json.Unmarshal(b, into)
	}
	if err != nil {
		t.Fatal(err)
	}
}
