package client

import (
	"errors"
	"fmt"
	"math"
	"strconv"
	"time"

	"github.com/proa-kv/proa/protocol"
)

// Operation is one request that is not sent yet: a part of a [Batch] or
// [Txn], or the argument of [Client.Do]. It is made by OpGet, OpPut, OpDelete, …
// and refers to the keys and the value given there, which must not change until
// it has been handed to a call. An Operation may be used many times.
type Operation struct {
	code           protocol.Opcode
	flags          uint8 // protocol.WriteFlags, ExpiryFlags or RenameFlags
	consistency    Consistency
	hasConsistency bool
	key            []byte
	value          []byte        // or increment (INCRFLOAT), destination (RENAME)
	number         uint64        // TTL or Unix time in milliseconds (PUT, EXPIRE, SETEXPIRY), delta (INCR), offset (SETRANGE), start (GETRANGE), see onlyShard (DELETE_RANGE)
	version        uint64        // or end (GETRANGE)
	timeout        time.Duration // 0: the client's
	err            error         // the first invalid argument
}

// OpGet reads a key.
func OpGet(key []byte, opts ...ReadOption) Operation {
	return withOptions(Operation{code: protocol.OpGet, key: key}, opts)
}

// OpExists asks whether a key exists; its version and TTL come with the answer.
func OpExists(key []byte, opts ...ReadOption) Operation {
	return withOptions(Operation{code: protocol.OpExists, key: key}, opts)
}

// OpExpiry asks when a key expires (Result.ExpiresAt).
func OpExpiry(key []byte, opts ...ReadOption) Operation {
	return withOptions(Operation{code: protocol.OpExpiry, key: key}, opts)
}

// OpGetRange reads a part of a value: from byte start to byte end, both inclusive;
// negative ones count from the end, -1 being the last byte. What lies outside of
// the value is left out. Result.Integer is the length of the whole value. It is
// meant for transactions. It goes through the log like a write, so that
// Consistency does not apply to it.
func OpGetRange(key []byte, start, end int64, opts ...CallOption) Operation {
	return withOptions(Operation{code: protocol.OpGetRange, key: key, number: uint64(start), version: uint64(end)}, opts)
}

// OpPut stores a value.
func OpPut(key, value []byte, opts ...PutOption) Operation {
	return withOptions(Operation{code: protocol.OpPut, key: key, value: value}, opts)
}

// OpDelete removes a key.
func OpDelete(key []byte, opts ...DeleteOption) Operation {
	return withOptions(Operation{code: protocol.OpDelete, key: key}, opts)
}

// OpIncr adds delta to the decimal integer stored under key; an absent key
// counts as 0. The key keeps its expiry.
func OpIncr(key []byte, delta int64, opts ...CallOption) Operation {
	return withOptions(Operation{code: protocol.OpIncr, key: key, number: uint64(delta)}, opts)
}

// OpIncrFloat adds delta to the number stored under key; an absent key counts as
// 0. The key keeps its expiry. Servers add 80-bit extended numbers and store the
// sum as decimal text, which Result.Value has in full.
func OpIncrFloat(key []byte, delta float64, opts ...CallOption) Operation {
	return withOptions(Operation{code: protocol.OpIncrFloat, key: key, value: strconv.AppendFloat(nil, delta, 'g', -1, 64)}, opts)
}

// OpAppend adds bytes to the end of a value; an absent key counts as empty. The
// key keeps its expiry.
func OpAppend(key, value []byte, opts ...CallOption) Operation {
	return withOptions(Operation{code: protocol.OpAppend, key: key, value: value}, opts)
}

// OpSetRange overwrites a part of a value, from byte offset on. An absent key
// counts as empty, and a gap before offset is filled with zero bytes. The key
// keeps its expiry. An empty part changes and creates nothing.
func OpSetRange(key []byte, offset int, part []byte, opts ...CallOption) Operation {
	o := Operation{code: protocol.OpSetRange, key: key, value: part, number: uint64(offset)}
	if offset < 0 || offset > math.MaxUint32 {
		o.invalid(fmt.Errorf("%w: offset of %d bytes", ErrBadRequest, offset))
	}
	return withOptions(o, opts)
}

// OpExpire sets the time to live of an existing key to ttl, from 1 ms to about
// 292 years, rounded up to whole milliseconds.
func OpExpire(key []byte, ttl time.Duration, opts ...CallOption) Operation {
	o := Operation{code: protocol.OpExpire, key: key}
	o.setTTL(ttl)
	return withOptions(o, opts)
}

// OpPersist removes the expiry of an existing key.
func OpPersist(key []byte, opts ...CallOption) Operation {
	return withOptions(Operation{code: protocol.OpPersist, key: key}, opts)
}

// OpSetExpiry changes when an existing key expires: as WithTTL or WithExpiryAt
// says, or never where neither is given. A time that has passed deletes the key.
func OpSetExpiry(key []byte, opts ...ExpiryOption) Operation {
	return withOptions(Operation{code: protocol.OpSetExpiry, flags: uint8(protocol.ExpiryRemove), key: key}, opts)
}

// OpRename gives destination the value and the expiry of source, replacing what
// was there, and removes source. Both keys must lie in one shard, which keys
// with the same {tag} do, unless the cluster has a single node.
func OpRename(source, destination []byte, opts ...RenameOption) Operation {
	return withOptions(Operation{code: protocol.OpRename, key: source, value: destination}, opts)
}

// OpCopy is OpRename that keeps source.
func OpCopy(source, destination []byte, opts ...RenameOption) Operation {
	o := OpRename(source, destination, opts...)
	o.flags |= uint8(protocol.RenameKeepSource)
	return o
}

