package client

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"strconv"
	"time"

	"github.com/proa-kv/proa/protocol"
)

// Get returns the value of key. It fails with ErrNotFound if the key does not
// exist. Item.Key is the caller's own slice.
func (c *Client) Get(ctx context.Context, key []byte, opts ...ReadOption) (Item, error) {
	return c.readItem(ctx, OpGet(key, opts...))
}

// GetString is Get for text.
func (c *Client) GetString(ctx context.Context, key string, opts ...ReadOption) (string, error) {
	item, err := c.Get(ctx, []byte(key), opts...)
	return string(item.Value), err
}

// PutString is Put for text.
func (c *Client) PutString(ctx context.Context, key, value string, opts ...PutOption) (WriteResult, error) {
	return c.Put(ctx, []byte(key), []byte(value), opts...)
}

// Keys turns strings into keys, for MGet.
func Keys(keys ...string) [][]byte {
	out := make([][]byte, len(keys))
	for i, k := range keys {
		out[i] = []byte(k)
	}
	return out
}

// Stat is Get without the value.
func (c *Client) Stat(ctx context.Context, key []byte, opts ...ReadOption) (Item, error) {
	item, err := c.readItem(ctx, OpExists(key, opts...))
	item.Value = nil
	return item, err
}

func (c *Client) readItem(ctx context.Context, o Operation) (Item, error) {
	var r Result
	if err := c.caller.roundTrip(ctx, &o, &r); err != nil {
		return Item{}, err
	}
	return Item{Key: o.key, Value: r.Value, Version: r.Version, TTL: r.TTL, Age: r.Age, Stale: r.Stale}, nil
}

// Exists reports whether key exists.
func (c *Client) Exists(ctx context.Context, key []byte, opts ...ReadOption) (bool, error) {
	_, err := c.Stat(ctx, key, opts...)
	if e, ok := err.(*Error); ok && e.Status == protocol.StatusNotFound {
		return false, nil
	}
	return err == nil, err
}

// MGet reads up to protocol.OpsMax keys of any shards in one request; it is not
// a snapshot of all keys. The answers are in the order of the keys.
func (c *Client) MGet(ctx context.Context, keys [][]byte, opts ...ReadOption) ([]Lookup, error) {
	o := withOptions(Operation{code: protocol.OpMGet}, opts)
	if err := checkKeys(&o, keys); err != nil {
		return nil, refused(o.code, err)
	}
	if len(keys) == 0 {
		return nil, nil
	}
	ca := c.caller.newCall(ctx, &o)
	ca.to = c.router.table.Load().majority(len(keys), func(i int) []byte { return keys[i] })
	ca.frame = (&protocol.MGet{Keys: keys}).AppendTo(ca.frame)
	if err := c.caller.await(ctx, ca); err != nil {
		return nil, err
	}
	defer c.caller.release(ca)
	found := make([]Lookup, 0, len(keys))
	var reply protocol.MGetReply
	for _, part := range append(ca.parts, ca.body) {
		if err := reply.Decode(part); err != nil {
			return nil, malformed(o.code, err)
		}
		if len(found)+len(reply.Rows) > len(keys) {
			return nil, malformed(o.code, fmt.Errorf("more rows than keys"))
		}
		for i := range reply.Rows {
			row := &reply.Rows[i]
			l := Lookup{Item: Item{Key: keys[len(found)]}}
			if row.Status == protocol.StatusOK {
				l.Found, l.Value, l.Version, l.TTL, l.Age = true, row.Value, row.Version, ttl(row.TTLMillis), ca.age
				l.Stale = ca.stale
				c.caller.observeRow(l.Key, l.Version)
			} else if row.Status != protocol.StatusNotFound {
				return nil, replyError(o.code, row.Status)
			}
			found = append(found, l)
		}
	}
	if len(found) < len(keys) {
		return nil, malformed(o.code, fmt.Errorf("%d rows for %d keys", len(found), len(keys)))
	}
	return found, nil
}

func checkKeys(o *Operation, keys [][]byte) error {
	if o.err != nil {
		return o.err
	}
	if len(keys) > protocol.OpsMax {
		return fmt.Errorf("%w: %d keys, at most %d", ErrTooLarge, len(keys), protocol.OpsMax)
	}
	for _, k := range keys {
		one := Operation{code: protocol.OpGet, key: k}
		if err := one.check(); err != nil {
			return err
		}
	}
	return nil
}

