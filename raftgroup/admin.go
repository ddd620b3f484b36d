package raftgroup

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/proa-kv/proa/command"
	"github.com/proa-kv/proa/raftgroup/call"
	"github.com/proa-kv/proa/raftgroup/datadir"
	"github.com/proa-kv/proa/raftgroup/placement"
)

// admin carries out the requests of operators.
type admin struct {
	node *Node

	checksums checksumTurns
	marks     []marks // by shard
}

type adminCall struct {
	Verb string          `json:"verb"`
	Args json.RawMessage `json:"args"`
}

type checksumArgs struct {
	Shard int    `json:"shard"`
	Index uint64 `json:"index"`
}

// Admin carries out an administrative request on whichever node can. Verbs,
// arguments and answers are those of package command. Errors wrap
// command.ErrInvalid, ErrRefused, ErrTimeout, ErrNotLeader or ErrNoQuorum.
func (ad *admin) Admin(ctx context.Context, verb string, args []byte) ([]byte, error) {
	if ad.node.departed() {
		return nil, fmt.Errorf("%w: node %d has left the cluster; send the request to another node", command.ErrNotLeader, ad.node.id)
	}
	if len(args) == 0 {
		args = []byte("{}")
	}
	if !json.Valid(args) {
		return nil, fmt.Errorf("%w: the arguments of %s are not valid JSON", command.ErrInvalid, verb)
	}
	if verb == command.AdminStatus {
		return json.Marshal(ad.node.ClusterStatus())
	}
	where, err := ad.adminNode(verb, args)
	if err != nil {
		return nil, err
	}
	if verb == command.AdminUserSet {
		if args, err = ad.hashPasswords(args); err != nil {
			return nil, err
		}
	}
	if where == ad.node.id {
		return ad.adminHere(ctx, verb, args)
	}
	body, err := json.Marshal(adminCall{verb, args})
	if err != nil {
		return nil, err
	}
	reply, err := ad.call(ctx, where, call.Admin, body)
	if errors.Is(err, call.ErrNotAsked) {
		return nil, fmt.Errorf("%w: node %d, which must carry out this request, cannot be reached now; try again", command.ErrNotLeader, where)
	}
	return reply, err
}

// departed reports whether this node has been removed from the cluster. The
// replica of the meta group is the last that it gives up, so what it has
// learned there ends with its removal.
func (ms *members) departed() bool {
	m := ms.cmap.Load()
	if !m.Begun() || ms.node.views[ms.node.meta()].Held.Load() {
		return false
	}
	row, ok := m.Node(ms.node.id)
	return ok && (row.Removing || row.Removed)
}

// adminNode returns the node that can carry out a request.
func (ad *admin) adminNode(verb string, args []byte) (uint64, error) {
	shard := ad.node.meta()
	switch verb {
	case command.AdminMemberAdd, command.AdminMemberRemove, command.AdminMemberDrain, command.AdminMemberToken, command.AdminShardMove,
		command.AdminUserList, command.AdminUserSet, command.AdminUserRemove, command.AdminRoleSet, command.AdminRoleRemove:
	case command.AdminTransfer, command.AdminChecksum:
		var a command.ShardArgs
		if err := parseArgs(args, &a); err != nil {
			return 0, err
		}
		var err error
		if shard, err = ad.shardArg(a.Shard); err != nil {
			return 0, err
		}
	case command.AdminSplitLeaders:
		return ad.node.id, nil
	default:
		return 0, fmt.Errorf("%w: unknown administrative request %q", command.ErrInvalid, verb)
	}
	if leader := ad.node.Leader(shard); leader != 0 {
		return leader, nil
	}
	if ad.node.views[shard].NoQuorum.Load() {
		return 0, fmt.Errorf("%w: %s has no leader; see \"proa status\" for nodes that are down", command.ErrNoQuorum, ad.node.shardName(shard))
	}
	if !ad.node.views[shard].Held.Load() {
		return 0, fmt.Errorf("%w: node %d holds no replica of %s and does not know who leads it now; try again, or ask another node", command.ErrNotLeader, ad.node.id, ad.node.shardName(shard))
	}
	return 0, fmt.Errorf("%w: %s has no leader at the moment; try again", command.ErrNotLeader, ad.node.shardName(shard))
}

