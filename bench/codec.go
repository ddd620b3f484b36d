package bench

// Codec is one wire protocol, as far as a load generator needs it. A Codec
// holds no state of a connection and may serve several runs at once.
type Codec interface {
	// Ordered reports whether replies come in the order of the requests. If
	// not, each carries the tag of its request.
	Ordered() bool

	// AppendGreeting appends what a new connection says first.
	AppendGreeting(dst []byte) []byte

	// ParseGreeting finds the reply to the greeting at the start of b and
	// returns the bytes it takes, 0 while it is not whole. The error is
	// ErrGreeting where the server refused, ErrProtocol where it answered
	// nonsense.
	ParseGreeting(b []byte) (n int, err error)

	// AppendRequest appends a request. The tag is 1..2^20 and unique
	// among the unanswered requests of a run. Key and value are empty
	// where op has none.
	AppendRequest(dst []byte, op Op, tag uint32, key, value []byte) []byte

	// ParseReply finds the reply to an op at the start of b and checks it as
	// a whole. It returns the bytes the reply takes, 0 while it is not whole.
	// After an error, always ErrProtocol, the stream cannot be trusted.
	ParseReply(b []byte, op Op) (r Reply, n int, err error)
}

// codecLoad is a load of one kind of request in the words of a Codec.
type codecLoad struct {
	codec Codec
	op    Op
	value []byte // what PUTs write and GETs find
}

// Outcome is what became of one request.
type Outcome uint8

// The outcomes.
const (
	OK       Outcome = iota
	NotFound         // a GET of a key that does not exist
	Busy             // refused for the moment, without effect
	Failed           // any other error
)

// Reply is what a Codec found out about one reply.
type Reply struct {
	Outcome Outcome
	Tag     uint64 // of the request; any where replies are ordered
	// ValueBytes is the length of the value that a GET found.
	ValueBytes int
	// Message is the server's explanation where Outcome is Failed, a view of
	// the bytes parsed.
	Message []byte
}
