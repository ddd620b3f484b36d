package protocol

import "fmt"

// Feature bits, offered in a HELLO and granted in its reply.
const (
	FeatureSessions    = 1 << 0 // writes with session and sequence number
	FeatureCredentials = 1 << 1 // user and secret are looked at

	FeaturesKnown = FeatureSessions
)

// Hello opens a connection; it must be the first frame.
type Hello struct {
	VersionMin, VersionMax uint8 // protocol versions the client speaks
	Features               uint64
	Name                   []byte // of the client program, for operators
	User, Secret           []byte // credentials, empty for none
}

// AppendTo appends the message body.
func (m *Hello) AppendTo(dst []byte) []byte {
	dst = append(dst, m.VersionMin, m.VersionMax)
	dst = appendU64(dst, m.Features)
	dst = appendString(dst, m.Name)
	dst = appendString(dst, m.User)
	return appendString(dst, m.Secret)
}

// Decode reads the message body and checks that the version range is not
// empty. Whether it holds a version of the receiver is for Negotiate.
func (m *Hello) Decode(b []byte) error {
	f := fields{b: b}
	m.VersionMin, m.VersionMax = f.u8(), f.u8()
	m.Features = f.u64()
	m.Name = f.bytes(int(f.u16()))
	m.User = f.bytes(int(f.u16()))
	m.Secret = f.bytes(int(f.u16()))
	if err := f.end(); err != nil {
		return err
	}
	if m.VersionMin == 0 || m.VersionMin > m.VersionMax {
		return fmt.Errorf("%w: versions %d to %d", ErrOutOfRange, m.VersionMin, m.VersionMax)
	}
	if len(m.Name) > NameBytesMax || len(m.User) > NameBytesMax || len(m.Secret) > NameBytesMax {
		return fmt.Errorf("%w: name, user or secret over %d bytes", ErrTooLarge, NameBytesMax)
	}
	return nil
}

// Negotiate returns the highest protocol version that both the client and this
// package speak, or false where there is none.
func (m *Hello) Negotiate() (version uint8, ok bool) {
	return Version, m.VersionMin <= Version && Version <= m.VersionMax
}

// HelloReply accepts a connection and tells the limits that hold on it. They
// are at most those of limits.go.
type HelloReply struct {
	Version       uint8  // chosen
	Features      uint64 // granted: a subset of those offered
	Node          uint64 // the server's node
	Cluster       uint64 // random number that names the cluster
	Connection    uint64 // names this connection in the server's logs
	FrameBytesMax uint32
	KeyBytesMax   uint32
	ValueBytesMax uint32
	InFlightMax   uint32 // requests one connection may have unanswered
	Shards        uint16 // of the cluster
	ServerVersion []byte
}

// AppendTo appends the message body.
func (m *HelloReply) AppendTo(dst []byte) []byte {
	dst = append(dst, m.Version)
	dst = appendU64(dst, m.Features)
	dst = appendU64(dst, m.Node)
	dst = appendU64(dst, m.Cluster)
	dst = appendU64(dst, m.Connection)
	dst = appendU32(dst, m.FrameBytesMax)
	dst = appendU32(dst, m.KeyBytesMax)
	dst = appendU32(dst, m.ValueBytesMax)
	dst = appendU32(dst, m.InFlightMax)
	dst = appendU16(dst, m.Shards)
	return appendString(dst, m.ServerVersion)
}

// Decode reads the message body.
func (m *HelloReply) Decode(b []byte) error {
	f := fields{b: b}
	m.Version = f.u8()
	m.Features, m.Node, m.Cluster, m.Connection = f.u64(), f.u64(), f.u64(), f.u64()
	m.FrameBytesMax, m.KeyBytesMax, m.ValueBytesMax, m.InFlightMax = f.u32(), f.u32(), f.u32(), f.u32()
	m.Shards = f.u16()
	m.ServerVersion = f.bytes(int(f.u16()))
	if err := f.end(); err != nil {
		return err
	}
	if len(m.ServerVersion) > NameBytesMax {
		return fmt.Errorf("%w: server version over %d bytes", ErrTooLarge, NameBytesMax)
	}
	return nil
}
