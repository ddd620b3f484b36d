package server

import (
	"fmt"

	"github.com/proa-kv/proa/command"
	"github.com/proa-kv/proa/protocol"
)

// decoder is scratch for the bodies of single operations, so that decoding one
// allocates nothing.
type decoder struct {
	key   protocol.Key
	put   protocol.Put
	del   protocol.Delete
	incr  protocol.Incr
	exp   protocol.Expire
	app   protocol.Append
	set   protocol.SetRange
	float protocol.IncrFloat
	until protocol.SetExpiry
	name  protocol.Rename
	part  protocol.GetRange
}

// keyed are the commands of the operations whose body is the key.
var keyed = [...]command.Kind{
	protocol.OpPersist: command.Persist, protocol.OpGet: command.Get, protocol.OpExists: command.Exists,
	protocol.OpExpiry: command.Expiry, protocol.OpWatch: command.Watch,
}

// decodeWrite translates a single write into a command, which holds views of
// body.
func (d *decoder) decodeWrite(op protocol.Opcode, body []byte, cmd *command.Command) error {
	ops, alt, compares := cmd.Ops[:0], cmd.Else[:0], cmd.Compares[:0]
	var err error
	switch op {
	case protocol.OpPut:
		err = d.put.Decode(body)
		*cmd = command.Command{Kind: command.Put, Flags: command.Flags(d.put.Flags), Key: d.put.Key, Value: d.put.Value, TTLMillis: d.put.TTLMillis, Version: d.put.Version}
	case protocol.OpDelete:
		err = d.del.Decode(body)
		*cmd = command.Command{Kind: command.Delete, Flags: command.Flags(d.del.Flags), Key: d.del.Key, Version: d.del.Version}
	case protocol.OpIncr:
		err = d.incr.Decode(body)
		*cmd = command.Command{Kind: command.Incr, Key: d.incr.Key, Delta: d.incr.Delta}
	case protocol.OpExpire:
		err = d.exp.Decode(body)
		*cmd = command.Command{Kind: command.Expire, Key: d.exp.Key, TTLMillis: d.exp.TTLMillis}
	case protocol.OpPersist, protocol.OpGet, protocol.OpExists, protocol.OpExpiry, protocol.OpWatch:
		err = d.key.Decode(body)
		*cmd = command.Command{Kind: keyed[op], Key: d.key.Key}
	case protocol.OpGetRange:
		err = d.part.Decode(body)
		*cmd = command.Command{Kind: command.GetRange, Key: d.part.Key, Delta: d.part.Start, Until: d.part.End}
	case protocol.OpAppend:
		err = d.app.Decode(body)
		*cmd = command.Command{Kind: command.Append, Key: d.app.Key, Value: d.app.Value}
	case protocol.OpSetRange:
		err = d.set.Decode(body)
		*cmd = command.Command{Kind: command.SetRange, Key: d.set.Key, Value: d.set.Value, Offset: d.set.Offset}
	case protocol.OpIncrFloat:
		err = d.float.Decode(body)
		*cmd = command.Command{Kind: command.IncrFloat, Key: d.float.Key, Value: d.float.Increment}
	case protocol.OpSetExpiry:
		err = d.until.Decode(body)
		*cmd = command.Command{Kind: command.SetExpiry, Flags: command.Flags(d.until.Flags), Key: d.until.Key, TTLMillis: d.until.Millis}
	case protocol.OpRename:
		err = d.name.Decode(body)
		*cmd = command.Command{Kind: command.Rename, Flags: command.Flags(d.name.Flags), Key: d.name.Source, Value: d.name.Destination}
	default:
		err = fmt.Errorf("%w: %v", protocol.ErrOpcodeInBatch, op)
	}
	cmd.Ops, cmd.Else, cmd.Compares = ops, alt, compares
	return err
}

// The option bits of the wire and of the log are the same, so that decodeWrite
// can take them over, and what a command can make fits on the wire. These fail
// to compile if they drift apart: there is no index but 0.
var (
	_ = [1]byte{}[protocol.WriteTTL-protocol.WriteFlags(command.SetTTL)]
	_ = [1]byte{}[protocol.WriteReturnPrevious-protocol.WriteFlags(command.ReturnPrevious)]
	_ = [1]byte{}[protocol.WriteExpireAt-protocol.WriteFlags(command.SetExpireAt)]
	_ = [1]byte{}[protocol.ExpiryAt-protocol.ExpiryFlags(command.ExpiryAt)]
	_ = [1]byte{}[protocol.ExpiryReturnRow-protocol.ExpiryFlags(command.ExpiryReturnRow)]
	_ = [1]byte{}[protocol.RenameIfAbsent-protocol.RenameFlags(command.RenameIfAbsent)]
	_ = [1]byte{}[protocol.ValueBytesMax-command.ValueBytesMax]
)

const _ = uint(protocol.FloatBytesMax - command.FloatBytesMax)
