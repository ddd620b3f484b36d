package access

import (
	"crypto/rand"
	"crypto/subtle"
	"encoding/base64"
	"fmt"
	"strconv"
	"strings"

	"golang.org/x/crypto/argon2"
)

// Passwords are stored as argon2id hashes in the PHC string format
// (https://github.com/P-H-C/phc-string-format), with the least parameters that OWASP's
// Password Storage Cheat Sheet recommends: 19 MiB, two passes, one lane. That takes about
// 20 ms of a core.
const (
	hashMemoryKiB = 19 << 10
	hashPasses    = 2
	hashLanes     = 1
	saltBytes     = 16
	sumBytes      = 32
)

// Bounds of what a hash that is read may ask for.
const (
	hashMemoryKiBMax = 256 << 10
	hashPassesMax    = 16
	hashLanesMax     = 16
	hashPartBytesMin = 8 // of salt and sum
	hashPartBytesMax = 64
	hashTextBytesMax = 256
)

// hash is a hashed password.
type hash struct {
	memoryKiB, passes uint32
	lanes             uint8
	salt, sum         []byte
}

// Hash returns the hash of a password, which takes some milliseconds and 19 MiB.
func Hash(password string) string {
	h := hash{memoryKiB: hashMemoryKiB, passes: hashPasses, lanes: hashLanes, salt: make([]byte, saltBytes)}
	_, _ = rand.Read(h.salt) // never fails
	h.sum = h.of(password, sumBytes)
	return h.String()
}

func (h *hash) of(password string, n int) []byte {
	return argon2.IDKey([]byte(password), h.salt, h.passes, h.memoryKiB, h.lanes, uint32(n))
}

// matches reports whether h is the hash of a password.
func (h *hash) matches(password string) bool {
	return subtle.ConstantTimeCompare(h.of(password, len(h.sum)), h.sum) == 1
}

func (h *hash) String() string {
	enc := base64.RawStdEncoding
	return fmt.Sprintf("$argon2id$v=%d$m=%d,t=%d,p=%d$%s$%s", argon2.Version, h.memoryKiB, h.passes, h.lanes, enc.EncodeToString(h.salt), enc.EncodeToString(h.sum))
}

// checkHash returns why s is no hash that this program can check.
func checkHash(s string) error {
	_, err := parseHash(s)
	return err
}

func parseHash(s string) (h hash, err error) {
	bad := func(what string) (hash, error) {
		return hash{}, fmt.Errorf("%w: the hash of a password is damaged: %s", ErrInvalid, what)
	}
	if len(s) > hashTextBytesMax {
		return bad("it is too long")
	}
	parts := strings.Split(s, "$")
	if len(parts) != 6 || parts[0] != "" || parts[1] != "argon2id" {
		return bad("it is not of the form $argon2id$…")
	}
	if parts[2] != "v="+strconv.Itoa(argon2.Version) {
		return bad("its version is unknown")
	}
	cost := strings.Split(parts[3], ",")
	if len(cost) != 3 {
		return bad("its parameters are incomplete")
	}
	number := func(text, name string, max uint64) (n uint64) {
		digits, ok := strings.CutPrefix(text, name)
		if ok {
			n, _ = strconv.ParseUint(digits, 10, 32)
		}
		if n == 0 || n > max {
			err = fmt.Errorf("%w: the hash of a password is damaged: its parameters are out of range", ErrInvalid)
		}
		return n
	}
	h.memoryKiB, h.passes, h.lanes = uint32(number(cost[0], "m=", hashMemoryKiBMax)), uint32(number(cost[1], "t=", hashPassesMax)), uint8(number(cost[2], "p=", hashLanesMax))
	if err != nil {
		return hash{}, err
	}
	for i, part := range []*[]byte{&h.salt, &h.sum} {
		b, err := base64.RawStdEncoding.Strict().DecodeString(parts[4+i])
		if err != nil || len(b) < hashPartBytesMin || len(b) > hashPartBytesMax {
			return bad("its salt or sum is no base64 of 8 to 64 bytes")
		}
		*part = b
	}
	return h, nil
}