func (ad *admin) adminHere(ctx context.Context, verb string, args []byte) ([]byte, error) {
	var done any
	var err error
	switch verb {
	case command.AdminMemberAdd, command.AdminMemberRemove, command.AdminMemberDrain:
		var a command.MemberArgs
		if err = parseArgs(args, &a); err == nil {
			done, err = ad.adminMember(ctx, verb, &a)
		}
	case command.AdminMemberToken:
		var a command.TokenArgs
		if err = parseArgs(args, &a); err == nil {
			done, err = ad.adminToken(ctx, &a)
		}
	case command.AdminShardMove, command.AdminTransfer, command.AdminChecksum:
		var a command.ShardArgs
		if err = parseArgs(args, &a); err != nil {
			break
		}
		var shard int
		if shard, err = ad.shardArg(a.Shard); err != nil {
			break
		}
		switch verb {
		case command.AdminShardMove:
			done, err = ad.adminMove(ctx, shard, &a)
		case command.AdminTransfer:
			done, err = ad.adminTransfer(ctx, shard, a.To)
		default:
			done, err = ad.adminChecksum(ctx, shard)
		}
	case command.AdminSplitLeaders:
		done, err = ad.adminSplit(ctx)
	case command.AdminUserList, command.AdminUserSet, command.AdminUserRemove, command.AdminRoleSet, command.AdminRoleRemove:
		done, err = ad.adminAccess(ctx, verb, args)
	default:
		err = fmt.Errorf("%w: unknown administrative request %q", command.ErrInvalid, verb)
	}
	if err != nil {
		return nil, err
	}
	return json.Marshal(done)
}

func parseArgs(args []byte, into any) error {
	if err := json.Unmarshal(args, into); err != nil {
		return fmt.Errorf("%w: arguments: %v", command.ErrInvalid, err)
	}
	return nil
}

func (ad *admin) shardArg(shard int) (int, error) {
	if shard == command.MetaShard {
		return ad.node.meta(), nil
	}
	if shard < 0 || shard >= ad.node.meta() {
		return 0, fmt.Errorf("%w: there is no shard %d; shards are numbered 0 to %d", command.ErrInvalid, shard, ad.node.meta()-1)
	}
	return shard, nil
}

// errNotBegun answers what needs the map before there is one.
var errNotBegun = fmt.Errorf("%w: the cluster is still being created; try again in a moment", command.ErrNotLeader)

// changeMeta is changeRows of one row. A change of no row changes nothing.
func (co *controller) changeMeta(ctx context.Context, work func(m *placement.Map) (placement.Change, error)) error {
	return co.changeRows(ctx, func(m *placement.Map) ([]placement.Change, error) {
		change, err := work(m)
		if err != nil || change.Key == "" {
			return nil, err
		}
		return []placement.Change{change}, nil
	})
}

// changeRows works out changes of the map and proposes them, again and again while
// others change the rows at the same time.
func (co *controller) changeRows(ctx context.Context, work func(m *placement.Map) ([]placement.Change, error)) error {
	for {
		m := co.node.cmap.Load()
		if !m.Begun() {
			return errNotBegun
		}
		changes, err := work(m)
		if err != nil || len(changes) == 0 {
			return err
		}
		done := make(chan metaOutcome, 1)
		if err := co.proposeMeta(m, changes, metaWaiter(done)); err != nil {
			return err
		}
		co.node.Kick()
		select {
		case <-ctx.Done():
			return fmt.Errorf("%w: the meta group did not answer in time; try again", command.ErrTimeout)
		case o := <-done:
			switch {
			case o.outcome == command.Dropped:
				return fmt.Errorf("%w: the meta group's leader has changed; try again", command.ErrNotLeader)
			case o.outcome != command.Applied:
				return fmt.Errorf("%w: the meta group did not answer in time; try again", command.ErrTimeout)
			case o.succeeded:
				return nil
			}
		}
	}
}

