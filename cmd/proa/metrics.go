package main

import (
	"fmt"

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
}

var (
	descRequests = prometheus.NewDesc("proa_requests_total", "Requests received, by operation.", []string{"op"}, nil)
	descRedis    = prometheus.NewDesc("proa_redis_commands_total", "Redis protocol commands received. The native requests they are translated to also count in proa_requests_total.", nil, nil)
	descErrors   = prometheus.NewDesc("proa_request_errors_total", "Errors returned to clients, by status. Operations inside a BATCH or TXN are counted individually.", []string{"status"}, nil)
	descFsyncs   = prometheus.NewDesc("proa_log_fsyncs_total", "Fsyncs of the Raft log.", nil, nil)
	descFsyncSec = prometheus.NewDesc("proa_log_fsync_seconds_total", "Time spent writing and fsyncing the Raft log.", nil, nil)
	descLogBytes = prometheus.NewDesc("proa_log_bytes", "Size of the live Raft log.", nil, nil)
	descApplied  = prometheus.NewDesc("proa_shard_applied_index", "Index of the last log entry applied to the shard's state.", []string{"shard"}, nil)
	descServing  = prometheus.NewDesc("proa_shard_serving", "1 if this node leads the shard.", []string{"shard"}, nil)
	descLeader   = prometheus.NewDesc("proa_shard_leader", "Node that leads the shard as known to this node; 0 if unknown.", []string{"shard"}, nil)
	descTerm     = prometheus.NewDesc("proa_shard_term", "Raft term of this node's replica of the shard.", []string{"shard"}, nil)
	descSlow     = prometheus.NewDesc("proa_log_disk_slow", "1 while the log disk is slow and this node therefore leads no shards.", nil, nil)
	descClockOff = prometheus.NewDesc("proa_clock_off", "1 while the wall clock differs too much from the other nodes' clocks and this node therefore leads no shards.", nil, nil)
	descDamaged  = prometheus.NewDesc("proa_state_damaged_files", "State files that are known to be damaged and are still in use.", nil, nil)
	descBroken   = prometheus.NewDesc("proa_shard_damaged", "1 if the state of this node's replica of the shard is damaged.", []string{"shard"}, nil)
	descClock    = prometheus.NewDesc("proa_clock_offset_seconds", "Offset of the wall clock from the other nodes' clocks or, on a single node, from the elapsed time; positive if ahead.", nil, nil)
	descPeerUp   = prometheus.NewDesc("proa_peer_connected", "1 while there is a connection to the peer.", []string{"peer"}, nil)
	descPeerOut  = prometheus.NewDesc("proa_peer_sent_bytes_total", "Bytes sent to the peer.", []string{"peer"}, nil)
	descPeerIn   = prometheus.NewDesc("proa_peer_received_bytes_total", "Bytes received from the peer.", []string{"peer"}, nil)
	descPeerWait = prometheus.NewDesc("proa_peer_queued_bytes", "Bytes waiting to be sent to the peer.", []string{"peer"}, nil)
	descPeerLost = prometheus.NewDesc("proa_peer_dropped_total", "Messages to the peer that were dropped.", []string{"peer"}, nil)
	descReports  = prometheus.NewDesc("proa_peer_reports_dropped_total", "Status reports to the peer that were dropped.", []string{"peer"}, nil)
	descNonsense = prometheus.NewDesc("proa_peer_reports_bad_total", "Invalid status reports received from peers.", nil, nil)
)

// Describe lists the metrics.
func (c *collector) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{descRequests, descRedis, descErrors, descFsyncs, descFsyncSec, descLogBytes, descApplied, descServing,
		descLeader, descTerm, descSlow, descClockOff, descDamaged, descBroken, descClock, descPeerUp, descPeerOut, descPeerIn, descPeerWait, descPeerLost, descReports, descNonsense} {
		ch <- d
	}
}

