package access

import (
	"strings"
	"testing"
)

func TestHash(t *testing.T) {
	a, b := Hash("correct horse"), Hash("correct horse")
	if a == b {
		t.Error("two hashes of one password are the same")
	}
	h, err := parseHash(a)
	if err != nil {
		t.Fatal(err)
	}
	if !h.matches("correct horse") || h.matches("correct horsf") || h.matches("") {
		t.Error("the hash matches the wrong passwords")
	}
	if h.String() != a {
		t.Errorf("%s is read as %s", a, h.String())
	}
	// Of the reference implementation: echo -n password | argon2 somesalt -id -t 2 -k 65536 -p 1
	other, err := parseHash("$argon2id$v=19$m=65536,t=2,p=1$c29tZXNhbHQ$CTFhFdXPJO1aFaMaO6Mm5c8y7cJHAph8ArZWb2GRPPc")
	if err != nil || !other.matches("password") {
		t.Errorf("a hash of the reference implementation: %v", err)
	}
}

func TestDamagedHashes(t *testing.T) {
	good := somebody
	for _, bad := range []string{
		"", "x", "$argon2id$", strings.Replace(good, "argon2id", "argon2i", 1), strings.Replace(good, "v=19", "v=18", 1),
		strings.Replace(good, "m=19456", "m=262145", 1), strings.Replace(good, "m=19456", "m=0", 1), strings.Replace(good, "m=19456", "m=4294967297", 1),
		strings.Replace(good, "t=2", "t=17", 1), strings.Replace(good, "t=2", "t=-1", 1), strings.Replace(good, "p=1", "p=17", 1), strings.Replace(good, "p=1", "p=", 1),
		strings.Replace(good, ",p=1", "", 1), good + "$", good + "!", good[:len(good)-43] + "AAAA", good[:len(good)-43] + strings.Repeat("A", 200),
	} {
		if err := checkHash(bad); err == nil {
			t.Errorf("%q is accepted", bad)
		}
	}
	if err := checkHash(strings.Replace(good, "m=19456", "m=262144", 1)); err != nil {
		t.Error(err)
	}
}

// FuzzHash: what is accepted as a hash is written as it was read, and is bounded.
func FuzzHash(f *testing.F) {
	f.Add(somebody)
	f.Add("$argon2id$v=19$m=8,t=1,p=1$c29tZXNhbHQ$CTFhFdXPJO1aFaMaO6Mm5c8y7cJHAph8ArZWb2GRPPc")
	f.Fuzz(func(t *testing.T, s string) {
		h, err := parseHash(s)
		if err != nil {
			return
		}
		again, err := parseHash(h.String())
		if err != nil || again.String() != h.String() {
			t.Errorf("%q is read as %q, which is read as %q (%v)", s, h.String(), again.String(), err)
		}
		if h.memoryKiB > hashMemoryKiBMax || h.passes > hashPassesMax || h.lanes > hashLanesMax || len(h.salt) > hashPartBytesMax || len(h.sum) > hashPartBytesMax {
			t.Errorf("%q is accepted", s)
		}
	})
}

func BenchmarkHash(b *testing.B) {
	b.ReportAllocs()
	for b.Loop() {
		Hash("a password")
	}
}
