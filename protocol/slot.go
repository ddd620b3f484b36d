package protocol

import "bytes"

// Slots is the number of hash slots.
const Slots = 16384

// crc16Tables serve CRC-16/XMODEM: polynomial 0x1021, initial value 0, not
// reflected (Redis Cluster specification, appendix A). crc16Tables[n][b] is
// what byte b contributes once n further bytes have passed, so that eight
// bytes are taken in one step and long keys do not hold up an event loop.
var crc16Tables = func() (t [8][256]uint16) {
	for i := range t[0] {
		c := uint16(i) << 8
		for range 8 {
			if c&0x8000 != 0 {
				c = c<<1 ^ 0x1021
			} else {
				c <<= 1
			}
		}
		t[0][i] = c
	}
	for n := 1; n < len(t); n++ {
		for i, c := range t[n-1] {
			t[n][i] = c<<8 ^ t[0][c>>8]
		}
	}
	return t
}()

func crc16(p []byte) (c uint16) {
	t := &crc16Tables
	for ; len(p) >= 8; p = p[8:] {
		c = t[7][p[0]^byte(c>>8)] ^ t[6][p[1]^byte(c)] ^ t[5][p[2]] ^ t[4][p[3]] ^
			t[3][p[4]] ^ t[2][p[5]] ^ t[1][p[6]] ^ t[0][p[7]]
	}
	for _, b := range p {
		c = c<<8 ^ t[0][byte(c>>8)^b]
	}
	return c
}

// Slot returns the hash slot of key, 0..Slots-1: CRC16/XMODEM modulo 16384 of
// the key or, where it contains a non-empty {tag}, of the first tag alone. It
// is the function of Redis Cluster.
func Slot(key []byte) uint16 {
	if i := bytes.IndexByte(key, '{'); i >= 0 {
		if j := bytes.IndexByte(key[i+1:], '}'); j > 0 {
			key = key[i+1 : i+1+j]
		}
	}
	return crc16(key) % Slots
}
