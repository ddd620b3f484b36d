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
	f := fields{b: b}
	m.Verb = f.bytes(int(f.u16()))
	m.Args = f.rest()
	if err := f.end(); err != nil {
		return err
	}
	switch {
	case len(m.Verb) == 0:
		return fmt.Errorf("%w: the name of the administrative request is empty", ErrOutOfRange)
	case len(m.Verb) > VerbBytesMax:
		return fmt.Errorf("%w: the name of an administrative request has %d bytes, at most %d are allowed", ErrTooLarge, len(m.Verb), VerbBytesMax)
	case len(m.Args) > AdminBytesMax:
		return fmt.Errorf("%w: the arguments of an administrative request have %d bytes, at most %d are allowed", ErrTooLarge, len(m.Args), AdminBytesMax)
	}
	return nil
}