// Collect reads them.
func (c *collector) Collect(ch chan<- prometheus.Metric) {
	for op, n := range c.srv.Requests() {
		ch <- prometheus.MustNewConstMetric(descRequests, prometheus.CounterValue, float64(n), op)
	}
	ch <- prometheus.MustNewConstMetric(descRedis, prometheus.CounterValue, float64(c.srv.RedisCommands()))
	for status, n := range c.srv.Errors() {
		ch <- prometheus.MustNewConstMetric(descErrors, prometheus.CounterValue, float64(n), status)
	}
	s := c.node.Status()
	ch <- prometheus.MustNewConstMetric(descFsyncs, prometheus.CounterValue, float64(s.Fsyncs))
	ch <- prometheus.MustNewConstMetric(descFsyncSec, prometheus.CounterValue, s.FsyncMicros*float64(s.Fsyncs)/1e6)
	ch <- prometheus.MustNewConstMetric(descLogBytes, prometheus.GaugeValue, float64(s.LogBytes))
	ch <- prometheus.MustNewConstMetric(descSlow, prometheus.GaugeValue, yesOrNo(s.Slow))
	ch <- prometheus.MustNewConstMetric(descClockOff, prometheus.GaugeValue, yesOrNo(s.ClockOff))
	ch <- prometheus.MustNewConstMetric(descClock, prometheus.GaugeValue, float64(s.ClockOffset)/1000)
	ch <- prometheus.MustNewConstMetric(descDamaged, prometheus.GaugeValue, float64(len(s.Damage)))
	for _, sh := range s.Shards {
		shard := nodeShardName(c.node, sh.Shard)
		if sh.Held || sh.Damaged {
			ch <- prometheus.MustNewConstMetric(descBroken, prometheus.GaugeValue, yesOrNo(sh.Damaged), shard)
		}
		if !sh.Held {
			continue
		}
		ch <- prometheus.MustNewConstMetric(descApplied, prometheus.CounterValue, float64(sh.Applied), shard)
		ch <- prometheus.MustNewConstMetric(descServing, prometheus.GaugeValue, yesOrNo(sh.Serving), shard)
		ch <- prometheus.MustNewConstMetric(descLeader, prometheus.GaugeValue, float64(sh.Leader), shard)
		ch <- prometheus.MustNewConstMetric(descTerm, prometheus.GaugeValue, float64(sh.Term), shard)
	}
	c.collectPeers(ch)
}

// nodeShardName is the name of a shard as node numbers it: the meta group last.
func nodeShardName(node *raftgroup.Node, shard int) string {
	if shard == node.Shards() {
		shard = command.MetaShard
	}
	return shardName(shard)
}

func (c *collector) collectPeers(ch chan<- prometheus.Metric) {
	if c.peers == nil {
		return
	}
	ch <- prometheus.MustNewConstMetric(descNonsense, prometheus.CounterValue, float64(c.node.BadReports()))
	for _, p := range c.peers.Peers() {
		peer := fmt.Sprint(p.Node)
		ch <- prometheus.MustNewConstMetric(descPeerUp, prometheus.GaugeValue, yesOrNo(p.Connected), peer)
		ch <- prometheus.MustNewConstMetric(descPeerOut, prometheus.CounterValue, float64(p.BytesOut), peer)
		ch <- prometheus.MustNewConstMetric(descPeerIn, prometheus.CounterValue, float64(p.BytesIn), peer)
		ch <- prometheus.MustNewConstMetric(descPeerWait, prometheus.GaugeValue, float64(p.QueuedBytes), peer)
		ch <- prometheus.MustNewConstMetric(descPeerLost, prometheus.CounterValue, float64(p.Dropped), peer)
		ch <- prometheus.MustNewConstMetric(descReports, prometheus.CounterValue, float64(p.DroppedReports), peer)
	}
}

// yesOrNo is a yes or no as a metric.
func yesOrNo(yes bool) float64 {
	if yes {
		return 1
	}
	return 0
}
