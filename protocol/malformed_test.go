package protocol

import (
	"bytes"
	"errors"
	"math"
	"strings"
	"testing"
)

// wire builds a body: integers by their Go type, strings and slices as they are.
func wire(parts ...any) []byte {
	var b []byte
	for _, p := range parts {
		switch v := p.(type) {
		case uint8:
			b = append(b, v)
		case uint16:
			b = appendU16(b, v)
		case uint32:
			b = appendU32(b, v)
		case uint64:
			b = appendU64(b, v)
		case string:
			b = append(b, v...)
		case []byte:
			b = append(b, v...)
		case message:
			b = v.AppendTo(b)
		default:
			panic("wire: unexpected type")
		}
	}
	return b
}

type (
	u8  = uint8
	u16 = uint16
	u32 = uint32
	u64 = uint64
)

var (
	longestKey   = strings.Repeat("k", KeyBytesMax)
	longestValue = bytes.Repeat([]byte{'v'}, ValueBytesMax)
	longestName  = strings.Repeat("n", NameBytesMax)
)

// repeatOps returns n operations with empty bodies, after their count.
func repeatOps(n int, code Opcode) []byte {
	return append(wire(u32(n)), bytes.Repeat(wire(u8(code), u32(0)), n)...)
}

func repeatCompares(n int) []byte {
	c := wire(u8(CompareVersion), u8(Equal), u16(1), "k", u64(1))
	return append(wire(u32(n)), bytes.Repeat(c, n)...)
}

