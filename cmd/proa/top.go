package main

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strconv"
	"sync"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"github.com/proa-kv/proa/client"
	"github.com/proa-kv/proa/command"
	"github.com/proa-kv/proa/internal/render"
)

func topCommand(a *app) *cobra.Command {
	var interval time.Duration
	var count int
	order := "node"
	cmd := newCommand("top", cobra.NoArgs, func(cmd *cobra.Command, _ []string) error {
		switch {
		case interval < 100*time.Millisecond:
			return usagef("--interval %v: must be at least 100ms", interval)
		case count < 0:
			return usagef("--count must not be negative")
		case !slices.ContainsFunc(topOrders, func(o topOrder) bool { return o.name == order }):
			return usagef("--sort %s: choose node, reads, writes, rtt, fsync, cpu or mem", order)
		}
		t := &top{app: a, interval: interval, count: count, order: order, look: render.LookOf(a.Out), nodes: map[uint64]*topNode{}}
		defer t.close()
		return t.run(cmd.Context())
	})
	f := cmd.Flags()
	f.DurationVarP(&interval, "interval", "i", time.Second, "`time` between two refreshes")
	f.IntVarP(&count, "count", "c", 0, "`number` of refreshes; 0: until interrupted")
	f.StringVar(&order, "sort", order, "`column` to sort by: node, reads, writes, rtt, fsync, cpu or mem")
	return cmd
}

// top shows what the nodes are doing.
type top struct {
	app      *app
	interval time.Duration
	count    int
	order    string
	look     render.Look
	nodes    map[uint64]*topNode
}

// topNode is what is known of one node between two pictures.
type topNode struct {
	address string
	client  *client.Client
	at      time.Time   // of last
	last    *nodeSample // nil: none since it was reached last
}

// nodeSample is a server's own status; counters grow from its start.
type nodeSample struct {
	Server struct {
		UptimeMS    int64             `json:"uptime_ms"`
		CPUMicros   int64             `json:"cpu_us"`
		MemoryBytes float64           `json:"memory_bytes"`
		Connections int               `json:"connections"`
		Requests    map[string]uint64 `json:"requests"`
	} `json:"server"`
}

// topRow is a node's part of a picture. Nil figures are not known.
type topRow struct {
	ID       uint64   `json:"id"`
	State    string   `json:"state"`
	Leaders  *int     `json:"leaders"`
	Replicas *int     `json:"replicas"`
	Reads    *float64 `json:"reads_per_s"`
	Writes   *float64 `json:"writes_per_s"`
	RTT      *float64 `json:"rtt_us"`
	Fsync    *float64 `json:"fsync_us"`
	CPU      *float64 `json:"cpu_percent"` // 100 is one core
	Memory   *float64 `json:"memory_bytes"`
	Conns    *int     `json:"connections"`
}

// topPicture is the content of the screen at one moment.
type topPicture struct {
	Time    time.Time `json:"time"`
	Cluster string    `json:"cluster"`
	Health  string    `json:"health"`
	Nodes   []topRow  `json:"nodes"`

	status *command.ClusterStatus
}

// topOrder is what rows can be sorted by.
type topOrder struct {
	key    byte // of the keyboard
	name   string
	column string
	of     func(*topRow) *float64 // the largest first; nil: by number
}

var topOrders = []topOrder{
	{'n', "node", "NODE", nil},
	{'r', "reads", "READ/S", func(r *topRow) *float64 { return r.Reads }},
	{'w', "writes", "WRITE/S", func(r *topRow) *float64 { return r.Writes }},
	{'l', "rtt", "RTT", func(r *topRow) *float64 { return r.RTT }},
	{'f', "fsync", "FSYNC", func(r *topRow) *float64 { return r.Fsync }},
	{'c', "cpu", "CPU", func(r *topRow) *float64 { return r.CPU }},
	{'m', "mem", "MEM", func(r *topRow) *float64 { return r.Memory }},
}

// sortRows sorts by one of topOrders; rows without the figure are last.
func sortRows(rows []topRow, order string) {
	i := slices.IndexFunc(topOrders, func(o topOrder) bool { return o.name == order })
	slices.SortStableFunc(rows, func(a, b topRow) int {
		if of := topOrders[i].of; of != nil {
			x, y := of(&a), of(&b)
			switch {
			case x != nil && y != nil && *x != *y:
				return cmp.Compare(*y, *x)
			case x != nil && y == nil:
				return -1
			case x == nil && y != nil:
				return 1
			}
		}
		return cmp.Compare(a.ID, b.ID)
	})
}