type metaOutcome struct {
	outcome   command.Outcome
	succeeded bool
}

type metaWaiter chan metaOutcome

// Complete passes the outcome on.
func (w metaWaiter) Complete(_ command.Tag, o command.Outcome, r *command.Result) {
	w <- metaOutcome{o, r != nil && r.Succeeded}
}

func (ad *admin) adminMember(ctx context.Context, verb string, a *command.MemberArgs) (any, error) {
	if a.Node == 0 || a.Node > placement.NodeMax {
		return nil, fmt.Errorf("%w: a node number must be from 1 to %d", command.ErrInvalid, uint64(placement.NodeMax))
	}
	message := ""
	err := ad.node.changeMeta(ctx, func(m *placement.Map) (change placement.Change, err error) {
		now := ad.node.clock.Boot()
		switch {
		case verb == command.AdminMemberAdd:
			message = fmt.Sprintf("node %d may join: start it with --node-id %d --join %s --join-token TOKEN; \"proa member token\" prints a token", a.Node, a.Node, ad.node.opt.PeerAddress)
			return placement.Expect(m, a.Node, a.Address)
		case verb == command.AdminMemberDrain:
			change, message, err = placement.Drain(m, a.Node, a.Undo)
		case a.Undo:
			change, message, err = placement.Keep(m, a.Node)
		default:
			change, message, err = placement.Remove(m, ad.node.reports(now), time.Duration(now), a.Node, a.Force)
		}
		return change, err
	})
	if err != nil {
		return nil, err
	}
	return command.Done{Message: message}, nil
}

// adminToken returns a join token that is valid for as long as is asked for: the one there
// is, or another one.
func (ad *admin) adminToken(ctx context.Context, a *command.TokenArgs) (command.JoinToken, error) {
	ttl := time.Duration(a.TTLMillis) * time.Millisecond
	switch {
	case a.TTLMillis == 0:
		ttl = command.TokenTTLDefault
	case a.TTLMillis > uint64(command.TokenTTLMax.Milliseconds()), ttl < command.TokenTTLMin:
		return command.JoinToken{}, fmt.Errorf("%w: a join token is valid for %v to %v", command.ErrInvalid, command.TokenTTLMin, command.TokenTTLMax)
	}
	t := command.JoinToken{Peer: ad.node.opt.PeerAddress}
	err := ad.node.changeMeta(ctx, func(m *placement.Map) (none placement.Change, err error) {
		now := ad.node.NowMillis()
		ends := now + uint64(ttl.Milliseconds())
		live := m.Cluster.JoinToken(now)
		switch {
		case a.Revoke:
			t.Token, t.ForMillis = "", 0
			return placement.SetToken(m, datadir.NewToken(), tokenOver), nil
		case a.New, live == "", m.Cluster.TokenEnds == 0: // one that never ends is replaced
			t.Token = datadir.NewToken()
		default:
			t.Token = live
			if m.Cluster.TokenEnds >= ends {
				t.ForMillis = m.Cluster.TokenEnds - now
				return none, nil
			}
		}
		t.ForMillis = uint64(ttl.Milliseconds())
		return placement.SetToken(m, t.Token, ends), nil
	})
	return t, err
}

func (ad *admin) adminMove(ctx context.Context, shard int, a *command.ShardArgs) (any, error) {
	err := ad.node.changeMeta(ctx, func(m *placement.Map) (placement.Change, error) {
		now := ad.node.clock.Boot()
		return placement.Move(m, ad.node.reports(now), time.Duration(now), shard, a.From, a.To)
	})
	if err != nil {
		return nil, err
	}
	return command.Done{Message: fmt.Sprintf("%s moves from node %d to node %d", ad.node.shardName(shard), a.From, a.To)}, nil
}

