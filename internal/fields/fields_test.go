package fields

import "testing"

func TestReader(t *testing.T) {
	b := []byte{7, 1, 2, 1, 0, 0, 0, 2, 0, 0, 0, 0, 0, 0, 0, 0x80, 1, 3, 2, 'a', 'b', 'c'}
	read := func(b []byte) (r Reader, all bool) {
		r = Reader{B: b}
		all = r.U8() == 7 && r.U16() == 0x201 && r.U32() == 1 && r.U64() == 2 && r.Uvarint() == 128 && r.Varint() == -2 && string(r.Counted()) == "ab"
		return r, all
	}
	if r, all := read(b); !all || r.Short || string(r.Rest()) != "c" || r.B != nil {
		t.Errorf("all fields: %v, %+v", all, r)
	}
	for n := range len(b) - 1 {
		r, all := read(b[:n:n])
		if all || !r.Short || r.B != nil {
			t.Errorf("%d bytes: %v, %+v", n, all, r)
		}
		if r.U8() != 0 || r.U64() != 0 || r.Uvarint() != 0 || r.Bytes(1) != nil || len(r.Rest()) != 0 {
			t.Errorf("%d bytes: there is something behind the field that does not fit", n)
		}
	}
	for _, n := range [][]byte{{4, 'a'}, {0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1, 'a'}} {
		if r := (Reader{B: n}); r.Counted() != nil || !r.Short {
			t.Errorf("% x has fewer bytes than it says", n)
		}
	}
	for _, n := range []int{-1, 4} {
		r := Reader{B: []byte("abc")}
		if r.Bytes(n) != nil || !r.Short {
			t.Errorf("%d bytes of 3", n)
		}
	}
	if r := (Reader{B: b}); r.Bytes(0) == nil || r.Short || len(r.B) != len(b) {
		t.Error("no bytes")
	}
}
