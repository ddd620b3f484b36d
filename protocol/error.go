package protocol

import "errors"

// ErrorReply is the body of every reply whose status does not carry a result.
type ErrorReply struct {
	RetryAfterMillis uint32 // wait this long before trying again; 0 means no advice
	Message          []byte // a sentence for people
}

// AppendTo appends the message body. A message over MessageBytesMax is cut.
func (m *ErrorReply) AppendTo(dst []byte) []byte {
	dst = appendU32(dst, m.RetryAfterMillis)
	return appendString(dst, m.Message[:min(len(m.Message), MessageBytesMax)])
}

// Decode reads the message body.
func (m *ErrorReply) Decode(b []byte) error {
	f := read(b)
	m.RetryAfterMillis, m.Message = f.U32(), f.text()
	return first(f.end(), checkSize("message", m.Message, MessageBytesMax))
}

// AppendError appends a whole error frame: status s, which must not be one that
// carries a result, the id of the request (0 for a notice), the delay in
// milliseconds after which to try again (0 for no advice), and a message, cut
// at MessageBytesMax.
func AppendError(dst []byte, id uint64, s Status, retryAfterMillis uint32, message string) []byte {
	start := len(dst)
	dst = Begin(dst, uint8(s), FlagReply, id)
	message = message[:min(len(message), MessageBytesMax)]
	dst = appendU32(dst, retryAfterMillis)
	dst = appendU16(dst, uint16(len(message)))
	return End(append(dst, message...), start)
}

// StatusOf returns the status with which a server refuses what failed with
// err: StatusProtocol for an error of Next, after which it closes, and for one
// of Decode StatusTooLarge, StatusUnsupported or StatusBadRequest. Any other
// error is StatusInternal.
func StatusOf(err error) Status {
	if e, ok := errors.AsType[*refusalError](err); ok {
		return e.status
	}
	return StatusInternal
}

// refusalError is an error with the status under which what failed is refused.
type refusalError struct {
	status Status
	text   string
}

func refusal(s Status, text string) error { return &refusalError{s, text} }

func (e *refusalError) Error() string { return e.text }