// Put stores value under key. When it returns without an error the value is
// on disk on a majority of the shard's nodes. It fails with ErrConditionFailed
// if a condition (IfAbsent, IfPresent, IfVersion) does not hold; the result
// then still carries the version and, with ReturnPrevious, the row found.
func (c *Client) Put(ctx context.Context, key, value []byte, opts ...PutOption) (WriteResult, error) {
	return c.writeOne(ctx, OpPut(key, value, opts...))
}

// Delete removes key. It fails with ErrNotFound if it does not exist, and with
// ErrConditionFailed if IfVersion asks for another version.
func (c *Client) Delete(ctx context.Context, key []byte, opts ...DeleteOption) (WriteResult, error) {
	return c.writeOne(ctx, OpDelete(key, opts...))
}

// Expire sets the time to live of an existing key to ttl (see [OpExpire]). It
// fails with ErrNotFound if the key does not exist.
func (c *Client) Expire(ctx context.Context, key []byte, ttl time.Duration, opts ...CallOption) (WriteResult, error) {
	return c.writeOne(ctx, OpExpire(key, ttl, opts...))
}

// Persist removes the expiry of a key. It fails with ErrNotFound if the key
// does not exist.
func (c *Client) Persist(ctx context.Context, key []byte, opts ...CallOption) (WriteResult, error) {
	return c.writeOne(ctx, OpPersist(key, opts...))
}

func (c *Client) writeOne(ctx context.Context, o Operation) (WriteResult, error) {
	var r Result
	err := c.caller.roundTrip(ctx, &o, &r)
	return WriteResult{Version: r.Version, Previous: r.Previous}, err
}

// Incr adds delta to the decimal integer stored under key and returns the new
// value; an absent key counts as 0. It fails with ErrNotInteger or ErrOverflow
// and changes nothing then.
func (c *Client) Incr(ctx context.Context, key []byte, delta int64, opts ...CallOption) (int64, error) {
	r, err := c.do(ctx, OpIncr(key, delta, opts...))
	return r.Integer, err
}

// do sends one operation, waits, and returns its answer.
func (c *Client) do(ctx context.Context, o Operation) (r Result, err error) {
	err = c.caller.roundTrip(ctx, &o, &r)
	return r, err
}

// IncrFloat adds delta to the number stored under key and returns the new value;
// an absent key counts as 0. It fails with ErrNotFloat or ErrOverflow and changes
// nothing then. The server counts more exactly than a float64, and further: a sum
// that no float64 can hold is returned as an infinity. NaN means that the sum was
// stored, by an attempt whose answer is no longer kept.
func (c *Client) IncrFloat(ctx context.Context, key []byte, delta float64, opts ...CallOption) (float64, error) {
	r, err := c.do(ctx, OpIncrFloat(key, delta, opts...))
	if err != nil {
		return 0, err
	}
	if len(r.Value) == 0 {
		return math.NaN(), nil
	}
	sum, err := strconv.ParseFloat(string(r.Value), 64)
	if err != nil && !errors.Is(err, strconv.ErrRange) {
		return 0, malformedDone(protocol.OpIncrFloat, err)
	}
	return sum, nil
}

// Append adds value to the end of what is stored under key, and returns the new
// length in bytes; an absent key counts as empty. It fails with ErrTooLarge and
// changes nothing if the result would exceed protocol.ValueBytesMax.
func (c *Client) Append(ctx context.Context, key, value []byte, opts ...CallOption) (length int, err error) {
	return c.writeLength(ctx, OpAppend(key, value, opts...))
}

// SetRange overwrites a part of a value, from byte offset on (see [OpSetRange]),
// and returns the new length in bytes. It fails with ErrTooLarge and changes
// nothing if the result would exceed protocol.ValueBytesMax.
func (c *Client) SetRange(ctx context.Context, key []byte, offset int, part []byte, opts ...CallOption) (length int, err error) {
	return c.writeLength(ctx, OpSetRange(key, offset, part, opts...))
}

func (c *Client) writeLength(ctx context.Context, o Operation) (int, error) {
	r, err := c.do(ctx, o)
	return int(r.Integer), err
}

// GetRange returns a part of a value, from byte start to byte end (see
// [OpGetRange]), as Item.Value, and the length of the whole value in bytes. It
// fails with ErrNotFound if the key does not exist.
func (c *Client) GetRange(ctx context.Context, key []byte, start, end int64, opts ...CallOption) (part Item, length int, err error) {
	r, err := c.do(ctx, OpGetRange(key, start, end, opts...))
	if err != nil {
		return Item{}, 0, err
	}
	return Item{Key: key, Value: r.Value, Version: r.Version}, int(r.Integer), nil
}

