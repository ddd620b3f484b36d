package protocol

import "fmt"

// CompareTarget is what a transaction's comparison looks at.
type CompareTarget uint8

const (
	CompareVersion CompareTarget = 1 // the key's version; an absent key has version 0
	CompareValue   CompareTarget = 2 // the key's value, bytewise; an absent key fails every comparison
	CompareAbsent  CompareTarget = 3 // Equal: absent, and certain to have been since the revision a WATCH has told; or NotEqual
)

// CompareRelation is how the row relates to the operand: row RELATION operand.
type CompareRelation uint8

const (
	Equal     CompareRelation = 1
	NotEqual  CompareRelation = 2
	Less      CompareRelation = 3
	Greater   CompareRelation = 4
	relations                 = Greater
)

// Compare is one condition of a transaction.
type Compare struct {
	Target   CompareTarget
	Relation CompareRelation
	Key      []byte
	Version  uint64 // with CompareVersion and CompareAbsent
	Value    []byte // with CompareValue
}

// Txn is: if every comparison holds, carry out Then, else carry out Else. All
// keys must lie in one shard. Operations may be those of a BATCH, GET and
// EXISTS.
type Txn struct {
	Compares   []Compare
	Then, Else Ops
}

// AppendTo appends the message body.
func (m *Txn) AppendTo(dst []byte) []byte {
	return m.Else.AppendTo(m.Then.AppendTo(m.AppendCompares(dst)))
}

// AppendCompares appends the comparisons, behind which the two lists of operations
// may be written in place.
func (m *Txn) AppendCompares(dst []byte) []byte {
	dst = appendU32(dst, uint32(len(m.Compares)))
	for i := range m.Compares {
		c := &m.Compares[i]
		dst = append(dst, byte(c.Target), byte(c.Relation))
		dst = appendString(dst, c.Key)
		if c.Target != CompareValue {
			dst = appendU64(dst, c.Version)
		} else {
			dst = appendBlob(dst, c.Value)
		}
	}
	return dst
}

// Decode reads the message body, reusing the capacity of m's slices; operation
// bodies are views and are not decoded themselves.
func (m *Txn) Decode(b []byte) error {
	f := read(b)
	m.Compares = m.Compares[:0]
	n, err := f.count("comparisons")
	if err != nil {
		return err
	}
	for ; n > 0; n-- {
		c := Compare{Target: CompareTarget(f.U8()), Relation: CompareRelation(f.U8()), Key: f.text()}
		switch c.Target {
		case CompareVersion, CompareAbsent:
			c.Version = f.U64()
		case CompareValue:
			c.Value = f.blob()
		default:
			if f.Short {
				return ErrTruncated
			}
			return fmt.Errorf("%w: comparison target %d", ErrOutOfRange, c.Target)
		}
		if f.Short {
			return ErrTruncated
		}
		if c.Relation == 0 || c.Relation > relations || c.Target == CompareAbsent && c.Relation > NotEqual {
			return fmt.Errorf("%w: comparison relation %d", ErrOutOfRange, c.Relation)
		}
		if err := CheckKey(c.Key); err != nil {
			return err
		}
		m.Compares = append(m.Compares, c)
	}
	for _, ops := range []*Ops{&m.Then, &m.Else} {
		if err := ops.decode(&f); err != nil {
			return err
		}
	}
	if err := f.end(); err != nil {
		return err
	}
	switch total := len(m.Compares) + len(m.Then) + len(m.Else); {
	case total == 0:
		return fmt.Errorf("%w: a transaction needs a comparison or an operation", ErrOutOfRange)
	case total > OpsMax:
		return fmt.Errorf("%w: %d, at most %d", ErrTooManyOps, total, OpsMax)
	}
	return nil
}

// TxnReply answers TXN with StatusOK, whichever branch was taken.
type TxnReply struct {
	Succeeded bool // Then was carried out
	Results   OpResults
}

// AppendTo appends the message body.
func (m *TxnReply) AppendTo(dst []byte) []byte {
	var b byte
	if m.Succeeded {
		b = 1
	}
	return m.Results.AppendTo(append(dst, b))
}

// Decode reads the message body, reusing the capacity of m.Results.
func (m *TxnReply) Decode(b []byte) error {
	f := read(b)
	s := f.U8()
	if s > 1 {
		return fmt.Errorf("%w: branch byte %d", ErrOutOfRange, s)
	}
	m.Succeeded = s == 1
	if err := m.Results.decode(&f); err != nil {
		return err
	}
	return f.end()
}