// boundaries has, for each message, both sides of every bound, and every way
// of being malformed. A nil error means that the body must decode.
var boundaries = []struct {
	name string
	into message
	body []byte
	want error
}{
	{"key: empty", new(Key), nil, ErrOutOfRange},
	{"key: shortest", new(Key), wire("k"), nil},
	{"key: longest", new(Key), wire(longestKey), nil},
	{"key: too long", new(Key), wire(longestKey, "k"), ErrTooLarge},

	{"put: nothing", new(Put), nil, ErrTruncated},
	{"put: key empty", new(Put), wire(u8(0), u16(0), "v"), ErrOutOfRange},
	{"put: value empty", new(Put), wire(u8(0), u16(1), "k"), nil},
	{"put: key length lies", new(Put), wire(u8(0), u16(3), "kv"), ErrTruncated},
	{"put: longest key", new(Put), wire(u8(0), u16(KeyBytesMax), longestKey), nil},
	{"put: key too long", new(Put), wire(u8(0), u16(KeyBytesMax+1), longestKey, "k"), ErrTooLarge},
	{"put: longest value", new(Put), wire(u8(0), u16(1), "k", longestValue), nil},
	{"put: value too long", new(Put), wire(u8(0), u16(1), "k", longestValue, "v"), ErrTooLarge},
	{"put: unknown high option", new(Put), wire(u8(1<<7), u16(1), "k"), ErrUnknownOption},
	{"put: TTL 0", new(Put), wire(u8(WriteTTL), u16(1), u64(0), "k"), ErrOutOfRange},
	{"put: TTL 1", new(Put), wire(u8(WriteTTL), u16(1), u64(1), "k"), nil},
	{"put: TTL longest", new(Put), wire(u8(WriteTTL), u16(1), u64(TTLMillisMax), "k"), nil},
	{"put: TTL too long", new(Put), wire(u8(WriteTTL), u16(1), u64(TTLMillisMax+1), "k"), ErrOutOfRange},
	{"put: TTL cut off", new(Put), wire(u8(WriteTTL), u16(1), u32(1)), ErrTruncated},
	{"put: TTL and keep TTL", new(Put), wire(u8(WriteTTL|WriteKeepTTL), u16(1), u64(1), "k"), ErrOutOfRange},
	{"put: time 0", new(Put), wire(u8(WriteExpireAt), u16(1), u64(0), "k"), nil},
	{"put: time latest", new(Put), wire(u8(WriteExpireAt), u16(1), u64(ExpireAtMillisMax), "k"), nil},
	{"put: time too late", new(Put), wire(u8(WriteExpireAt), u16(1), u64(ExpireAtMillisMax+1), "k"), ErrOutOfRange},
	{"put: time cut off", new(Put), wire(u8(WriteExpireAt), u16(1), u32(1)), ErrTruncated},
	{"put: time and TTL", new(Put), wire(u8(WriteExpireAt|WriteTTL), u16(1), u64(1), "k"), ErrOutOfRange},
	{"put: time and keep TTL", new(Put), wire(u8(WriteExpireAt|WriteKeepTTL), u16(1), u64(1), "k"), ErrOutOfRange},
	{"put: time and version", new(Put), wire(u8(WriteExpireAt|WriteIfVersion), u16(1), u64(1), u64(2), "k"), nil},
	{"put: absent and present", new(Put), wire(u8(WriteIfAbsent|WriteIfPresent), u16(1), "k"), ErrOutOfRange},
	{"put: present and version", new(Put), wire(u8(WriteIfPresent|WriteIfVersion), u16(1), u64(1), "k"), ErrOutOfRange},
	{"put: absent and version", new(Put), wire(u8(WriteIfAbsent|WriteIfVersion), u16(1), u64(1), "k"), ErrOutOfRange},
	{"put: version cut off", new(Put), wire(u8(WriteIfVersion), u16(1), u32(1)), ErrTruncated},
	{"put: version 0", new(Put), wire(u8(WriteIfVersion), u16(1), u64(0), "k"), nil},

	{"delete: nothing", new(Delete), nil, ErrTruncated},
	{"delete: key empty", new(Delete), wire(u8(0)), ErrOutOfRange},
	{"delete: longest key", new(Delete), wire(u8(0), longestKey), nil},
	{"delete: key too long", new(Delete), wire(u8(0), longestKey, "k"), ErrTooLarge},
	{"delete: TTL", new(Delete), wire(u8(WriteTTL), u64(1), "k"), ErrUnknownOption},
	{"delete: time", new(Delete), wire(u8(WriteExpireAt), u64(1), "k"), ErrUnknownOption},
	{"delete: if absent", new(Delete), wire(u8(WriteIfAbsent), "k"), ErrUnknownOption},
	{"delete: version cut off", new(Delete), wire(u8(WriteIfVersion), u32(1)), ErrTruncated},
	{"delete: version and no key", new(Delete), wire(u8(WriteIfVersion), u64(1)), ErrOutOfRange},

	{"incr: delta cut off", new(Incr), wire(u32(1)), ErrTruncated},
	{"incr: key empty", new(Incr), wire(u64(1)), ErrOutOfRange},
	{"incr: smallest delta", new(Incr), wire(u64(1<<63), "k"), nil},
	{"incr: key too long", new(Incr), wire(u64(1), longestKey, "k"), ErrTooLarge},
	{"incr reply: trailing", new(IncrReply), wire(u64(1), u64(1), u8(0)), ErrTrailingBytes},

	{"expire: TTL cut off", new(Expire), wire(u32(1)), ErrTruncated},
	{"expire: TTL 0", new(Expire), wire(u64(0), "k"), ErrOutOfRange},
	{"expire: TTL longest", new(Expire), wire(u64(TTLMillisMax), "k"), nil},
	{"expire: TTL too long", new(Expire), wire(u64(TTLMillisMax+1), "k"), ErrOutOfRange},
	{"expire: TTL negative", new(Expire), wire(u64(math.MaxUint64), "k"), ErrOutOfRange},
	{"expire: key empty", new(Expire), wire(u64(1)), ErrOutOfRange},
	{"expire: key too long", new(Expire), wire(u64(1), longestKey, "k"), ErrTooLarge},

	{"append: nothing", new(Append), nil, ErrTruncated},
	{"append: key empty", new(Append), wire(u16(0), "v"), ErrOutOfRange},
	{"append: key length lies", new(Append), wire(u16(2), "k"), ErrTruncated},
	{"append: longest key", new(Append), wire(u16(KeyBytesMax), longestKey, "v"), nil},
	{"append: key too long", new(Append), wire(u16(KeyBytesMax+1), longestKey, "k"), ErrTooLarge},
	{"append: value empty", new(Append), wire(u16(1), "k"), nil},
	{"append: longest value", new(Append), wire(u16(1), "k", longestValue), nil},
	{"append: value too long", new(Append), wire(u16(1), "k", longestValue, "v"), ErrTooLarge},

	{"setrange: offset cut off", new(SetRange), wire(u16(0)), ErrTruncated},
	{"setrange: key length missing", new(SetRange), wire(u32(0)), ErrTruncated},
	{"setrange: key empty", new(SetRange), wire(u32(0), u16(0), "v"), ErrOutOfRange},
	{"setrange: key length lies", new(SetRange), wire(u32(0), u16(2), "k"), ErrTruncated},
	{"setrange: key too long", new(SetRange), wire(u32(0), u16(KeyBytesMax+1), longestKey, "k"), ErrTooLarge},
	{"setrange: largest offset", new(SetRange), wire(u32(math.MaxUint32), u16(1), "kv"), nil},
	{"setrange: longest value", new(SetRange), wire(u32(0), u16(1), "k", longestValue), nil},
	{"setrange: value too long", new(SetRange), wire(u32(0), u16(1), "k", longestValue, "v"), ErrTooLarge},

	{"incrfloat: nothing", new(IncrFloat), nil, ErrTruncated},
	{"incrfloat: key empty", new(IncrFloat), wire(u16(0), "1"), ErrOutOfRange},
	{"incrfloat: key length lies", new(IncrFloat), wire(u16(2), "k"), ErrTruncated},
	{"incrfloat: key too long", new(IncrFloat), wire(u16(KeyBytesMax+1), longestKey, "k"), ErrTooLarge},
	{"incrfloat: increment empty", new(IncrFloat), wire(u16(1), "k"), nil},
	{"incrfloat: longest increment", new(IncrFloat), wire(u16(1), "k", make([]byte, IncrementBytesMax)), nil},
	{"incrfloat: increment too long", new(IncrFloat), wire(u16(1), "k", make([]byte, IncrementBytesMax+1)), ErrTooLarge},
	{"incrfloat reply: cut off", new(FloatReply), wire(u32(1)), ErrTruncated},
	{"incrfloat reply: without number", new(FloatReply), wire(u64(1)), nil},
	{"incrfloat reply: longest", new(FloatReply), wire(u64(1), make([]byte, FloatBytesMax)), nil},
	{"incrfloat reply: too long", new(FloatReply), wire(u64(1), make([]byte, FloatBytesMax+1)), ErrTooLarge},

	{"setexpiry: nothing", new(SetExpiry), nil, ErrTruncated},
	{"setexpiry: time cut off", new(SetExpiry), wire(u8(0), u32(1)), ErrTruncated},
	{"setexpiry: key empty", new(SetExpiry), wire(u8(0), u64(1)), ErrOutOfRange},
	{"setexpiry: key too long", new(SetExpiry), wire(u8(0), u64(1), longestKey, "k"), ErrTooLarge},
	{"setexpiry: unknown option", new(SetExpiry), wire(u8(1<<7), u64(1), "k"), ErrUnknownOption},
	{"setexpiry: TTL 0", new(SetExpiry), wire(u8(0), u64(0), "k"), ErrOutOfRange},
	{"setexpiry: TTL 0 with the row", new(SetExpiry), wire(u8(ExpiryReturnRow), u64(0), "k"), ErrOutOfRange},
	{"setexpiry: TTL 1", new(SetExpiry), wire(u8(0), u64(1), "k"), nil},
	{"setexpiry: TTL longest", new(SetExpiry), wire(u8(0), u64(TTLMillisMax), "k"), nil},
	{"setexpiry: TTL too long", new(SetExpiry), wire(u8(0), u64(TTLMillisMax+1), "k"), ErrOutOfRange},
	{"setexpiry: time 0", new(SetExpiry), wire(u8(ExpiryAt), u64(0), "k"), nil},
	{"setexpiry: time latest", new(SetExpiry), wire(u8(ExpiryAt), u64(ExpireAtMillisMax), "k"), nil},
	{"setexpiry: time too late", new(SetExpiry), wire(u8(ExpiryAt), u64(ExpireAtMillisMax+1), "k"), ErrOutOfRange},
	{"setexpiry: remove", new(SetExpiry), wire(u8(ExpiryRemove|ExpiryReturnRow), u64(0), "k"), nil},
	{"setexpiry: remove with a time", new(SetExpiry), wire(u8(ExpiryRemove), u64(1), "k"), ErrOutOfRange},
	{"setexpiry: remove and time", new(SetExpiry), wire(u8(ExpiryRemove|ExpiryAt), u64(0), "k"), ErrOutOfRange},
	{"setexpiry: none and some", new(SetExpiry), wire(u8(ExpiryIfNone|ExpiryIfSome), u64(1), "k"), ErrOutOfRange},
	{"setexpiry: none and later", new(SetExpiry), wire(u8(ExpiryIfNone|ExpiryIfLater), u64(1), "k"), ErrOutOfRange},
	{"setexpiry: none and earlier", new(SetExpiry), wire(u8(ExpiryIfNone|ExpiryIfEarlier), u64(1), "k"), ErrOutOfRange},
	{"setexpiry: later and earlier", new(SetExpiry), wire(u8(ExpiryIfLater|ExpiryIfEarlier), u64(1), "k"), ErrOutOfRange},
	{"setexpiry: some and later", new(SetExpiry), wire(u8(ExpiryIfSome|ExpiryIfLater), u64(1), "k"), nil},
	{"setexpiry: some and earlier", new(SetExpiry), wire(u8(ExpiryIfSome|ExpiryIfEarlier), u64(1), "k"), nil},
	{"getrange: cut off", new(GetRange), wire(u64(1), u32(0)), ErrTruncated},
	{"getrange: key empty", new(GetRange), wire(u64(1), u64(0)), ErrOutOfRange},
	{"getrange: key too long", new(GetRange), wire(u64(1), u64(0), longestKey, "k"), ErrTooLarge},
	{"range reply: cut off", new(RangeReply), wire(u64(1), u16(0)), ErrTruncated},
	{"watch reply: cut off", new(WatchReply), wire(u64(1), u32(0)), ErrTruncated},
	{"watch reply: trailing", new(WatchReply), wire(u64(1), u64(0), u8(0)), ErrTrailingBytes},
	{"expiry reply: cut off", new(ExpiryReply), wire(u64(1), u32(0)), ErrTruncated},
	{"expiry reply: trailing", new(ExpiryReply), wire(u64(1), u64(0), u8(0)), ErrTrailingBytes},

	{"rename: nothing", new(Rename), nil, ErrTruncated},
	{"rename: source length lies", new(Rename), wire(u8(0), u16(3), "ab"), ErrTruncated},
	{"rename: source empty", new(Rename), wire(u8(0), u16(0), "b"), ErrOutOfRange},
	{"rename: destination empty", new(Rename), wire(u8(0), u16(1), "a"), ErrOutOfRange},
	{"rename: longest", new(Rename), wire(u8(0), u16(KeyBytesMax), longestKey, longestKey), nil},
	{"rename: source too long", new(Rename), wire(u8(0), u16(KeyBytesMax+1), longestKey, "kb"), ErrTooLarge},
	{"rename: destination too long", new(Rename), wire(u8(0), u16(1), "a", longestKey, "k"), ErrTooLarge},
	{"rename: all options", new(Rename), wire(u8(3), u16(1), "ab"), nil},
	{"rename: unknown option", new(Rename), wire(u8(4), u16(1), "ab"), ErrUnknownOption},

	{"write reply: nothing", new(WriteReply), nil, ErrTruncated},
	{"write reply: presence missing", new(WriteReply), wire(u64(1)), ErrTruncated},
	{"write reply: presence unknown", new(WriteReply), wire(u64(1), u8(3)), ErrOutOfRange},
	{"write reply: previous without presence", new(WriteReply), wire(u64(1), u8(0), u64(1)), ErrTrailingBytes},
	{"write reply: previous cut off", new(WriteReply), wire(u64(1), u8(1), u64(1), u32(0)), ErrTruncated},
	{"write reply: omitted with a value", new(WriteReply), wire(u64(1), u8(2), u64(1), u64(0), "v"), ErrTrailingBytes},

	{"row reply: cut off", new(RowReply), wire(u64(1), u32(0)), ErrTruncated},

	{"mget: nothing", new(MGet), nil, ErrTruncated},
	{"mget: no keys", new(MGet), wire(u32(0)), ErrOutOfRange},
	{"mget: most keys", new(MGet), append(wire(u32(OpsMax)), bytes.Repeat(wire(u16(1), "k"), OpsMax)...), nil},
	{"mget: too many keys", new(MGet), append(wire(u32(OpsMax+1)), bytes.Repeat(wire(u16(1), "k"), OpsMax+1)...), ErrTooManyOps},
	{"mget: count lies", new(MGet), wire(u32(2), u16(1), "k"), ErrTruncated},
	{"mget: count lies hugely", new(MGet), wire(u32(math.MaxUint32), u16(1), "k"), ErrTooManyOps},
	{"mget: key length lies", new(MGet), wire(u32(1), u16(2), "k"), ErrTruncated},
	{"mget: key empty", new(MGet), wire(u32(2), u16(1), "k", u16(0)), ErrOutOfRange},
	{"mget: key too long", new(MGet), wire(u32(1), u16(KeyBytesMax+1), longestKey, "k"), ErrTooLarge},
	{"mget: trailing", new(MGet), wire(u32(1), u16(1), "k", u8(0)), ErrTrailingBytes},
	{"mget reply: nothing", new(MGetReply), nil, nil},
	{"mget reply: row cut off", new(MGetReply), wire(u8(0), u64(1)), ErrTruncated},
	{"mget reply: value length lies", new(MGetReply), wire(u8(0), u64(1), u64(0), u32(2), "v"), ErrTruncated},
	{"mget reply: value length negative", new(MGetReply), wire(u8(0), u64(1), u64(0), u32(math.MaxUint32), "v"), ErrTruncated},

	{"batch: nothing", new(Batch), nil, ErrTruncated},
	{"batch: count cut off", new(Batch), wire(u8(0), u16(1)), ErrTruncated},
	{"batch: empty", new(Batch), wire(u8(0), u32(0)), ErrOutOfRange},
	{"batch: unknown option", new(Batch), wire(u8(2), u32(1), u8(OpPut), u32(0)), ErrUnknownOption},
	{"batch: most operations", new(Batch), wire(u8(0), repeatOps(OpsMax, OpPut)), nil},
	{"batch: too many operations", new(Batch), wire(u8(0), repeatOps(OpsMax+1, OpPut)), ErrTooManyOps},
	{"batch: count lies", new(Batch), wire(u8(0), u32(2), u8(OpPut), u32(0)), ErrTruncated},
	{"batch: count lies hugely", new(Batch), wire(u8(0), u32(math.MaxUint32)), ErrTooManyOps},
	{"batch: body length lies", new(Batch), wire(u8(0), u32(1), u8(OpPut), u32(2), "x"), ErrTruncated},
	{"batch: body length negative", new(Batch), wire(u8(0), u32(1), u8(OpPut), u32(math.MaxUint32), "x"), ErrTruncated},
	{"batch: trailing", new(Batch), wire(u8(0), u32(1), u8(OpPut), u32(0), u8(0)), ErrTrailingBytes},
	{"batch: new writes", new(Batch), wire(u8(0), u32(5), u8(OpAppend), u32(0), u8(OpSetRange), u32(0), u8(OpIncrFloat), u32(0), u8(OpSetExpiry), u32(0), u8(OpRename), u32(0)), nil},
	{"batch: SCAN", new(Batch), wire(u8(0), u32(1), u8(OpScan), u32(0)), ErrOpcodeInBatch},
	{"batch: BATCH", new(Batch), wire(u8(0), u32(1), u8(OpBatch), u32(0)), ErrOpcodeInBatch},
	{"batch: opcode 0", new(Batch), wire(u8(0), u32(1), u8(0), u32(0)), ErrOpcodeInBatch},
	{"batch: unknown opcode", new(Batch), wire(u8(0), u32(1), u8(200), u32(0)), ErrOpcodeInBatch},
	{"batch reply: too many results", new(BatchReply), repeatOps(OpsMax+1, 0), ErrTooManyOps},
	{"batch reply: most results", new(BatchReply), repeatOps(OpsMax, 0), nil},
	{"batch reply: body length lies", new(BatchReply), wire(u32(1), u8(0), u32(9)), ErrTruncated},
	{"batch reply: body length negative", new(BatchReply), wire(u32(1), u8(0), u32(1<<31)), ErrTruncated},
	{"batch reply: trailing", new(BatchReply), wire(u32(0), u8(0)), ErrTrailingBytes},

	{"txn: nothing", new(Txn), nil, ErrTruncated},
	{"txn: empty", new(Txn), wire(u32(0), u32(0), u32(0)), ErrOutOfRange},
	{"txn: comparison only", new(Txn), wire(repeatCompares(1), u32(0), u32(0)), nil},
	{"txn: GET", new(Txn), wire(u32(0), u32(1), u8(OpGet), u32(1), "k", u32(0)), nil},
	{"txn: EXPIRY", new(Txn), wire(u32(0), u32(1), u8(OpExpiry), u32(1), "k", u32(0)), nil},
	{"txn: DELETE_RANGE", new(Txn), wire(u32(0), u32(1), u8(OpDeleteRange), u32(5), u8(2), u16(0), u16(0), u32(0)), ErrOpcodeInBatch},
	{"txn: WATCH", new(Txn), wire(u32(0), u32(1), u8(OpWatch), u32(1), "k", u32(0)), nil},
	{"txn: SCAN", new(Txn), wire(u32(0), u32(1), u8(OpScan), u32(0), u32(0)), ErrOpcodeInBatch},
	{"txn: TXN", new(Txn), wire(u32(0), u32(0), u32(1), u8(OpTxn), u32(0)), ErrOpcodeInBatch},
	{"txn: most comparisons", new(Txn), wire(repeatCompares(OpsMax), u32(0), u32(0)), nil},
	{"txn: too many comparisons", new(Txn), wire(repeatCompares(OpsMax+1), u32(0), u32(0)), ErrTooManyOps},
	{"txn: most in sum", new(Txn), wire(repeatCompares(1), repeatOps(OpsMax-2, OpPut), repeatOps(1, OpPut)), nil},
	{"txn: too many in sum", new(Txn), wire(repeatCompares(1), repeatOps(OpsMax-1, OpPut), repeatOps(1, OpPut)), ErrTooManyOps},
	{"txn: absence that is less", new(Txn), wire(u32(1), u8(3), u8(3), u16(1), "k", u64(0), u32(0), u32(0)), ErrOutOfRange},
	{"txn: target unknown", new(Txn), wire(u32(1), u8(4), u8(1), u16(1), "k", u64(0), u32(0), u32(0)), ErrOutOfRange},
	{"txn: target 0", new(Txn), wire(u32(1), u8(0), u8(1), u16(1), "k", u64(0), u32(0), u32(0)), ErrOutOfRange},
	{"txn: relation unknown", new(Txn), wire(u32(1), u8(1), u8(5), u16(1), "k", u64(0), u32(0), u32(0)), ErrOutOfRange},
	{"txn: relation 0", new(Txn), wire(u32(1), u8(1), u8(0), u16(1), "k", u64(0), u32(0), u32(0)), ErrOutOfRange},
	{"txn: comparison without key", new(Txn), wire(u32(1), u8(1), u8(1), u16(0), u64(0), u32(0), u32(0)), ErrOutOfRange},
	{"txn: comparison with longest key", new(Txn), wire(u32(1), u8(1), u8(1), u16(KeyBytesMax), longestKey, u64(0), u32(0), u32(0)), nil},
	{"txn: comparison with key too long", new(Txn), wire(u32(1), u8(1), u8(1), u16(KeyBytesMax+1), longestKey, "k", u64(0), u32(0), u32(0)), ErrTooLarge},
	{"txn: operand length lies", new(Txn), wire(u32(1), u8(2), u8(1), u16(1), "k", u32(5), u32(0)), ErrTruncated},
	{"txn: operand length negative", new(Txn), wire(u32(1), u8(2), u8(1), u16(1), "k", u32(math.MaxUint32)), ErrTruncated},
	{"txn: else missing", new(Txn), wire(repeatCompares(1), u32(0)), ErrTruncated},
	{"txn: trailing", new(Txn), wire(repeatCompares(1), u32(0), u32(0), u8(0)), ErrTrailingBytes},
	{"txn reply: branch byte", new(TxnReply), wire(u8(2), u32(0)), ErrOutOfRange},
	{"txn reply: too many results", new(TxnReply), wire(u8(1), repeatOps(OpsMax+1, 0)), ErrTooManyOps},
	{"txn reply: trailing", new(TxnReply), wire(u8(1), u32(0), u8(0)), ErrTrailingBytes},

	{"delete range: nothing", new(DeleteRange), nil, ErrTruncated},
	{"delete range: from a key", new(DeleteRange), wire(u8(0), u16(1), "k", u16(0)), nil},
	{"delete range: up to a key", new(DeleteRange), wire(u8(0), u16(0), u16(1), "k"), nil},
	{"delete range: everything", new(DeleteRange), wire(u8(DeleteRangeAll), u16(0), u16(0)), nil},
	{"delete range: everything, not asked for", new(DeleteRange), wire(u8(0), u16(0), u16(0)), ErrOutOfRange},
	{"delete range: everything, by a prefix", new(DeleteRange), wire(u8(DeleteRangePrefix), u16(0), u16(0)), ErrOutOfRange},
	{"delete range: everything from a key on", new(DeleteRange), wire(u8(DeleteRangeAll), u16(1), "k", u16(0)), ErrOutOfRange},
	{"delete range: unknown option", new(DeleteRange), wire(u8(4), u16(1), "k", u16(0)), ErrUnknownOption},
	{"delete range: prefix with end", new(DeleteRange), wire(u8(DeleteRangePrefix), u16(1), "p", u16(1), "q"), ErrOutOfRange},
	{"delete range: longest start", new(DeleteRange), wire(u8(0), u16(KeyBytesMax), longestKey, u16(0)), nil},
	{"delete range: start too long", new(DeleteRange), wire(u8(0), u16(KeyBytesMax+1), longestKey, "k", u16(0)), ErrTooLarge},
	{"delete range: end behind the longest key", new(DeleteRange), wire(u8(0), u16(0), u16(KeyBytesMax+1), longestKey, "\x00"), nil},
	{"delete range: end too long", new(DeleteRange), wire(u8(0), u16(0), u16(KeyBytesMax+2), longestKey, "\x00\x00"), ErrTooLarge},
	{"delete range: end length lies", new(DeleteRange), wire(u8(0), u16(0), u16(9)), ErrTruncated},
	{"delete range: trailing", new(DeleteRange), wire(u8(0), u16(1), "k", u16(0), u8(0)), ErrTrailingBytes},

	{"scan: nothing", new(Scan), nil, ErrTruncated},
	{"scan: everything", new(Scan), wire(u8(0), u32(0), u32(0), u16(0), u16(0), u16(0)), nil},
	{"scan: unknown option", new(Scan), wire(u8(8), u32(0), u32(0), u16(0), u16(0), u16(0)), ErrUnknownOption},
	{"scan: largest", new(Scan), wire(u8(0), u32(ScanCountMax), u32(ScanBytesMax), u16(0), u16(0), u16(0)), nil},
	{"scan: count too large", new(Scan), wire(u8(0), u32(ScanCountMax+1), u32(0), u16(0), u16(0), u16(0)), ErrOutOfRange},
	{"scan: bytes too large", new(Scan), wire(u8(0), u32(0), u32(ScanBytesMax+1), u16(0), u16(0), u16(0)), ErrOutOfRange},
	{"scan: longest start", new(Scan), wire(u8(0), u32(0), u32(0), u16(KeyBytesMax), longestKey, u16(0), u16(0)), nil},
	{"scan: start too long", new(Scan), wire(u8(0), u32(0), u32(0), u16(KeyBytesMax+1), longestKey, "k", u16(0), u16(0)), ErrTooLarge},
	{"scan: end behind the longest key", new(Scan), wire(u8(0), u32(0), u32(0), u16(0), u16(KeyBytesMax+1), longestKey, "\x00", u16(0)), nil},
	{"scan: end too long", new(Scan), wire(u8(0), u32(0), u32(0), u16(0), u16(KeyBytesMax+2), longestKey, "\x00\x00", u16(0)), ErrTooLarge},
	{"scan: longest cursor", new(Scan), wire(u8(0), u32(0), u32(0), u16(0), u16(0), u16(CursorBytesMax), make([]byte, CursorBytesMax)), nil},
	{"scan: cursor too long", new(Scan), wire(u8(0), u32(0), u32(0), u16(0), u16(0), u16(CursorBytesMax+1), make([]byte, CursorBytesMax+1)), ErrTooLarge},
	{"scan: prefix", new(Scan), wire(u8(ScanPrefix), u32(0), u32(0), u16(1), "p", u16(0), u16(0)), nil},
	{"scan: prefix with end", new(Scan), wire(u8(ScanPrefix), u32(0), u32(0), u16(1), "p", u16(1), "q", u16(0)), ErrOutOfRange},
	{"scan: end length lies", new(Scan), wire(u8(0), u32(0), u32(0), u16(0), u16(9), u16(0)), ErrTruncated},
	{"scan: trailing", new(Scan), wire(u8(0), u32(0), u32(0), u16(0), u16(0), u16(0), u8(0)), ErrTrailingBytes},
	{"scan reply: nothing", new(ScanReply), nil, ErrTruncated},
	{"scan reply: longest cursor", new(ScanReply), wire(u16(CursorBytesMax), make([]byte, CursorBytesMax)), nil},
	{"scan reply: cursor too long", new(ScanReply), wire(u16(CursorBytesMax+1), make([]byte, CursorBytesMax+1)), ErrTooLarge},
	{"scan reply: cursor length lies", new(ScanReply), wire(u16(1)), ErrTruncated},
	{"scan reply: key empty", new(ScanReply), wire(u16(0), u64(1), u64(0), u16(0), u32(0)), ErrOutOfRange},
	{"scan reply: row cut off", new(ScanReply), wire(u16(0), u64(1), u64(0)), ErrTruncated},
	{"scan reply: value length lies", new(ScanReply), wire(u16(0), u64(1), u64(0), u16(1), u32(2), "kv"), ErrTruncated},
	{"scan reply: value length negative", new(ScanReply), wire(u16(0), u64(1), u64(0), u16(1), u32(1<<31), "kv"), ErrTruncated},

	{"hello: nothing", new(Hello), nil, ErrTruncated},
	{"hello: longest names", new(Hello), wire(u8(1), u8(1), u64(0), u16(NameBytesMax), longestName, u16(NameBytesMax), longestName, u16(NameBytesMax), longestName), nil},
	{"hello: name too long", new(Hello), wire(u8(1), u8(1), u64(0), u16(NameBytesMax+1), longestName, "n", u16(0), u16(0)), ErrTooLarge},
	{"hello: user too long", new(Hello), wire(u8(1), u8(1), u64(0), u16(0), u16(NameBytesMax+1), longestName, "n", u16(0)), ErrTooLarge},
	{"hello: secret too long", new(Hello), wire(u8(1), u8(1), u64(0), u16(0), u16(0), u16(NameBytesMax+1), longestName, "n"), ErrTooLarge},
	{"hello: versions reversed", new(Hello), wire(u8(2), u8(1), u64(0), u16(0), u16(0), u16(0)), ErrOutOfRange},
	{"hello: version 0", new(Hello), wire(u8(0), u8(1), u64(0), u16(0), u16(0), u16(0)), ErrOutOfRange},
	{"hello: unknown features", new(Hello), wire(u8(1), u8(255), u64(math.MaxUint64), u16(0), u16(0), u16(0)), nil},
	{"hello: trailing", new(Hello), wire(u8(1), u8(1), u64(0), u16(0), u16(0), u16(0), u8(0)), ErrTrailingBytes},
	{"hello reply: longest version", new(HelloReply), wire(&HelloReply{ServerVersion: []byte(longestName)}), nil},
	{"hello reply: version too long", new(HelloReply), wire(&HelloReply{ServerVersion: []byte(longestName + "n")}), ErrTooLarge},
	{"hello reply: trailing", new(HelloReply), wire(new(HelloReply), u8(0)), ErrTrailingBytes},

	{"routes: nothing", new(RoutesReply), nil, ErrTruncated},
	{"routes: empty", new(RoutesReply), wire(u64(1), u16(0), u16(0)), nil},
	{"routes: node count lies", new(RoutesReply), wire(u64(1), u16(65535), u64(1), u16(0)), ErrTruncated},
	{"routes: longest address", new(RoutesReply), wire(u64(1), u16(1), u64(1), u16(AddressBytesMax), make([]byte, AddressBytesMax), u16(0)), nil},
	{"routes: address too long", new(RoutesReply), wire(u64(1), u16(1), u64(1), u16(AddressBytesMax+1), make([]byte, AddressBytesMax+1), u16(0)), ErrTooLarge},
	{"routes: shard count lies", new(RoutesReply), wire(u64(1), u16(0), u16(2), u16(0), u64(1), u16(0)), ErrTruncated},
	{"routes: slot count lies", new(RoutesReply), wire(u64(1), u16(0), u16(1), u16(0), u64(1), u16(2), u16(0), u16(1)), ErrTruncated},
	{"routes: all slots", new(RoutesReply), wire(u64(1), u16(0), u16(1), u16(0), u64(1), u16(1), u16(0), u16(Slots-1)), nil},
	{"routes: slot too high", new(RoutesReply), wire(u64(1), u16(0), u16(1), u16(0), u64(1), u16(1), u16(0), u16(Slots)), ErrOutOfRange},
	{"routes: slots reversed", new(RoutesReply), wire(u64(1), u16(0), u16(1), u16(0), u64(1), u16(1), u16(9), u16(8)), ErrOutOfRange},
	{"routes: trailing", new(RoutesReply), wire(u64(1), u16(0), u16(0), u8(0)), ErrTrailingBytes},

	{"admin: nothing", new(Admin), nil, ErrTruncated},
	{"admin: verb empty", new(Admin), wire(u16(0), "{}"), ErrOutOfRange},
	{"admin: shortest", new(Admin), wire(u16(1), "v"), nil},
	{"admin: longest verb", new(Admin), wire(u16(VerbBytesMax), longestName[:VerbBytesMax]), nil},
	{"admin: verb too long", new(Admin), wire(u16(VerbBytesMax+1), longestName[:VerbBytesMax+1]), ErrTooLarge},
	{"admin: verb length lies", new(Admin), wire(u16(2), "v"), ErrTruncated},
	{"admin: most arguments", new(Admin), wire(u16(1), "v", make([]byte, AdminBytesMax)), nil},
	{"admin: too many arguments", new(Admin), wire(u16(1), "v", make([]byte, AdminBytesMax+1)), ErrTooLarge},

	{"error: nothing", new(ErrorReply), nil, ErrTruncated},
	{"error: longest message", new(ErrorReply), wire(u32(0), u16(MessageBytesMax), make([]byte, MessageBytesMax)), nil},
	{"error: message too long", new(ErrorReply), wire(u32(0), u16(MessageBytesMax+1), make([]byte, MessageBytesMax+1)), ErrTooLarge},
	{"error: message length lies", new(ErrorReply), wire(u32(0), u16(2), "x"), ErrTruncated},
	{"error: trailing", new(ErrorReply), wire(u32(0), u16(0), u8(0)), ErrTrailingBytes},
}