// Expiry returns when key expires, in whole milliseconds of the cluster's clock;
// the zero time if it does not. It fails with ErrNotFound if the key does not
// exist. Item.TTL is the time left.
func (c *Client) Expiry(ctx context.Context, key []byte, opts ...ReadOption) (time.Time, error) {
	r, err := c.do(ctx, OpExpiry(key, opts...))
	return r.ExpiresAt, err
}

// SetExpiry changes when an existing key expires: as [WithTTL] or [WithExpiryAt]
// says, or never where neither is given. A time that has passed deletes the key.
// It fails with ErrNotFound if the key does not exist, and with
// ErrConditionFailed if a condition (IfNoExpiry, IfExpiry, IfLater, IfEarlier)
// does not hold.
func (c *Client) SetExpiry(ctx context.Context, key []byte, opts ...ExpiryOption) (WriteResult, error) {
	return c.writeOne(ctx, OpSetExpiry(key, opts...))
}

// Rename gives destination the value and the expiry of source, replacing what was
// there, and removes source, atomically. It fails with ErrNotFound if source does
// not exist, with ErrConditionFailed if IfAbsent was given and destination
// exists, and with ErrCrossShard if the keys are in different shards (see
// [OpRename]). WriteResult.Version is that of destination.
func (c *Client) Rename(ctx context.Context, source, destination []byte, opts ...RenameOption) (WriteResult, error) {
	return c.writeOne(ctx, OpRename(source, destination, opts...))
}

// Copy is Rename that keeps source.
func (c *Client) Copy(ctx context.Context, source, destination []byte, opts ...RenameOption) (WriteResult, error) {
	return c.writeOne(ctx, OpCopy(source, destination, opts...))
}

// Watch returns a condition that holds as long as nobody changes key, whether
// it exists or not: read what a transaction depends on after it, and give it to
// [Txn.If]. Unlike [Version] and [Absent] it also detects that an absent key
// was created and deleted again. In rare cases it fails although only another
// key was deleted; a program whose transaction was not carried out must
// therefore start again. All nodes of the cluster must run a version that
// supports it; otherwise it fails with ErrRefused.
func (c *Client) Watch(ctx context.Context, key []byte, opts ...CallOption) (Condition, error) {
	r, err := c.do(ctx, withOptions(Operation{code: protocol.OpWatch, key: key}, opts))
	if err != nil {
		return Condition{}, err
	}
	if r.Version != 0 {
		return Version(key, Equal, r.Version), nil
	}
	return Condition{protocol.Compare{Target: protocol.CompareAbsent, Relation: Equal, Key: key, Version: uint64(r.Integer)}}, nil
}

// Ping measures the round trip to a server.
func (c *Client) Ping(ctx context.Context, opts ...CallOption) (time.Duration, error) {
	o, start := OpPing(opts...), time.Now()
	_, err := c.do(ctx, o)
	return time.Since(start), err
}

// Batch carries out several operations in one request. Its results are in the order
// of the operations, each with its own Err; the error that Batch itself returns
// concerns the request as a whole, such as ErrCrossShard. Operations of a
// non-atomic batch that a shard refused without doing anything are retried,
// like whole calls, and with ExactlyOnce also those whose outcome is unknown.
// An empty batch does nothing.
func (c *Client) Batch(ctx context.Context, b *Batch, opts ...CallOption) ([]Result, error) {
	o := withOptions(Operation{code: protocol.OpBatch}, opts)
	if len(b.ops) == 0 {
		return nil, nil
	}
	until, _ := c.caller.deadline(ctx, &o)
	results, err := c.batch(ctx, b, o)
	if err != nil || !b.nonAtomic {
		return results, err
	}
	ctx, cancel := c.caller.bounded(ctx, until)
	defer cancel()
	for attempts := 1; c.cfg.RetryMax == 0 || attempts <= c.cfg.RetryMax; attempts++ {
		left := b.rest(results)
		if len(left.at) == 0 || !c.caller.pause(ctx, attempts, left.asked, until) {
			break
		}
		again, err := c.batch(ctx, &left.batch, o)
		for i, at := range left.at {
			if err == nil {
				results[at] = again[i]
			} else {
				results[at] = Result{Err: err}
			}
		}
	}
	return results, nil
}

