package protocol

// Limits of the wire. Every bound that both sides must agree on stands here,
// with the arithmetic that ties them together. Units are last in each name.
const (
	// HeaderBytes is the size of the fixed frame header.
	HeaderBytes = 16

	// FrameBytesMax bounds a whole frame, header included. A peer that
	// announces more cannot be trusted to be in step and is disconnected.
	FrameBytesMax = 16 << 20

	// FrameBytesMin is the smallest frame: a header and nothing else.
	FrameBytesMin = HeaderBytes

	// KeyBytesMin and KeyBytesMax bound a key.
	KeyBytesMin = 1
	KeyBytesMax = 8 << 10

	// ValueBytesMax bounds a value. With the largest key, every option and
	// every extension it still fits in one frame (see the check below).
	ValueBytesMax = 15 << 20

	// ExtensionBytesMax bounds all extensions of one frame together.
	ExtensionBytesMax = 1 << 10

	// OpsMax bounds the keys of an MGET and the operations of a BATCH or TXN.
	OpsMax = 10_000

	// ScanCountMax and ScanBytesMax bound one SCAN; the reply's cursor goes on.
	ScanCountMax = 100_000
	ScanBytesMax = 64 << 20

	// ScanCountDefault and ScanBytesDefault apply where a SCAN says 0.
	ScanCountDefault = 1_000
	ScanBytesDefault = 1 << 20

	// ChunkBytes is the size past which a reply of many items (MGET, SCAN)
	// continues in a further frame.
	ChunkBytes = 256 << 10

	// CursorBytesMax bounds a scan cursor: a key and its wrapping.
	CursorBytesMax = KeyBytesMax + 64

	// TTLMillisMax bounds a time to live: about 292 years, so that adding it
	// to a Unix time in milliseconds stays far from the end of an int64.
	TTLMillisMax = 292 * 366 * 24 * 3600 * 1000

	// ExpireAtMillisMax bounds a time of expiry, in Unix milliseconds: the end
	// of an int64.
	ExpireAtMillisMax = 1<<63 - 1

	// IncrementBytesMax bounds the text of the number that an INCRFLOAT adds.
	IncrementBytesMax = 256

	// FloatBytesMax bounds the text of a number that INCRFLOAT has stored: the
	// largest has 4,933 digits.
	FloatBytesMax = 5 << 10

	// NameBytesMax bounds the strings of a HELLO (name, user, secret).
	NameBytesMax = 256

	// AddressBytesMax bounds an address in a ROUTES reply: the longest host
	// name of the DNS, or the path of a unix socket, and a port.
	AddressBytesMax = 512

	// VerbBytesMax and AdminBytesMax bound the name and the arguments of an
	// ADMIN request.
	VerbBytesMax  = 64
	AdminBytesMax = 64 << 10

	// MessageBytesMax bounds the text of an error reply.
	MessageBytesMax = 512
)

// The largest PUT must fit in a frame: header, extensions, fixed fields, key,
// value. The constant expression fails to compile if it does not.
const _ = uint(FrameBytesMax - (HeaderBytes + 2 + ExtensionBytesMax + 64 + KeyBytesMax + ValueBytesMax))
