package protocol

import "fmt"

// Feature bits, offered in a HELLO and granted in its reply.
const (
	FeatureSessions    = 1 << 0 // writes with session and sequence number
	FeatureCredentials = 1 << 1 // user and secret are looked at

	FeaturesKnown = FeatureSessions | FeatureCredentials
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
// empty. Whether it holds a version of the receiver is for the receiver to check.
func (m *Hello) Decode(b []byte) error {
	f := read(b)
	m.VersionMin, m.VersionMax = f.U8(), f.U8()
	m.Features = f.U64()
	m.Name, m.User, m.Secret = f.text(), f.text(), f.text()
	if err := f.end(); err != nil {
		return err
	}
	if m.VersionMin == 0 || m.VersionMin > m.VersionMax {
		return fmt.Errorf("%w: versions %d to %d", ErrOutOfRange, m.VersionMin, m.VersionMax)
	}
	return first(checkSize("name", m.Name, NameBytesMax), checkSize("user", m.User, NameBytesMax), checkSize("secret", m.Secret, NameBytesMax))
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
	f := read(b)
	m.Version = f.U8()
	m.Features, m.Node, m.Cluster, m.Connection = f.U64(), f.U64(), f.U64(), f.U64()
	m.FrameBytesMax, m.KeyBytesMax, m.ValueBytesMax, m.InFlightMax = f.U32(), f.U32(), f.U32(), f.U32()
	m.Shards = f.U16()
	m.ServerVersion = f.text()
	return first(f.end(), checkSize("server version", m.ServerVersion, NameBytesMax))
}