func TestBoundaries(t *testing.T) {
	for _, tc := range boundaries {
		err := tc.into.Decode(tc.body)
		if !errors.Is(err, tc.want) {
			t.Errorf("%s: %v, want %v", tc.name, err, tc.want)
		}
		if err != nil && (StatusOf(err).Outcome() != NotDone || StatusOf(err) == StatusProtocol) {
			t.Errorf("%s: refused with %v", tc.name, StatusOf(err))
		}
	}
}

// Whatever is too long for its length field must be refused at the other end,
// never be taken for something shorter.
func TestOverlongStringsAreRefused(t *testing.T) {
	long := bytes.Repeat([]byte{'x'}, math.MaxUint16+2)
	for name, m := range map[string]message{
		"key":            &Key{long},
		"verb":           &Admin{Verb: long},
		"put":            &Put{Key: long, Value: []byte("v")},
		"delete":         &Delete{Key: long},
		"append":         &Append{Key: long},
		"setrange":       &SetRange{Key: long},
		"incrfloat":      &IncrFloat{Key: long},
		"rename source":  &Rename{Source: long, Destination: []byte("k")},
		"mget":           &MGet{[][]byte{long}},
		"comparison":     &Txn{Compares: []Compare{{CompareVersion, Equal, long, 1, nil}}},
		"scan start":     &Scan{Start: long},
		"scan end":       &Scan{End: long},
		"scan cursor":    &Scan{Cursor: long},
		"reply cursor":   &ScanReply{Cursor: long},
		"row key":        &ScanReply{Rows: []ScanRow{{Key: long}}},
		"name":           &Hello{VersionMin: 1, VersionMax: 1, Name: long},
		"user":           &Hello{VersionMin: 1, VersionMax: 1, User: long},
		"secret":         &Hello{VersionMin: 1, VersionMax: 1, Secret: long},
		"server version": &HelloReply{ServerVersion: long},
		"address":        &RoutesReply{Nodes: []RouteNode{{1, long}}},
	} {
		if err := m.Decode(m.AppendTo(nil)); err == nil {
			t.Errorf("%s of %d bytes was accepted after encoding", name, len(long))
		}
	}
}

