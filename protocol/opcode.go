package protocol

// Opcode says what a request asks for.
type Opcode uint8

const (
	OpHello   Opcode = 1
	OpPing    Opcode = 2
	OpGet     Opcode = 3
	OpPut     Opcode = 4
	OpDelete  Opcode = 5
	OpIncr    Opcode = 6
	OpExpire  Opcode = 7
	OpPersist Opcode = 8
	OpExists  Opcode = 9
	OpMGet    Opcode = 10
	OpBatch   Opcode = 11
	OpTxn     Opcode = 12
	OpScan    Opcode = 13
	OpRoutes  Opcode = 14
	OpStatus  Opcode = 15
	OpAdmin   Opcode = 16

	OpAppend    Opcode = 17
	OpSetRange  Opcode = 18
	OpIncrFloat Opcode = 19
	OpSetExpiry Opcode = 20
	OpExpiry    Opcode = 21
	OpRename    Opcode = 22
	OpWatch     Opcode = 23
	OpGetRange  Opcode = 24

	OpDeleteRange Opcode = 25

	opcodeEnd Opcode = 26
)

var opcodeNames = [...]string{
	OpHello: "HELLO", OpPing: "PING", OpGet: "GET", OpPut: "PUT", OpDelete: "DELETE",
	OpIncr: "INCR", OpExpire: "EXPIRE", OpPersist: "PERSIST", OpExists: "EXISTS",
	OpMGet: "MGET", OpBatch: "BATCH", OpTxn: "TXN", OpScan: "SCAN",
	OpRoutes: "ROUTES", OpStatus: "STATUS", OpAdmin: "ADMIN",
	OpAppend: "APPEND", OpSetRange: "SETRANGE", OpIncrFloat: "INCRFLOAT",
	OpSetExpiry: "SETEXPIRY", OpExpiry: "EXPIRY", OpRename: "RENAME",
	OpWatch: "WATCH", OpGetRange: "GETRANGE", OpDeleteRange: "DELETE_RANGE",
}

// Known reports whether o is an opcode of this protocol version.
func (o Opcode) Known() bool { return o > 0 && o < opcodeEnd }

// String returns the operation's name as the documentation spells it.
func (o Opcode) String() string {
	if !o.Known() {
		return "UNKNOWN"
	}
	return opcodeNames[o]
}
