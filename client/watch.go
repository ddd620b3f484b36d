package client

import (
	"context"

	"github.com/proa-kv/proa/protocol"
)

// Watch returns a condition that holds as long as nobody changes key, whether
// it exists or not: read what a transaction depends on after it, and give it to
// [Txn.If]. Unlike [Version] and [Absent] it also detects that an absent key
// was created and deleted again. In rare cases it fails although only another
// key was deleted; a program whose transaction was not carried out must
// therefore start again. All nodes of the cluster must run a version that
// supports it; otherwise it fails with ErrRefused.
func (c *Client) Watch(ctx context.Context, key []byte, opts ...CallOption) (Condition, error) {
	o := withOptions(Operation{code: protocol.OpWatch, key: key}, opts)
	var r Result
	if err := c.roundTrip(ctx, &o, &r); err != nil {
		return Condition{}, err
	}
	if r.Version != 0 {
		return Version(key, Equal, r.Version), nil
	}
	return Condition{protocol.Compare{Target: protocol.CompareAbsent, Relation: Equal, Key: key, Version: uint64(r.Integer)}}, nil
}

// GetRange reads a part of a value: from byte start to byte end, both inclusive;
// negative ones count from the end, -1 being the last byte. What lies outside of
// the value is left out. Result.Integer is the length of the whole value. It is
// meant for transactions. It goes through the log like a write, so that
// Consistency does not apply to it.
func GetRange(key []byte, start, end int64, opts ...CallOption) Operation {
	return withOptions(Operation{code: protocol.OpGetRange, key: key, number: uint64(start), version: uint64(end)}, opts)
}

// GetRange is [GetRange] by itself. It returns the part, which is Item.Value, and
// the length of the whole value in bytes. It fails with ErrNotFound if there is
// nothing.
func (c *Client) GetRange(ctx context.Context, key []byte, start, end int64, opts ...CallOption) (part Item, length int, err error) {
	o := GetRange(key, start, end, opts...)
	var r Result
	if err := c.roundTrip(ctx, &o, &r); err != nil {
		return Item{}, 0, err
	}
	return Item{Key: key, Value: r.Value, Version: r.Version}, int(r.Integer), nil
}