func TestScanDefaults(t *testing.T) {
	var m Scan
	if err := m.Decode((&Scan{}).AppendTo(nil)); err != nil {
		t.Fatal(err)
	}
	if m.CountMax != ScanCountDefault || m.BytesMax != ScanBytesDefault {
		t.Errorf("a scan without bounds got %d rows and %d bytes", m.CountMax, m.BytesMax)
	}
}

func sessionExtension(id, seq, acked u64) []byte {
	return wire(u8(extSession), u8(24), id, seq, acked)
}

// badExtensions has each way in which a list of extensions can be refused, and
// its neighbours that are not.
var badExtensions = []struct {
	name string
	b    []byte
	want error
}{
	{"none", nil, nil},
	{"length missing", wire(u8(extDeadline)), ErrBadExtension},
	{"payload cut off", wire(u8(extDeadline), u8(4), u16(1)), ErrBadExtension},
	{"payload too short", wire(u8(extDeadline), u8(2), u16(1)), ErrBadExtension},
	{"payload too long", wire(u8(extDeadline), u8(5), u32(1), u8(0)), ErrBadExtension},
	{"payload empty", wire(u8(extDeadline), u8(0)), ErrBadExtension},
	{"deadline", wire(u8(extDeadline), u8(4), u32(1)), nil},
	{"deadline, critical", wire(u8(extDeadline|extCritical), u8(4), u32(1)), nil},
	{"deadline twice", wire(u8(extDeadline), u8(4), u32(1), u8(extDeadline), u8(4), u32(1)), ErrBadExtension},
	{"deadline twice, once critical", wire(u8(extDeadline), u8(4), u32(1), u8(extDeadline|extCritical), u8(4), u32(1)), ErrBadExtension},
	{"unknown", wire(u8(0x7f), u8(3), "abc"), nil},
	{"unknown, twice", wire(u8(0x20), u8(0), u8(0x20), u8(0)), nil},
	{"unknown, cut off", wire(u8(0x7f), u8(3), "ab"), ErrBadExtension},
	{"unknown, critical", wire(u8(0xff), u8(3), "abc"), ErrUnknownExtension},
	{"first unknown, critical", wire(u8(extEnd|extCritical), u8(0)), ErrUnknownExtension},
	{"type 0", wire(u8(0), u8(0), u8(0), u8(0)), nil},
	{"type 0, critical", wire(u8(extCritical), u8(0)), ErrUnknownExtension},
	{"session", sessionExtension(1, 1, 0), nil},
	{"session 0", sessionExtension(0, 1, 0), ErrBadExtension},
	{"sequence 0", sessionExtension(1, 0, 0), ErrBadExtension},
	{"acknowledged itself", sessionExtension(1, 7, 7), ErrBadExtension},
	{"acknowledged before", sessionExtension(1, 7, 6), nil},
	{"consistency unknown", wire(u8(extConsistency), u8(9), u8(3), u64(0)), ErrBadExtension},
	{"consistency cut off", wire(u8(extConsistency), u8(1), u8(1)), ErrBadExtension},
	{"token with stale", wire(u8(extConsistency), u8(9), u8(Stale), u64(1)), ErrBadExtension},
	{"token with session", wire(u8(extConsistency), u8(9), u8(SessionReads), u64(1)), nil},
	{"token with linearizable", wire(u8(extConsistency), u8(9), u8(Linearizable), u64(1)), ErrBadExtension},
	{"trace cut off", wire(u8(extTrace), u8(24), make([]byte, 24)), ErrBadExtension},
	{"age 0", wire(u8(extAge), u8(4), u32(0)), nil},
	{"shard 0", wire(u8(extShard|extCritical), u8(2), u16(0)), nil},
	{"shard cut off", wire(u8(extShard|extCritical), u8(1), u8(0)), ErrBadExtension},
	{"shard twice", wire(u8(extShard), u8(2), u16(1), u8(extShard|extCritical), u8(2), u16(1)), ErrBadExtension},
}

