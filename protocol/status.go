package protocol

// Status is the outcome of a request, carried in the code field of a reply.
type Status uint8

const (
	StatusOK               Status = 0
	StatusNotFound         Status = 1  // the key does not exist (or has expired)
	StatusConditionFailed  Status = 2  // a condition of the request did not hold
	StatusNotInteger       Status = 3  // INCR on a value that is not a decimal int64
	StatusOverflow         Status = 4  // INCR would leave the range of an int64, INCRFLOAT that of finite numbers
	StatusBadRequest       Status = 5  // malformed message, unknown option, field out of range
	StatusTooLarge         Status = 6  // key, value or reply exceeds a limit
	StatusUnsupported      Status = 7  // opcode or critical extension this server does not know
	StatusCrossShard       Status = 8  // an atomic request whose keys lie in different shards
	StatusBadCursor        Status = 9  // a cursor from elsewhere, or damaged
	StatusSessionExpired   Status = 10 // the result of this sequence number is no longer kept
	StatusBusy             Status = 11 // a queue is full; retry after the delay given
	StatusNotLeader        Status = 12 // another node leads the shard
	StatusNoQuorum         Status = 13 // the shard has no majority
	StatusDeadlineExceeded Status = 14 // the deadline passed before anything was done
	StatusTimeout          Status = 15 // the write was on its way, and its outcome was not heard of in time
	StatusDropped          Status = 16 // the leader changed, or the node stopped, before the request took effect
	StatusShuttingDown     Status = 17 // the server is going away
	StatusTooManyConns     Status = 18 // max_connections is reached
	StatusHandshake        Status = 19 // the first frame must be a HELLO this server can accept
	StatusUnauthenticated  Status = 20 // credentials missing or wrong
	StatusPermission       Status = 21 // credentials do not allow this
	StatusProtocol         Status = 22 // the byte stream is out of step; the connection closes
	StatusInternal         Status = 23 // the server failed in a way it has no better word for
	StatusStorageFailed    Status = 24 // the node's disk failed; the node stops
	StatusGoAway           Status = 25 // notice (id 0): finish what is in flight, connect elsewhere
	StatusIdle             Status = 26 // notice (id 0): closed for idleness or a stalled frame
	StatusRefused          Status = 27 // the cluster's state does not allow it
	StatusNotFloat         Status = 28 // INCRFLOAT on or by something that is not a number
	StatusDamaged          Status = 29 // what is asked for cannot be read, since its file is damaged and there is no other copy

	statusEnd Status = 30
)

// Outcome is what is known about the effect of a request. There are exactly
// three (invariant D4).
type Outcome uint8

const (
	Done    Outcome = iota // carried out; the reply is its result
	NotDone                // definitely had no effect, and never will
	Unknown                // may or may not have taken effect, now or later
)

// String returns "done", "not done" or "unknown".
func (o Outcome) String() string { return [...]string{"done", "not done", "unknown"}[o] }

type statusInfo struct {
	name    string
	outcome Outcome
	retry   bool
	text    string
}

var statusTable = [statusEnd]statusInfo{
	StatusOK:               {"OK", Done, false, "done"},
	StatusNotFound:         {"NOT_FOUND", Done, false, "key not found"},
	StatusConditionFailed:  {"CONDITION_FAILED", NotDone, false, "condition failed"},
	StatusNotInteger:       {"NOT_INTEGER", NotDone, false, "value is not a decimal 64-bit integer"},
	StatusOverflow:         {"OVERFLOW", NotDone, false, "result would be out of range"},
	StatusBadRequest:       {"BAD_REQUEST", NotDone, false, "malformed request"},
	StatusTooLarge:         {"TOO_LARGE", NotDone, false, "a size limit is exceeded"},
	StatusUnsupported:      {"UNSUPPORTED", NotDone, false, "not supported by this server"},
	StatusCrossShard:       {"CROSS_SHARD", NotDone, false, "keys are in different shards"},
	StatusBadCursor:        {"BAD_CURSOR", NotDone, false, "cursor does not belong to this scan"},
	StatusSessionExpired:   {"SESSION_EXPIRED", Unknown, false, "the result of this sequence number is no longer kept"},
	StatusBusy:             {"BUSY", NotDone, true, "server is busy"},
	StatusNotLeader:        {"NOT_LEADER", NotDone, true, "another node leads this shard"},
	StatusNoQuorum:         {"NO_QUORUM", NotDone, true, "the shard has no quorum"},
	StatusDeadlineExceeded: {"DEADLINE_EXCEEDED", NotDone, false, "deadline passed before the request was carried out"},
	StatusTimeout:          {"TIMEOUT", Unknown, false, "the outcome of the write was not known in time"},
	StatusDropped:          {"DROPPED", NotDone, true, "the shard's leader changed, or the node stopped, before the request took effect; nothing was changed: send it again"},
	StatusShuttingDown:     {"SHUTTING_DOWN", NotDone, true, "server is shutting down"},
	StatusTooManyConns:     {"TOO_MANY_CONNECTIONS", NotDone, true, "the server's connection limit is reached"},
	StatusHandshake:        {"HANDSHAKE", NotDone, false, "handshake refused"},
	StatusUnauthenticated:  {"UNAUTHENTICATED", NotDone, false, "credentials missing or wrong"},
	StatusPermission:       {"PERMISSION", NotDone, false, "not permitted"},
	StatusProtocol:         {"PROTOCOL", NotDone, false, "protocol error"},
	StatusInternal:         {"INTERNAL", Unknown, false, "internal error"},
	StatusStorageFailed:    {"STORAGE_FAILED", Unknown, false, "storage failed, the node stops"},
	StatusGoAway:           {"GOAWAY", Done, true, "the server asks to connect to another node"},
	StatusIdle:             {"IDLE", Done, true, "connection was idle too long"},
	StatusRefused:          {"REFUSED", NotDone, false, "the cluster's state does not allow it"},
	StatusNotFloat:         {"NOT_FLOAT", NotDone, false, "value or increment is not a valid number"},
	StatusDamaged:          {"DAMAGED", NotDone, false, "the data is damaged on disk"},
}

// Known reports whether s is a status of this protocol version.
func (s Status) Known() bool { return s < statusEnd }

// String returns the name as the documentation spells it.
func (s Status) String() string {
	if !s.Known() {
		return "UNKNOWN_STATUS"
	}
	return statusTable[s].name
}

// Text returns a short sentence for people.
func (s Status) Text() string {
	if !s.Known() {
		return "unknown status"
	}
	return statusTable[s].text
}

// Outcome says what is known about the effect of a request answered with s.
// A unknown status is Unknown.
func (s Status) Outcome() Outcome {
	if !s.Known() {
		return Unknown
	}
	return statusTable[s].outcome
}

// Retry reports whether sending the same request again, after the delay the
// reply names, can succeed and is safe without a session.
func (s Status) Retry() bool { return s.Known() && statusTable[s].retry }

// CarriesResult reports whether a reply with status s has the operation's own
// reply body. All other statuses carry an ErrorReply.
func (s Status) CarriesResult() bool { return s <= StatusConditionFailed }