// transferWait bounds the wait for a leadership transfer.
const transferWait = 5 * time.Second

func (ad *admin) adminTransfer(ctx context.Context, shard int, to uint64) (any, error) {
	if to == ad.node.id && ad.node.Leader(shard) == ad.node.id {
		return command.Done{Message: fmt.Sprintf("node %d already leads %s", to, ad.node.shardName(shard))}, nil
	}
	m := ad.node.cmap.Load()
	if !m.Begun() {
		return nil, errNotBegun
	}
	if _, known := m.Replica(shard, to); !known {
		return nil, fmt.Errorf("%w: node %d has no replica of %s", command.ErrRefused, to, ad.node.shardName(shard))
	}
	// A node that has just started says within a second that it is there.
	heard, stop := context.WithTimeout(ctx, 2*staleAfter)
	defer stop()
	reason := ""
	if err := ad.node.await(heard, func() bool { _, reason = ad.node.mayLead(to, true); return reason == "" }); err != nil {
		return nil, fmt.Errorf("%w: node %d cannot lead now: %s", command.ErrRefused, to, reason)
	}
	if err := ad.node.requestTransfer(shard, to); err != nil {
		return nil, fmt.Errorf("%w: %s now has another leader; try again", err, ad.node.shardName(shard))
	}
	ctx, cancel := context.WithTimeout(ctx, transferWait)
	defer cancel()
	if err := ad.node.await(ctx, func() bool { return ad.node.Leader(shard) == to }); err != nil {
		return nil, fmt.Errorf("%w: node %d did not become the leader of %s in time; its replica may be behind (see \"proa status\"); try again", command.ErrTimeout, to, ad.node.shardName(shard))
	}
	return command.Done{Message: fmt.Sprintf("node %d leads %s", to, ad.node.shardName(shard))}, nil
}

// awaitEvery is how often await looks.
const awaitEvery = 5 * time.Millisecond

// await waits until ok, which it asks now and then, for requests of operators.
func (ad *admin) await(ctx context.Context, ok func() bool) error {
	t := time.NewTicker(awaitEvery)
	defer t.Stop()
	for !ok() {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-ad.node.ctx.Done():
			return command.ErrStopped
		case <-t.C:
		}
	}
	return nil
}

func (ad *admin) adminSplit(ctx context.Context) (any, error) {
	ad.node.engine.Post(func() { ad.node.handOver(true) })
	var errs []error
	now := ad.node.clock.Boot()
	reports := ad.node.reports(now)
	for row := range ad.node.cmap.Load().Members() {
		if row.ID != ad.node.id && reports.Silent(row.ID, time.Duration(now)) <= placement.DownAfter {
			if _, err := ad.node.call(ctx, row.ID, call.Balance, nil); err != nil {
				errs = append(errs, fmt.Errorf("node %d: %w", row.ID, err))
			}
		}
	}
	if err := errors.Join(errs...); err != nil {
		return nil, err
	}
	return command.Done{Message: "nodes that lead more shards than others hand some of them over"}, nil
}

// CallStranger answers a node that is no member. It may only ask who is here
// and, if it has proven to know the join token, to join.
func (ad *admin) CallStranger(ctx context.Context, token bool, verb string, body []byte) ([]byte, error) {
	switch {
	case verb != call.Probe && verb != call.Join:
		return nil, fmt.Errorf("%w: %q is reserved for members of the cluster", command.ErrRefused, verb)
	case verb == call.Join && !token && !ad.node.tokenless():
		var a placement.Request
		if err := parseArgs(body, &a); err != nil {
			return call.Pack(nil, err)
		}
		if _, err := placement.Join(ad.node.cmap.Load(), &a); err != nil {
			return call.Pack(nil, err) // the token would not help
		}
		return call.Pack(nil, fmt.Errorf("%w: a valid join token is required to join; run \"proa member token\" on a running node to print one, and pass it with --join-token", command.ErrRefused))
	}
	return ad.Call(ctx, 0, verb, body)
}