// run shows pictures until ctx ends, or the user does, or all are shown. On a
// terminal it has the whole of that meanwhile.
func (t *top) run(ctx context.Context) error {
	var keys <-chan byte
	if t.look.Columns > 0 {
		var leave func()
		keys, leave = takeTerminal(t.app)
		defer leave()
	}
	tick := time.NewTicker(t.interval)
	defer tick.Stop()
	var p *topPicture
	var failure error
	for shown := 0; ; {
		if now, err := t.picture(ctx); ctx.Err() != nil {
			return nil
		} else if p, failure = now, err; err != nil && !unreached(err) {
			return err
		}
		// The first picture has no rates yet; a terminal shows it all the same.
		if failure != nil || t.look.Columns > 0 || p.rated() {
			shown++
			if err := t.show(p, failure); err != nil {
				return err
			}
		}
		if t.count > 0 && shown >= t.count {
			return nil
		}
		for waiting := true; waiting; {
			select {
			case <-ctx.Done():
				return nil
			case <-tick.C:
				waiting = false
			case key, ok := <-keys:
				if !ok {
					keys = nil
				}
				if ok && (key == 'q' || key == 3 || key == 4) { // also Control-C and Control-D
					return nil
				}
				if i := slices.IndexFunc(topOrders, func(o topOrder) bool { return o.key == key }); i >= 0 {
					t.order = topOrders[i].name
					if err := t.show(p, failure); err != nil {
						return err
					}
				}
			}
		}
	}
}

// unreached reports whether an error says that no server answers, so that to ask
// again may help.
func unreached(err error) bool {
	return isType[*client.UnavailableError](err) || errors.Is(err, context.DeadlineExceeded)
}

// rated reports whether there is a rate of some node, or none that could have one.
func (p *topPicture) rated() bool {
	up := func(r topRow) bool { return r.State == command.NodeUp && r.RTT != nil }
	return slices.ContainsFunc(p.Nodes, func(r topRow) bool { return r.Reads != nil }) || !slices.ContainsFunc(p.Nodes, up)
}

// picture asks all nodes.
func (t *top) picture(ctx context.Context) (*topPicture, error) {
	s, err := t.app.clusterStatus(ctx)
	if err != nil {
		return nil, err
	}
	p := &topPicture{Time: time.Now(), Cluster: s.Cluster, Health: diagnose(s).state, Nodes: make([]topRow, len(s.Nodes)), status: s}
	var asking sync.WaitGroup
	for i := range s.Nodes {
		n := &s.Nodes[i]
		r := &p.Nodes[i]
		r.ID, r.State = n.ID, n.State
		if !n.Outdated() {
			r.Leaders, r.Replicas, r.Fsync = &n.Leaders, &n.Replicas, &n.FsyncMicros
		}
		node := t.nodes[n.ID]
		if node == nil || node.address != n.Client {
			node.forget()
			node = &topNode{address: n.Client}
			t.nodes[n.ID] = node
		}
		if n.State != command.NodeUp || n.Client == "" {
			node.forget()
			continue
		}
		asking.Go(func() { node.ask(ctx, t, r) })
	}
	asking.Wait()
	return p, nil
}

// forget closes the connection to a node.
func (n *topNode) forget() {
	if n != nil && n.client != nil {
		n.client.Close()
		n.client, n.last = nil, nil
	}
}

func (t *top) close() {
	for _, n := range t.nodes {
		n.forget()
	}
}

// ask fills in a node's own status, and what its counters have grown by.
func (n *topNode) ask(ctx context.Context, t *top, r *topRow) {
	ctx, cancel := context.WithTimeout(ctx, max(t.interval, time.Second))
	defer cancel()
	if n.client == nil {
		c, err := connectNode(ctx, t.app, n.address)
		if err != nil {
			return
		}
		n.client = c
	}
	raw, err := n.client.Status(ctx)
	if err != nil {
		n.forget()
		return
	}
	now, s := time.Now(), new(nodeSample)
	if json.Unmarshal(raw, s) != nil {
		return
	}
	if rtt, err := n.client.Ping(ctx); err == nil {
		us := float64(rtt) / float64(time.Microsecond)
		r.RTT = &us
	}
	x := &s.Server
	r.Conns = &x.Connections
	if x.MemoryBytes > 0 {
		r.Memory = &x.MemoryBytes
	}
	if n.last != nil && x.UptimeMS >= n.last.Server.UptimeMS { // otherwise it has started anew
		r.rates(&n.last.Server.Requests, &x.Requests, now.Sub(n.at))
		cpu := float64(x.CPUMicros-n.last.Server.CPUMicros) / float64(now.Sub(n.at).Microseconds()) * 100
		r.CPU = &cpu
	}
	n.last, n.at = s, now
}

// readOps are the requests that change nothing; those of none of the two kinds
// are about the server.
var (
	readOps  = []string{"GET", "MGET", "SCAN", "EXISTS"}
	otherOps = []string{"HELLO", "PING", "ROUTES", "STATUS", "ADMIN"}
)

func (r *topRow) rates(before, now *map[string]uint64, past time.Duration) {
	reads, writes := 0.0, 0.0
	for op, n := range *now {
		rate := float64(n-(*before)[op]) / past.Seconds()
		switch {
		case slices.Contains(readOps, op):
			reads += rate
		case !slices.Contains(otherOps, op):
			writes += rate
		}
	}
	r.Reads, r.Writes = &reads, &writes
}

