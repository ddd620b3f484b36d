package server

import (
	"encoding/binary"
	"encoding/json"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/proa-kv/proa/protocol"
)

// opsMax is more than the opcodes, of which 0 stands for unknown ones.
const opsMax = 32

// opCounts counts one thread's requests. Each thread writes its own, so the
// counters' cache lines are not shared; readers add them up.
type opCounts struct {
	ops   [opsMax]atomic.Uint64 // by opcode
	calls [256]atomic.Uint64    // of another protocol's commands, by its own number; 0 for unknown ones
	_     [64]byte
}

func (o *opCounts) add(op protocol.Opcode) {
	if !op.Known() {
		op = 0
	}
	o.ops[op].Add(1)
}

// take takes off one that add has counted.
func (o *opCounts) take(op protocol.Opcode) { o.ops[op].Add(^uint64(0)) }

// opSums are what opCounts have counted.
type opSums struct {
	ops   [opsMax]uint64
	calls [256]uint64
}

func (s *opSums) add(o *opCounts) {
	for k := range o.ops {
		s.ops[k] += o.ops[k].Load()
	}
	for id := range o.calls {
		s.calls[id] += o.calls[id].Load()
	}
}

// counters are the server's, over all threads.
type counters struct {
	accepted  atomic.Uint64
	rejected  atomic.Uint64 // for max connections
	refused   atomic.Uint64 // closed with an error frame
	pauses    atomic.Uint64
	bytesIn   atomic.Uint64
	forwarded atomic.Uint64 // requests and parts of requests sent to other nodes
	bytesOut  atomic.Uint64
	errors    errorCounts // replies with an error, by status

	mu     sync.Mutex
	counts []*opCounts
	past   opSums // of threads that have ended
}

func (c *counters) register(o *opCounts) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.counts = append(c.counts, o)
}

func (c *counters) unregister(o *opCounts) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.counts = slices.DeleteFunc(c.counts, func(x *opCounts) bool { return x == o })
	c.past.add(o)
}

// sums are the counts of all threads.
func (c *counters) sums() opSums {
	c.mu.Lock()
	defer c.mu.Unlock()
	sum := c.past
	for _, o := range c.counts {
		sum.add(o)
	}
	return sum
}

// errorCounts counts the errors that clients are sent, by status: whole replies and
// outcomes inside BATCH and TXN, over both protocols.
type errorCounts [256]atomic.Uint64

// add counts a status, unless it carries a result.
func (n *errorCounts) add(s protocol.Status) {
	if !s.CarriesResult() {
		n[s].Add(1)
	}
}

// addResults counts the outcomes of several operations, as appendResults has encoded
// them.
func (n *errorCounts) addResults(b []byte) {
	for b = b[4:]; len(b) > 0; b = b[5+binary.LittleEndian.Uint32(b[1:]):] {
		n.add(protocol.Status(b[0]))
	}
}

// byStatus returns what has been counted, by the status's name.
func (n *errorCounts) byStatus() map[string]uint64 {
	m := make(map[string]uint64)
	for s := range n {
		if k := n[s].Load(); k > 0 {
			m[protocol.Status(s).String()] += k
		}
	}
	return m
}

// sum returns how many have been counted.
func (n *errorCounts) sum() (sum uint64) {
	for s := range n {
		sum += n[s].Load()
	}
	return sum
}

// Status is the network layer's part of a STATUS reply.
type Status struct {
	Version     string            `json:"version"`
	UptimeMS    int64             `json:"uptime_ms"`
	CPUMicros   int64             `json:"cpu_us"`       // of the process, user and system; 0 where the platform does not report it
	MemoryBytes int64             `json:"memory_bytes"` // that the process has of the machine's memory
	Listening   []string          `json:"listening"`
	Connections int               `json:"connections"`
	Accepted    uint64            `json:"accepted"`
	Rejected    uint64            `json:"rejected"`
	Refused     uint64            `json:"refused"`
	Pauses      uint64            `json:"pauses"`
	BytesIn     uint64            `json:"bytes_in"`
	BytesOut    uint64            `json:"bytes_out"`
	QueuedReads int               `json:"queued_reads"`
	Forwarded   uint64            `json:"forwarded"`    // requests, and parts of requests, sent to other nodes
	PeerStreams int               `json:"peer_streams"` // connections on which other nodes forward
	HeldBytes   int64             `json:"held_bytes"`   // by reads that wait for a majority or for other nodes
	Draining    bool              `json:"draining"`
	Redis       uint64            `json:"redis_commands"` // commands of the Redis protocol; the requests they came to count as requests
	Requests    map[string]uint64 `json:"requests"`
	Errors      uint64            `json:"errors"` // sent to clients; operations inside a BATCH or TXN count by themselves
	// ErrorsByStatus is the same, by the status's name.
	ErrorsByStatus map[string]uint64 `json:"errors_by_status"`
}

// Calls returns how many commands of another protocol have come in, by the number
// under which Processor.Count has counted them.
func (s *Server) Calls() [256]uint64 { return s.counters.sums().calls }

// RedisCommands returns how many commands of the Redis protocol have come in.
func (s *Server) RedisCommands() (sum uint64) {
	for _, n := range s.Calls() {
		sum += n
	}
	return sum
}

// Requests returns how many requests of each operation have come in, by the
// operation's name.
func (s *Server) Requests() map[string]uint64 {
	byOp := make(map[string]uint64)
	for op, n := range s.counters.sums().ops {
		if n > 0 {
			byOp[protocol.Opcode(op).String()] = n
		}
	}
	return byOp
}

// Errors returns how many errors clients were sent, by the status's name. An
// operation inside a BATCH or TXN counts by itself.
func (s *Server) Errors() map[string]uint64 { return s.counters.errors.byStatus() }

// Status returns the network layer's figures.
func (s *Server) Status() Status {
	c := &s.counters
	st := Status{
		Version: s.cfg.Version, UptimeMS: time.Since(s.started).Milliseconds(), CPUMicros: processCPU().Microseconds(), MemoryBytes: usedMemory(), Connections: s.conns.len(),
		Accepted: c.accepted.Load(), Rejected: c.rejected.Load(), Refused: c.refused.Load(), Pauses: c.pauses.Load(),
		BytesIn: c.bytesIn.Load(), BytesOut: c.bytesOut.Load(), QueuedReads: s.jobs.len(),
		Forwarded: c.forwarded.Load(), PeerStreams: s.forwarded.len(), HeldBytes: s.admission.held.Load(), Draining: s.draining.Load(),
	}
	for _, a := range s.addrs {
		st.Listening = append(st.Listening, a.Network()+"://"+a.String())
	}
	for _, a := range s.translated {
		st.Listening = append(st.Listening, a.scheme+"://"+a.String())
	}
	st.Redis = s.RedisCommands()
	st.Requests, st.Errors, st.ErrorsByStatus = s.Requests(), s.counters.errors.sum(), s.Errors()
	return st
}

// StatusJSON describes server and node for operators: what a STATUS request is
// answered with.
func (s *Server) StatusJSON() ([]byte, error) {
	node, err := s.backend.StatusJSON()
	if err != nil {
		return nil, err
	}
	return json.Marshal(struct {
		Server Status          `json:"server"`
		Node   json.RawMessage `json:"node"`
	}{s.Status(), node})
}