// Call answers another node.
func (ad *admin) Call(ctx context.Context, from uint64, verb string, body []byte) ([]byte, error) {
	var reply []byte
	var err error
	switch verb {
	case call.Probe:
		return json.Marshal(ad.node.dir.Probe(datadir.Member{Peer: ad.node.opt.PeerAddress, Client: ad.node.opt.ClientAddress, Redis: ad.node.opt.RedisAddress}, ad.node.opt.Version))
	case call.Join:
		reply, err = ad.node.answerJoin(ctx, body)
	case call.Announce:
		reply, err = ad.node.answerAnnounce(ctx, from, body)
	case call.Admin:
		var a adminCall
		if err = parseArgs(body, &a); err == nil {
			reply, err = ad.adminHere(ctx, a.Verb, a.Args)
		}
	case call.Checksum:
		reply, err = ad.answerChecksum(ctx, body)
	case call.Balance:
		ad.node.engine.Post(func() { ad.node.handOver(true) })
	default:
		err = fmt.Errorf("%w: this version of proa does not support the request %q", command.ErrInvalid, verb)
	}
	return call.Pack(reply, err)
}

// call asks another node.
func (ad *admin) call(ctx context.Context, node uint64, verb string, body []byte) ([]byte, error) {
	b, err := ad.node.transport.Call(ctx, node, verb, body)
	if errors.Is(err, call.ErrNotAsked) {
		return nil, &notAsked{node}
	}
	if err != nil {
		if ctx.Err() != nil {
			return nil, fmt.Errorf("%w: node %d did not answer in time", command.ErrTimeout, node)
		}
		// Not a refusal: it may have been asked, and it may be back in a moment.
		return nil, fmt.Errorf("%w: cannot reach node %d: %w; try again", command.ErrTimeout, node, err)
	}
	return call.Unpack(b)
}

// notAsked is an error of a question that did not go out.
type notAsked struct{ node uint64 }

func (e *notAsked) Error() string {
	return fmt.Sprintf("cannot reach node %d: not connected to it", e.node)
}

// Unwrap returns an error that says that another try may succeed.
func (e *notAsked) Unwrap() []error { return []error{call.ErrNotAsked, command.ErrTimeout} }

// answerAnnounce takes in that a member's addresses or version have changed.
func (co *controller) answerAnnounce(ctx context.Context, from uint64, body []byte) ([]byte, error) {
	var said placement.Node
	if err := parseArgs(body, &said); err != nil {
		return nil, err
	}
	return nil, co.changeMeta(ctx, func(m *placement.Map) (placement.Change, error) { return placement.Announced(m, from, &said) })
}

// announce reports changed addresses to the meta group's leader.
func (co *controller) announce(cm *placement.Map) {
	row, ok := placement.Node{}, false
	if cm.Begun() {
		row, ok = cm.Node(co.node.id)
	}
	leader := co.node.Leader(co.node.meta())
	if !ok || !co.addressChanged(&row, leader) || leader == 0 || leader == co.node.id || !co.node.state.Set(announcing) {
		return
	}
	body, err := json.Marshal(co.withAddresses(row))
	if err != nil {
		co.node.state.Clear(announcing)
		return
	}
	co.node.background.Add(1)
	go func() {
		defer co.node.background.Done()
		defer co.node.state.Clear(announcing)
		ctx, cancel := context.WithTimeout(co.node.ctx, transferWait)
		defer cancel()
		if _, err := co.node.call(ctx, leader, call.Announce, body); err != nil {
			co.node.logger.Warn("cannot announce this node's addresses to the cluster", "error", err)
		}
	}()
}