// batch sends b once, as a call of its own.
func (c *Client) batch(ctx context.Context, b *Batch, o Operation) ([]Result, error) {
	ops, err := encodeOps(&o, b.ops)
	if err != nil {
		return nil, refused(o.code, err)
	}
	m := protocol.Batch{Ops: ops}
	if b.nonAtomic {
		m.Flags |= protocol.BatchNonAtomic
	}
	ca := c.caller.newCall(ctx, &o)
	ca.split = b.nonAtomic
	if b.nonAtomic {
		ca.to = c.router.table.Load().majority(len(b.ops), func(i int) []byte { return b.ops[i].key })
	} else {
		c.router.routeBy(ca, b.ops[0].key)
	}
	ca.frame = m.AppendTo(ca.frame)
	if err := c.caller.await(ctx, ca); err != nil {
		return nil, err
	}
	defer c.caller.release(ca)
	var reply protocol.BatchReply
	if err := reply.Decode(ca.body); err != nil {
		return nil, malformedDone(o.code, err)
	}
	return c.results(ca, b.ops, reply.Results)
}

// Txn carries out a transaction. It fails with ErrCrossShard if its keys are in
// different shards.
func (c *Client) Txn(ctx context.Context, t *Txn, opts ...CallOption) (TxnResult, error) {
	o := withOptions(Operation{code: protocol.OpTxn}, opts)
	m := protocol.Txn{}
	for i := range t.conditions {
		cond := Operation{code: protocol.OpPut, key: t.conditions[i].compare.Key, value: t.conditions[i].compare.Value}
		if err := cond.check(); err != nil {
			return TxnResult{}, refused(o.code, err)
		}
		m.Compares = append(m.Compares, t.conditions[i].compare)
	}
	var err error
	if m.Then, err = encodeOps(&o, t.then); err == nil {
		m.Else, err = encodeOps(&o, t.els)
	}
	if n := len(t.conditions) + len(t.then) + len(t.els); n == 0 || n > protocol.OpsMax {
		err = fmt.Errorf("%w: %d comparisons and operations, 1 to %d are allowed", ErrBadRequest, n, protocol.OpsMax)
	}
	if err != nil {
		return TxnResult{}, refused(o.code, err)
	}
	ca := c.caller.newCall(ctx, &o)
	c.router.routeBy(ca, t.anyKey())
	ca.frame = m.AppendTo(ca.frame)
	if err := c.caller.await(ctx, ca); err != nil {
		return TxnResult{}, err
	}
	defer c.caller.release(ca)
	var reply protocol.TxnReply
	if err := reply.Decode(ca.body); err != nil {
		return TxnResult{}, malformedDone(o.code, err)
	}
	ops := t.then
	if !reply.Succeeded {
		ops = t.els
	}
	results, err := c.results(ca, ops, reply.Results)
	return TxnResult{Succeeded: reply.Succeeded, Results: results}, err
}

// encodeOps encodes the parts of a batch or transaction.
func encodeOps(whole *Operation, ops []Operation) (protocol.Ops, error) {
	if whole.err != nil {
		return nil, whole.err
	}
	if len(ops) > protocol.OpsMax {
		return nil, fmt.Errorf("%w: %d operations, at most %d", ErrTooLarge, len(ops), protocol.OpsMax)
	}
	size := 0
	for i := range ops {
		size += len(ops[i].key) + len(ops[i].value) + 24
	}
	if size > protocol.FrameBytesMax+24*len(ops) {
		return nil, fmt.Errorf("%w: operations of %d bytes together", ErrTooLarge, size)
	}
	encoded := make(protocol.Ops, len(ops))
	bodies := make([]byte, 0, size)
	for i := range ops {
		o := &ops[i]
		if err := o.check(); err != nil {
			return nil, fmt.Errorf("operation %d: %w", i, err)
		}
		if o.code == protocol.OpPing {
			return nil, fmt.Errorf("%w: operation %d: %v is not allowed here", ErrBadRequest, i, o.code)
		}
		start := len(bodies)
		bodies = o.appendBody(bodies)
		encoded[i] = protocol.Op{Code: o.code, Body: bodies[start:len(bodies):len(bodies)]}
	}
	return encoded, nil
}

