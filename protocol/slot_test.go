package protocol

import (
	"testing"

	"pgregory.net/rapid"
)

func TestSlotKnownValues(t *testing.T) {
	for _, tc := range []struct {
		key  string
		want uint16
	}{
		{"", 0},
		{"123456789", 0x31C3 % Slots}, // the check value of CRC-16/XMODEM
		{"somekey", 11058},            // Redis documentation of CLUSTER KEYSLOT
		{"foo{hash_tag}", 2515},
		{"bar{hash_tag}", 2515},
		{"foo", 12182},
		{"bar", 5061},
		{"hello", 866},
	} {
		if got := Slot([]byte(tc.key)); got != tc.want {
			t.Errorf("Slot(%q) = %d, want %d", tc.key, got, tc.want)
		}
	}
}

func TestSlotTags(t *testing.T) {
	for _, tc := range []struct{ key, hashed string }{
		{"{user1000}.following", "user1000"},
		{"{user1000}.followers", "user1000"},
		{"foo{}{bar}", "foo{}{bar}"},
		{"{}key", "{}key"},
		{"foo{{bar}}zap", "{bar"},
		{"foo{bar}{zap}", "bar"},
		{"{bar", "{bar"},
		{"bar}", "bar}"},
		{"}{bar}", "bar"},
		{"}bar{", "}bar{"},
		{"{\x00}", "\x00"},
	} {
		if got, want := Slot([]byte(tc.key)), bitwiseSlot([]byte(tc.hashed)); got != want {
			t.Errorf("Slot(%q) = %d, want %d, that of %q", tc.key, got, want, tc.hashed)
		}
	}
}

func TestSlotAgainstDefinition(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		key := rapid.SliceOf(rapid.Byte().Filter(func(b byte) bool { return b != '{' })).Draw(t, "key")
		if got, want := Slot(key), bitwiseSlot(key); got != want || got >= Slots {
			t.Fatalf("Slot(%q) = %d, want %d", key, got, want)
		}
	})
}

// bitwiseSlot is CRC-16/XMODEM by polynomial division, a bit at a time.
func bitwiseSlot(key []byte) uint16 {
	var c uint16
	for _, b := range key {
		for bit := 7; bit >= 0; bit-- {
			out := c>>15 ^ uint16(b>>bit&1)
			c <<= 1
			if out != 0 {
				c ^= 0x1021
			}
		}
	}
	return c % Slots
}

func BenchmarkSlot(b *testing.B) {
	for name, key := range map[string][]byte{"16": []byte("user:00000001234"), "8192": []byte(longestKey)} {
		b.Run(name, func(b *testing.B) {
			b.SetBytes(int64(len(key)))
			for b.Loop() {
				Slot(key)
			}
		})
	}
}
