package storage

import (
	"bytes"
	"encoding/binary"
	"errors"
	"hash/crc32"
	"testing"
)

// sealed sets length and CRC of b as a chunk's, so that what is behind them is
// looked at.
func sealed(b []byte) []byte {
	b = bytes.Clone(b)
	if len(b) < chunkHeaderBytes {
		b = append(b, make([]byte, chunkHeaderBytes-len(b))...)
	}
	binary.LittleEndian.PutUint32(b[4:], uint32(len(b)+crcBytes))
	return binary.LittleEndian.AppendUint32(b, crc32.Checksum(b, castagnoli))
}

// A chunk of any bytes is refused, or is one whose records are in order and
// valid; and that it was refused has changed nothing.
func FuzzChunk(f *testing.F) {
	s := filled(f, testOptions(nil))
	v := openView(f, s, 0)
	v.chunkBytes = 2000
	for i, b := range chunks(f, v, nil) {
		if i%37 == 0 || i > 350 {
			f.Add(b[:len(b)-crcBytes], uint64(i), 0)
			f.Add(b[:len(b)-crcBytes], uint64(i), 100)
		}
	}
	f.Add([]byte{}, uint64(0), 0)
	id := v.id
	v.Close()
	closeStore(f, s)
	f.Fuzz(func(t *testing.T, b []byte, sequence uint64, left int) {
		if _, err := decodeChunk(b); err == nil {
			t.Fatal("a chunk without its CRC")
		}
		c, err := decodeChunk(sealed(b))
		if err != nil {
			return
		}
		if again := c.seal(append(make([]byte, chunkHeaderBytes), c.payload...)); !bytes.Equal(again, sealed(b)) {
			t.Fatalf("%x sealed again is %x", sealed(b), again)
		}
		left = max(0, min(left, ChunkBytesMax))
		in := &Install{id: id, meta: InstallMeta{Index: c.meta.applied}}
		in.state = streamState{sequence: sequence, hash: newStateHash(c.meta)}
		if left > 0 {
			in.state.begin([]byte("da"), left+rowHeaderBytes)
			in.partial = make([]byte, rowHeaderBytes)
			putRowHeader(in.partial, 1, 0)
			in.state.add(in.partial)
		}
		before := in.state.clone()
		// The checksum and the count are what makes garbage so unlikely.
		for range 2 {
			next, _, err := in.parse(&c)
			if in.state.sequence != before.sequence || in.state.left != before.left || !bytes.Equal(in.state.key, before.key) || in.state.hash != before.hash {
				t.Fatal("parsing has changed the state")
			}
			if err == nil {
				for i := range in.records {
					r := &in.records[i]
					if err := checkRecord(r.key, r.value, c.meta); err != nil || i > 0 && bytes.Compare(in.records[i-1].key, r.key) >= 0 {
						t.Fatalf("record %x: %v", r.key, err)
					}
				}
				return
			}
			c.records, c.sum = next.records, next.hash.sum()
			if c.last {
				c.sum = next.hash.finish()
			}
		}
	})
}

func FuzzToken(f *testing.F) {
	m := meta{5, 6, 7}
	s := streamState{sequence: 3, records: 2, hash: newStateHash(m)}
	f.Add(s.appendTo(nil, 9))
	s.begin([]byte("dkey"), 5)
	s.add([]byte("val"))
	f.Add(s.appendTo(nil, 9))
	s.add([]byte("ue"))
	s.begin([]byte("s12345678"), 0)
	f.Add(s.appendTo(nil, 9))
	f.Fuzz(func(t *testing.T, b []byte) {
		for _, b := range [][]byte{b, binary.LittleEndian.AppendUint32(bytes.Clone(b), crc32.Checksum(b, castagnoli))} {
			s, id, err := decodeToken(b, m)
			if err != nil {
				continue
			}
			if s.left > s.value || s.value > streamValueBytesMax || len(s.key) > streamKeyBytesMax {
				t.Fatalf("%+v", s)
			}
			again, id2, err := decodeToken(s.appendTo(nil, id), m)
			if err != nil || id2 != id || again.hash.finish() != s.hash.finish() || !bytes.Equal(again.key, s.key) || again.left != s.left || again.sequence != s.sequence {
				t.Fatalf("%+v becomes %+v, error %v", s, again, err)
			}
		}
	})
}

func FuzzProgress(f *testing.F) {
	p := progress{shard: 1, id: 2, meta: InstallMeta{3, 4, testConf}, source: meta{3, 6, 7}, hasState: true, sizes: []uint64{8, 9}, token: []byte("token")}
	f.Add(p.appendTo(nil))
	f.Add((&progress{}).appendTo(nil))
	f.Fuzz(func(t *testing.T, b []byte) {
		for _, b := range [][]byte{b, binary.LittleEndian.AppendUint32(bytes.Clone(b), crc32.Checksum(b, castagnoli))} {
			if p, err := decodeProgress(b); err == nil && !bytes.Equal(p.appendTo(nil), b) {
				t.Fatalf("%x becomes %x", b, p.appendTo(nil))
			} else if err != nil && !errors.Is(err, ErrCorrupt) {
				t.Fatal(err)
			}
		}
	})
}

func FuzzInstallMeta(f *testing.F) {
	f.Add(appendInstallMeta(nil, InstallMeta{1, 2, nil}))
	f.Add(appendInstallMeta(nil, InstallMeta{1, 2, testConf}))
	f.Fuzz(func(t *testing.T, b []byte) {
		if m, err := decodeInstallMeta(b); err == nil && !bytes.Equal(appendInstallMeta(nil, m), b) {
			t.Fatalf("%x becomes %+v", b, m)
		} else if err != nil && !errors.Is(err, ErrCorrupt) {
			t.Fatal(err)
		}
	})
}

func TestChunkLengths(t *testing.T) {
	for n, ok := range map[int]bool{
		chunkHeaderBytes + crcBytes:     true,
		chunkHeaderBytes + crcBytes - 1: false,
		ChunkBytesMax:                   true,
		ChunkBytesMax + 1:               false,
	} {
		b := make([]byte, n-crcBytes, n)
		b[0] = chunkFormat
		if len(b) == chunkHeaderBytes {
			b[1] = chunkLast
		}
		if n > chunkHeaderBytes {
			binary.LittleEndian.PutUint32(b[4:], uint32(n))
		}
		b = binary.LittleEndian.AppendUint32(b, crc32.Checksum(b, castagnoli))
		if _, err := decodeChunk(b); (err == nil) != ok {
			t.Errorf("%d bytes: %v", n, err)
		}
	}
}