func TestMalformedExtensions(t *testing.T) {
	for _, tc := range badExtensions {
		var x Extensions
		if err := x.Decode(tc.b); !errors.Is(err, tc.want) {
			t.Errorf("%s: %v, want %v", tc.name, err, tc.want)
		}
	}
	if s := StatusOf(new(Extensions).Decode(wire(u8(0xff), u8(0)))); s != StatusUnsupported {
		t.Errorf("an unknown critical extension is refused with %v", s)
	}
}

// A token belongs to session reads; a caller that keeps one set must not have
// its other reads refused.
func TestTokenIsSentWithSessionReadsOnly(t *testing.T) {
	for _, c := range []Consistency{Linearizable, SessionReads, Stale} {
		x := Extensions{Consistency: c, Token: 9}
		var got Extensions
		if err := got.Decode(x.AppendTo(nil)[2:]); err != nil {
			t.Errorf("%v: %v", c, err)
		}
		if (got.Token == 9) != (c == SessionReads) {
			t.Errorf("%v: token arrived as %d", c, got.Token)
		}
	}
}

func TestSetDeadline(t *testing.T) {
	for _, x := range []Extensions{
		{DeadlineMillis: 5}, {}, {Epoch: 3, DeadlineMillis: 1, Consistency: Stale, HasShard: true, Shard: 2}, {Session: 1, Sequence: 1},
	} {
		list := x.AppendTo(nil)[2:]
		list = append(wire(u8(0x7f), u8(3), u8(extDeadline), u8(4), u8(0)), list...) // in another's payload
		SetDeadline(list, 77)
		if x.DeadlineMillis != 0 {
			x.DeadlineMillis = 77
		}
		var got Extensions
		if err := got.Decode(list); err != nil || got != x {
			t.Errorf("%+v, %v, want %+v", got, err, x)
		}
	}
	for _, tc := range badExtensions { // must not panic
		SetDeadline(append([]byte(nil), tc.b...), 1)
	}
}

func TestStatusOf(t *testing.T) {
	if s := StatusOf(errors.New("something else")); s != StatusInternal {
		t.Errorf("a foreign error is refused with %v", s)
	}
}
