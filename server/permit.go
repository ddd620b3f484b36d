package server

import (
	"github.com/proa-kv/proa/access"
	"github.com/proa-kv/proa/command"
	"github.com/proa-kv/proa/internal/audit"
	"github.com/proa-kv/proa/protocol"
)

// What a request needs, for those who may not do everything. The whole of it is decided
// here, before a request is carried out or sent on; only a SCAN is cut down to what may be
// read when it is (runScan). A node that gets a request from another one believes that it
// has been decided: nodes authenticate each other. So does the second decoding of a request
// cost only those whose rights are limited.

// permitted reports whether a request of c may be carried out, and answers it where it may
// not.
func permitted(p *processor, c *conn, f *protocol.Frame, op protocol.Opcode, g *grant) bool {
	ok, err := p.examiner.allows(g.permit, op, f.Body)
	switch {
	case err != nil:
		p.refuse(c, f.ID, err)
	case !ok:
		c.audit(audit.Denied, op.String(), g.refusal(op))
		p.fail(c, f.ID, protocol.StatusPermission, 0, g.refusal(op))
	}
	return ok && err == nil
}

// examiner is scratch for the requests that are examined.
type examiner struct {
	decoder
	cmd   command.Command
	mget  protocol.MGet
	batch protocol.Batch
	txn   protocol.Txn
}

// allows reports whether a request may be carried out. An operation that is not here is
// refused. The error is that of a body that cannot be decoded.
func (x *examiner) allows(permit *access.Permit, op protocol.Opcode, body []byte) (ok bool, err error) {
	switch op {
	case protocol.OpHello, protocol.OpPing, protocol.OpRoutes:
		ok = true
	case protocol.OpStatus:
		ok = permit.Can(access.Monitor)
	case protocol.OpAdmin:
		var m protocol.Admin
		if err = m.Decode(body); err == nil {
			rights, known := command.AdminRights[string(m.Verb)]
			ok = permit.Can(rights) && (known || permit.Can(access.Admin))
		}
	case protocol.OpGet, protocol.OpExists, protocol.OpExpiry, protocol.OpWatch, protocol.OpGetRange,
		protocol.OpPut, protocol.OpDelete, protocol.OpIncr, protocol.OpExpire, protocol.OpPersist, protocol.OpAppend,
		protocol.OpSetRange, protocol.OpIncrFloat, protocol.OpSetExpiry, protocol.OpRename:
		if err = x.decodeWrite(op, body, &x.cmd); err == nil {
			ok = mayCarryOut(permit, &x.cmd)
		}
	case protocol.OpMGet:
		if err = x.mget.Decode(body); err == nil {
			ok = true
			for i := 0; i < len(x.mget.Keys) && ok; i++ {
				ok = permit.May(x.mget.Keys[i], access.Read)
			}
		}
	case protocol.OpBatch:
		if err = x.batch.Decode(body); err == nil {
			ok, err = x.allowsAll(permit, x.batch.Ops)
		}
	case protocol.OpTxn:
		if err = x.txn.Decode(body); err == nil {
			ok = true
			for i := 0; i < len(x.txn.Compares) && ok; i++ {
				ok = permit.May(x.txn.Compares[i].Key, access.Read)
			}
			for _, branch := range [...]protocol.Ops{x.txn.Then, x.txn.Else} {
				if ok && err == nil {
					ok, err = x.allowsAll(permit, branch)
				}
			}
		}
	case protocol.OpDeleteRange:
		var m protocol.DeleteRange
		if err = m.Decode(body); err == nil {
			start, end := m.Bounds()
			ok = permit.Writes.Covers(start, end)
		}
	case protocol.OpScan:
		ok = len(permit.Reads) > 0
	}
	return ok, err
}

// allowsAll reports whether all operations of a BATCH or TXN may be carried out.
func (x *examiner) allowsAll(permit *access.Permit, ops protocol.Ops) (ok bool, err error) {
	for _, op := range ops {
		if err := x.decodeWrite(op.Code, op.Body, &x.cmd); err != nil {
			return false, err
		}
		if !mayCarryOut(permit, &x.cmd) {
			return false, nil
		}
	}
	return true, nil
}

// mayCarryOut reports whether a command, which is no Batch, Txn or DeleteRange, may be
// carried out. Whoever may write a key may learn of its version, its length and whether it
// is there; what its value is, only who may read it.
func mayCarryOut(permit *access.Permit, cmd *command.Command) bool {
	need := access.Rights(0)
	switch cmd.Kind {
	case command.Get, command.Exists, command.Expiry, command.Watch, command.GetRange:
		need = access.Read
	case command.Put, command.Delete:
		need = access.Write
		if cmd.Flags&command.ReturnPrevious != 0 {
			need = access.ReadWrite
		}
	case command.SetExpiry:
		need = access.Write
		if cmd.Flags&command.ExpiryReturnRow != 0 {
			need = access.ReadWrite
		}
	case command.Expire, command.Persist, command.Append, command.SetRange:
		need = access.Write
	case command.Incr, command.IncrFloat: // the reply is the value
		need = access.ReadWrite
	case command.Rename: // who may read the destination reads what the source was
		source := access.ReadWrite
		if cmd.Flags&command.RenameKeepSource != 0 {
			source = access.Read
		}
		return permit.May(cmd.Key, source) && permit.May(cmd.Value, access.Write)
	}
	return need != 0 && permit.May(cmd.Key, need)
}

// refusal says why an operation is refused.
func (g *grant) refusal(op protocol.Opcode) string {
	who := "user " + g.login.User
	if g.login.User == "" {
		who = "a connection without a user"
	}
	switch op {
	case protocol.OpStatus:
		return who + " may not do this: it takes the right monitor"
	case protocol.OpAdmin:
		return who + " may not do this: it takes the right admin, or monitor for the cluster's status"
	case protocol.OpDeleteRange:
		return who + " may not do this: it takes the right write on all keys of the range"
	case protocol.OpScan:
		return who + " may not read any key"
	case protocol.OpGet, protocol.OpExists, protocol.OpExpiry, protocol.OpWatch, protocol.OpGetRange, protocol.OpMGet:
		return who + " may not do this: it takes the right read on the prefix of each key"
	}
	return who + " may not do this: it takes the right write on the prefix of each key, and read where the reply shows a value"
}
