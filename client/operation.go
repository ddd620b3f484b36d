package client

import (
	"fmt"
	"time"

	"github.com/proa-kv/proa/protocol"
)

// Operation is one request that is not sent yet: a part of a [Batch] or
// [Txn], or the argument of [Client.Do]. It is made by the functions Get, Put,
// Delete, … of this package and refers to the key and value given there, which
// must not change until it has been handed to a call. An Operation may be used
// many times.
type Operation struct {
	code           protocol.Opcode
	flags          protocol.WriteFlags
	consistency    Consistency
	hasConsistency bool
	key, value     []byte
	number         uint64        // TTL in milliseconds (PUT, EXPIRE), delta (INCR), start (GETRANGE), see onlyShard (DELETE_RANGE)
	version        uint64        // or end (GETRANGE)
	timeout        time.Duration // 0: the client's
	err            error         // the first invalid argument
}

// Get reads a key.
func Get(key []byte, opts ...ReadOption) Operation { return read(protocol.OpGet, key, opts) }

// Exists asks whether a key exists; its version and TTL come with the answer.
func Exists(key []byte, opts ...ReadOption) Operation { return read(protocol.OpExists, key, opts) }

func read(code protocol.Opcode, key []byte, opts []ReadOption) Operation {
	o := Operation{code: code, key: key}
	for _, opt := range opts {
		o = opt.applyRead(o)
	}
	return o
}

// Put stores a value.
func Put(key, value []byte, opts ...PutOption) Operation {
	o := Operation{code: protocol.OpPut, key: key, value: value}
	for _, opt := range opts {
		o = opt.applyPut(o)
	}
	return o
}

// Delete removes a key.
func Delete(key []byte, opts ...DeleteOption) Operation {
	o := Operation{code: protocol.OpDelete, key: key}
	for _, opt := range opts {
		o = opt.applyDelete(o)
	}
	return o
}

// Incr adds delta to the decimal integer stored under key; an absent key
// counts as 0. The key keeps its expiry.
func Incr(key []byte, delta int64, opts ...CallOption) Operation {
	return withOptions(Operation{code: protocol.OpIncr, key: key, number: uint64(delta)}, opts)
}

// Expire sets the time to live of an existing key to ttl, from 1 ms to about
// 292 years, rounded up to whole milliseconds.
func Expire(key []byte, ttl time.Duration, opts ...CallOption) Operation {
	o := Operation{code: protocol.OpExpire, key: key}
	o.setTTL(ttl)
	return withOptions(o, opts)
}

// Persist removes the expiry of an existing key.
func Persist(key []byte, opts ...CallOption) Operation {
	return withOptions(Operation{code: protocol.OpPersist, key: key}, opts)
}

// Ping asks the server for a sign of life. It cannot be part of a batch or
// transaction.
func Ping(opts ...CallOption) Operation { return withOptions(Operation{code: protocol.OpPing}, opts) }

func withOptions(o Operation, opts []CallOption) Operation {
	for _, opt := range opts {
		o = opt.applyCall(o)
	}
	return o
}

func (o *Operation) setTTL(d time.Duration) {
	o.flags |= protocol.WriteTTL
	if d <= 0 {
		o.invalid(fmt.Errorf("%w: time to live of %v", ErrBadRequest, d))
		return
	}
	o.number = uint64(d / time.Millisecond)
	if d%time.Millisecond > 0 {
		o.number++
	}
}

func (o *Operation) invalid(err error) {
	if o.err == nil {
		o.err = err
	}
}
