package main

import (
	"strconv"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/proa-kv/proa/command"
	"github.com/proa-kv/proa/raftgroup"
	"github.com/proa-kv/proa/server"
)

// collector shows the node's numbers to Prometheus.
type collector struct {
	node  *raftgroup.Node
	srv   *server.Server
	peers *peers // nil: none
	tls   bool   // clients may speak TLS
}

// Describe lists no metric, which makes the collector an unchecked one: which metrics
// there are depends on what the node holds at a moment.
func (c *collector) Describe(chan<- *prometheus.Desc) {}

// sink sends metrics of one thing; label and name distinguish it from others.
type sink struct {
	ch          chan<- prometheus.Metric
	label, name string // "": there is one thing only
}

func (s sink) counter(metric, help string, value float64) {
	s.send(metric, help, prometheus.CounterValue, value)
}

func (s sink) gauge(metric, help string, value float64) {
	s.send(metric, help, prometheus.GaugeValue, value)
}

func (s sink) send(metric, help string, kind prometheus.ValueType, value float64) {
	var labels, names []string
	if s.label != "" {
		labels, names = []string{s.label}, []string{s.name}
	}
	s.ch <- prometheus.MustNewConstMetric(prometheus.NewDesc(metric, help, labels, nil), kind, value, names...)
}

// Collect reads the metrics.
func (c *collector) Collect(ch chan<- prometheus.Metric) {
	for op, n := range c.srv.Requests() {
		sink{ch, "op", op}.counter("proa_requests_total", "Requests received, by operation.", float64(n))
	}
	for status, n := range c.srv.Errors() {
		sink{ch, "status", status}.counter("proa_request_errors_total", "Errors returned to clients, by status. Operations inside a BATCH or TXN are counted individually.", float64(n))
	}
	s, n := c.node.Status(), sink{ch: ch}
	n.counter("proa_redis_commands_total", "Redis protocol commands received. The native requests they are translated to also count in proa_requests_total.", float64(c.srv.RedisCommands()))
	if c.tls {
		t := c.srv.TLSStatus()
		n.gauge("proa_tls_connections", "Client connections over TLS.", float64(t.Connections))
		n.gauge("proa_tls_handshakes", "TLS handshakes in progress.", float64(t.Handshakes))
		n.counter("proa_tls_handshakes_total", "TLS handshakes completed.", float64(t.Accepted))
		for reason, failed := range t.Failed {
			sink{ch, "reason", reason}.counter("proa_tls_handshake_failures_total", "TLS handshakes that failed, by reason.", float64(failed))
		}
	}
	n.counter("proa_log_fsyncs_total", "Fsyncs of the Raft log.", float64(s.Fsyncs))
	n.counter("proa_log_fsync_seconds_total", "Time spent writing and fsyncing the Raft log.", s.FsyncMicros*float64(s.Fsyncs)/1e6)
	n.gauge("proa_log_bytes", "Size of the live Raft log.", float64(s.LogBytes))
	n.gauge("proa_log_disk_slow", "1 while the log disk is slow and this node therefore leads no shards.", yesOrNo(s.Slow))
	n.gauge("proa_clock_off", "1 while the wall clock differs too much from the other nodes' clocks and this node therefore leads no shards.", yesOrNo(s.ClockOff))
	n.gauge("proa_clock_offset_seconds", "Offset of the wall clock from the other nodes' clocks or, on a single node, from the elapsed time; positive if ahead.", float64(s.ClockOffset)/1000)
	n.gauge("proa_state_damaged_files", "State files that are known to be damaged and are still in use.", float64(len(s.Damage)))
	for _, sh := range s.Shards {
		n := sink{ch, "shard", nodeShardName(c.node, sh.Shard)}
		if sh.Held || sh.Damaged {
			n.gauge("proa_shard_damaged", "1 if the state of this node's replica of the shard is damaged.", yesOrNo(sh.Damaged))
		}
		if sh.Held {
			n.counter("proa_shard_applied_index", "Index of the last log entry applied to the shard's state.", float64(sh.Applied))
			n.gauge("proa_shard_serving", "1 if this node leads the shard.", yesOrNo(sh.Serving))
			n.gauge("proa_shard_leader", "Node that leads the shard as known to this node; 0 if unknown.", float64(sh.Leader))
			n.gauge("proa_shard_term", "Raft term of this node's replica of the shard.", float64(sh.Term))
		}
	}
	if c.peers == nil {
		return
	}
	n.counter("proa_peer_reports_bad_total", "Invalid status reports received from peers.", float64(c.node.BadReports()))
	for _, p := range c.peers.Peers() {
		n := sink{ch, "peer", strconv.FormatUint(p.Node, 10)}
		n.gauge("proa_peer_connected", "1 while there is a connection to the peer.", yesOrNo(p.Connected))
		n.counter("proa_peer_sent_bytes_total", "Bytes sent to the peer.", float64(p.BytesOut))
		n.counter("proa_peer_received_bytes_total", "Bytes received from the peer.", float64(p.BytesIn))
		n.gauge("proa_peer_queued_bytes", "Bytes waiting to be sent to the peer.", float64(p.QueuedBytes))
		n.counter("proa_peer_dropped_total", "Messages to the peer that were dropped.", float64(p.Dropped))
		n.counter("proa_peer_reports_dropped_total", "Status reports to the peer that were dropped.", float64(p.DroppedReports))
	}
}

// nodeShardName is the name of a shard as node numbers it: the meta group last.
func nodeShardName(node *raftgroup.Node, shard int) string {
	if shard == node.Shards() {
		shard = command.MetaShard
	}
	return shardName(shard)
}

// yesOrNo is a yes or no as a metric.
func yesOrNo(yes bool) float64 {
	if yes {
		return 1
	}
	return 0
}