// show shows a picture, or why there is none.
func (t *top) show(p *topPicture, failure error) error {
	a := t.app
	if t.look.Columns == 0 && failure != nil {
		a.showError(failure)
		return nil
	}
	if a.Form != render.AsTable {
		sortRows(p.Nodes, t.order)
		return a.WriteJSON(p)
	}
	l := t.look.Resized(a.Out)
	var b bytes.Buffer
	if failure != nil {
		fmt.Fprintf(&b, "%s\nTrying again every %v.\n", l.WrapLines(describe(failure, a)), t.interval)
	} else if err := t.draw(&b, p, l); err != nil {
		return err
	}
	if l.Columns > 0 {
		_, err := a.Out.Write([]byte(l.Frame(b.String())))
		return err
	}
	_, err := a.Out.Write(append(b.Bytes(), '\n'))
	return err
}

// draw draws a picture.
func (t *top) draw(b *bytes.Buffer, p *topPicture, l render.Look) error {
	fmt.Fprintf(b, "%s  cluster %s, seen by node %d", p.Time.Format(time.TimeOnly), render.OneLine(p.Cluster), p.status.Asked)
	if l.Columns > 0 {
		b.WriteString(l.Paint(render.Dim, fmt.Sprintf(", every %v", t.interval)))
	}
	fmt.Fprintf(b, "\n%s\n", diagnose(p.status).text(l))
	sortRows(p.Nodes, t.order)
	if err := t.table(b, p, l); err != nil {
		return err
	}
	if l.Columns > 0 {
		fmt.Fprintf(b, "\n%s\n", l.Paint(render.Dim, "sort: n node, r reads, w writes, l rtt, f fsync, c cpu, m mem   q quit"))
	}
	return nil
}

func (t *top) table(b *bytes.Buffer, p *topPicture, l render.Look) error {
	header := []string{"NODE", "STATE", "LEADS", "READ/S", "WRITE/S", "RTT", "FSYNC", "CPU", "MEM", "CONNS"}
	for _, o := range topOrders {
		if i := slices.Index(header, o.column); o.name == t.order && l.Columns > 0 {
			header[i] += "↓"
			if o.of == nil {
				header[i] = o.column + "↑"
			}
		}
	}
	table := stateTable(&render.Output{Out: b}, l, 1, header...)
	reads, writes, clients := 0.0, 0.0, 0
	for i := range p.Nodes {
		r := &p.Nodes[i]
		leads := "-"
		if r.Leaders != nil {
			leads = fmt.Sprintf("%d/%d", *r.Leaders, *r.Replicas)
		}
		memory, conns := "-", "-"
		if r.Memory != nil {
			memory = render.Bytes(int64(*r.Memory))
		}
		if r.Conns != nil {
			conns = strconv.Itoa(*r.Conns)
			clients += *r.Conns
		}
		reads, writes = reads+zeroIfNil(r.Reads), writes+zeroIfNil(r.Writes)
		table.Row(strconv.FormatUint(r.ID, 10), r.State, leads, figure("%.0f", r.Reads), figure("%.0f", r.Writes),
			render.Micros(r.RTT), render.Micros(r.Fsync), figure("%.0f%%", r.CPU), memory, conns)
	}
	if len(p.Nodes) > 1 && p.rated() {
		table.Row("all", "", "", figure("%.0f", &reads), figure("%.0f", &writes), "", "", "", "", strconv.Itoa(clients))
	}
	return table.Flush()
}

func zeroIfNil(f *float64) float64 {
	if f == nil {
		return 0
	}
	return *f
}

// figure shows a number, or a dash where it is not known.
func figure(format string, f *float64) string {
	if f == nil {
		return "-"
	}
	return fmt.Sprintf(format, *f)
}

// connectNode connects to one node alone.
func connectNode(ctx context.Context, a *app, address string) (*client.Client, error) {
	cfg, err := a.clientConfig(ctx)
	if err != nil {
		return nil, err
	}
	cfg.Endpoints, cfg.ForwardOnly, cfg.Name = []string{address}, true, "proa top"
	return client.New(ctx, cfg)
}

// takeTerminal has the terminal be the program's alone until leave is called: the
// screen before is kept, and keys come as they are pressed. keys is nil where they
// cannot be had; then Control-C ends the program as usual.
func takeTerminal(a *app) (keys <-chan byte, leave func()) {
	_ = a.Printf("\x1b[?1049h\x1b[?25l\x1b[2J") // another screen, no cursor
	restore := func() {}
	if in, ok := a.in.(*os.File); ok && term.IsTerminal(int(in.Fd())) {
		if before, err := term.MakeRaw(int(in.Fd())); err == nil {
			restore = func() { _ = term.Restore(int(in.Fd()), before) }
			pressed := make(chan byte)
			keys = pressed
			go readKeys(in, pressed) // ends with the process
		}
	}
	return keys, func() {
		restore()
		_ = a.Printf("\x1b[?25h\x1b[?1049l")
	}
}

func readKeys(in io.Reader, keys chan<- byte) {
	defer close(keys)
	b := make([]byte, 1)
	for {
		if _, err := in.Read(b); err != nil {
			return
		}
		keys <- b[0]
	}
}