// results decodes the outcomes of ops, the parts of ca. Their slices are views
// of memory that the caller owns.
func (c *Client) results(ca *call, ops []Operation, replies protocol.OpResults) ([]Result, error) {
	if len(replies) != len(ops) {
		return nil, malformedDone(ca.code, fmt.Errorf("%d results for %d operations", len(replies), len(ops)))
	}
	out := make([]Result, len(ops))
	for i := range ops {
		o, status, body := &ops[i], replies[i].Status, replies[i].Body
		if status.CarriesResult() {
			if err := out[i].decode(o.code, status, o.key, body); err != nil {
				return nil, malformedDone(ca.code, fmt.Errorf("result %d: %w", i, err))
			}
		}
		if p := out[i].Previous; p != nil {
			p.Key = bytes.Clone(p.Key)
		}
		if status != protocol.StatusOK {
			e := replyError(o.code, status)
			e.Attempts, e.Version = int(ca.attempts.Load()), out[i].Version
			if !status.CarriesResult() {
				e.addReply(body)
			}
			if isWrite(o.code) {
				ca.doubt(e)
			}
			out[i].Err = e
		}
		c.caller.observeRow(o.key, out[i].Version)
		if o.code == protocol.OpRename {
			c.caller.observeRow(o.value, out[i].Version)
		}
	}
	return out, nil
}

// malformedDone is malformed for a request that was carried out.
func malformedDone(code protocol.Opcode, err error) *Error {
	e := malformed(code, err)
	e.Outcome = Done
	return e
}

// Routes asks which node serves which hash slots.
func (c *Client) Routes(ctx context.Context, opts ...CallOption) (Routes, error) {
	o := withOptions(Operation{code: protocol.OpRoutes}, opts)
	body, err := c.whole(ctx, &o, nil)
	if err != nil {
		return Routes{}, err
	}
	var m protocol.RoutesReply
	if err := m.Decode(body); err != nil {
		return Routes{}, malformed(o.code, err)
	}
	r := Routes{Epoch: m.Epoch}
	for _, n := range m.Nodes {
		r.Nodes = append(r.Nodes, Node{ID: n.ID, Address: string(n.Address)})
	}
	for _, s := range m.Shards {
		shard := Shard{ID: s.ID, Leader: s.Leader}
		for _, x := range s.Slots {
			shard.Slots = append(shard.Slots, SlotRange(x))
		}
		r.Shards = append(r.Shards, shard)
	}
	return r, nil
}

// Admin carries out an administrative request: verb names it, args are its
// arguments as JSON and may be empty, as each verb wants. The answer is JSON.
// It fails with ErrRefused if the cluster's state does not allow it, and with
// ErrBadRequest if verb or arguments are invalid. Because it may change the
// cluster, it is, like a write, not retried when its outcome is unknown. A
// server carries out a few at a time, and answers others with ErrBusy.
func (c *Client) Admin(ctx context.Context, verb string, args []byte) ([]byte, error) {
	o := Operation{code: protocol.OpAdmin}
	switch {
	case len(verb) == 0:
		return nil, refused(o.code, fmt.Errorf("%w: empty verb", ErrBadRequest))
	case len(verb) > protocol.VerbBytesMax || len(args) > protocol.AdminBytesMax:
		return nil, refused(o.code, fmt.Errorf("%w: verb of %d bytes with %d bytes of arguments, %d and %d are allowed",
			ErrTooLarge, len(verb), len(args), protocol.VerbBytesMax, protocol.AdminBytesMax))
	}
	return c.whole(ctx, &o, (&protocol.Admin{Verb: []byte(verb), Args: args}).AppendTo(nil))
}

// Status returns a server's status. The answer is a JSON object, described in
// docs/protocol.md.
func (c *Client) Status(ctx context.Context, opts ...CallOption) (json.RawMessage, error) {
	o := withOptions(Operation{code: protocol.OpStatus}, opts)
	body, err := c.whole(ctx, &o, nil)
	if err == nil && !json.Valid(body) {
		return nil, malformed(o.code, fmt.Errorf("not JSON"))
	}
	return body, err
}

// whole sends a request and returns the body of the answer, of however many
// frames.
func (c *Client) whole(ctx context.Context, o *Operation, body []byte) ([]byte, error) {
	if err := o.check(); err != nil {
		return nil, refused(o.code, err)
	}
	ca := c.caller.newCall(ctx, o)
	ca.frame = append(ca.frame, body...)
	if err := c.caller.await(ctx, ca); err != nil {
		return nil, err
	}
	defer c.caller.release(ca)
	return bytes.Join(append(ca.parts, ca.body), nil), nil
}
