package protocol

import "fmt"

// Admin is the body of ADMIN: an administrative request by its name, and
// arguments as JSON. The reply's body is JSON as well.
type Admin struct {
	Verb []byte // 1 to VerbBytesMax bytes
	Args []byte // at most AdminBytesMax bytes; not looked at here
}

// AppendTo appends the message body.
func (m *Admin) AppendTo(dst []byte) []byte {
	return append(appendString(dst, m.Verb), m.Args...)
}

// Decode reads the message body.
func (m *Admin) Decode(b []byte) error {
	f := read(b)
	m.Verb, m.Args = f.text(), f.Rest()
	if err := f.end(); err != nil {
		return err
	}
	if len(m.Verb) == 0 {
		return fmt.Errorf("%w: the name of the administrative request is empty", ErrOutOfRange)
	}
	return first(checkSize("the name of the administrative request", m.Verb, VerbBytesMax),
		checkSize("the JSON of the administrative request", m.Args, AdminBytesMax))
}