// OpPing asks the server for a sign of life. It cannot be part of a batch or
// transaction.
func OpPing(opts ...CallOption) Operation {
	return withOptions(Operation{code: protocol.OpPing}, opts)
}

// withOptions applies the options of a kind.
func withOptions[O applier](o Operation, opts []O) Operation {
	for _, opt := range opts {
		o = opt.apply(o)
	}
	return o
}

// setTTL sets the time to live of a PUT, EXPIRE or SETEXPIRY.
func (o *Operation) setTTL(d time.Duration) {
	if d <= 0 {
		o.invalid(fmt.Errorf("%w: time to live of %v", ErrBadRequest, d))
		return
	}
	o.number = uint64(d / time.Millisecond)
	if d%time.Millisecond > 0 {
		o.number++
	}
	o.setWhen(protocol.WriteTTL, 0)
}

// setExpiryAt sets the time of expiry of a PUT or SETEXPIRY.
func (o *Operation) setExpiryAt(t time.Time) {
	ms := t.UnixMilli()
	if ms < 0 {
		o.invalid(fmt.Errorf("%w: time of expiry %v", ErrBadRequest, t))
		return
	}
	o.number = uint64(ms)
	o.setWhen(protocol.WriteExpireAt, protocol.ExpiryAt)
}

// setWhen sets the flag that says what number is.
func (o *Operation) setWhen(put protocol.WriteFlags, expiry protocol.ExpiryFlags) {
	if o.code == protocol.OpSetExpiry {
		o.flags = o.flags&^uint8(protocol.ExpiryAt|protocol.ExpiryRemove) | uint8(expiry)
	} else {
		o.flags |= uint8(put)
	}
}

func (o *Operation) invalid(err error) {
	if o.err == nil {
		o.err = err
	}
}

// appendBody appends the operation's message to dst. Each ends with the key, or
// with key and value.
func (o *Operation) appendBody(dst []byte) []byte {
	switch o.code {
	case protocol.OpGet, protocol.OpExists, protocol.OpExpiry, protocol.OpPersist, protocol.OpWatch:
		return append(dst, o.key...)
	case protocol.OpGetRange:
		return (&protocol.GetRange{Start: int64(o.number), End: int64(o.version), Key: o.key}).AppendTo(dst)
	case protocol.OpPut:
		return (&protocol.Put{Flags: protocol.WriteFlags(o.flags), TTLMillis: o.number, Version: o.version, Key: o.key, Value: o.value}).AppendTo(dst)
	case protocol.OpDelete:
		return (&protocol.Delete{Flags: protocol.WriteFlags(o.flags), Version: o.version, Key: o.key}).AppendTo(dst)
	case protocol.OpIncr:
		return (&protocol.Incr{Delta: int64(o.number), Key: o.key}).AppendTo(dst)
	case protocol.OpIncrFloat:
		return (&protocol.IncrFloat{Key: o.key, Increment: o.value}).AppendTo(dst)
	case protocol.OpAppend:
		return (&protocol.Append{Key: o.key, Value: o.value}).AppendTo(dst)
	case protocol.OpSetRange:
		return (&protocol.SetRange{Offset: uint32(o.number), Key: o.key, Value: o.value}).AppendTo(dst)
	case protocol.OpExpire:
		return (&protocol.Expire{TTLMillis: o.number, Key: o.key}).AppendTo(dst)
	case protocol.OpSetExpiry:
		return (&protocol.SetExpiry{Flags: protocol.ExpiryFlags(o.flags), Millis: o.number, Key: o.key}).AppendTo(dst)
	case protocol.OpRename:
		return (&protocol.Rename{Flags: protocol.RenameFlags(o.flags), Source: o.key, Destination: o.value}).AppendTo(dst)
	}
	return dst // PING, ROUTES, STATUS have no body
}

// check returns why the operation cannot be sent, nil if it can.
func (o *Operation) check() error {
	if o.err != nil {
		return o.err
	}
	var err error
	switch o.code {
	case protocol.OpPing, protocol.OpRoutes, protocol.OpStatus, protocol.OpAdmin:
		return nil
	case protocol.OpRename:
		err = protocol.CheckKey(o.value)
	case 0:
		return fmt.Errorf("%w: empty Operation", ErrBadRequest)
	default:
		err = protocol.CheckValue(o.value)
	}
	if err == nil {
		err = protocol.CheckKey(o.key)
	}
	return badArgument(err)
}

// badArgument is the error of arguments with which package protocol found err.
func badArgument(err error) error {
	switch {
	case errors.Is(err, protocol.ErrTooLarge):
		return fmt.Errorf("%w: %w", ErrTooLarge, err)
	case err != nil:
		return fmt.Errorf("%w: %w", ErrBadRequest, err)
	}
	return nil
}

// isWrite reports whether an operation can change anything.
func isWrite(code protocol.Opcode) bool {
	switch code {
	case protocol.OpPut, protocol.OpDelete, protocol.OpIncr, protocol.OpExpire, protocol.OpPersist,
		protocol.OpAppend, protocol.OpSetRange, protocol.OpIncrFloat, protocol.OpSetExpiry, protocol.OpRename,
		protocol.OpBatch, protocol.OpTxn, protocol.OpAdmin, protocol.OpDeleteRange:
		return true
	}
	return false
}

// inLogOrder reports whether a read goes through the log: it is always of the
// newest state.
func inLogOrder(code protocol.Opcode) bool {
	return code == protocol.OpWatch || code == protocol.OpGetRange
}
