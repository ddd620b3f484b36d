package datadir

import (
	"crypto/ed25519"
	"crypto/rand"
	"encoding/base32"
	"fmt"
)

// PrivateKey is the seed of a directory's Ed25519 key pair. Whoever has it can
// pass for the node; it never leaves the directory.
type PrivateKey []byte

// newKey draws a key.
func newKey() PrivateKey {
	seed := make([]byte, ed25519.SeedSize)
	if _, err := rand.Read(seed); err != nil {
		panic(err) // never
	}
	return seed
}

// pair returns the key pair, nil where the seed is none.
func (k PrivateKey) pair() ed25519.PrivateKey {
	if len(k) != ed25519.SeedSize {
		return nil
	}
	return ed25519.NewKeyFromSeed(k)
}

// Public returns the public half of the key pair, nil where there is none.
func (k PrivateKey) Public() ed25519.PublicKey {
	pair := k.pair()
	if pair == nil {
		return nil
	}
	return pair.Public().(ed25519.PublicKey)
}

// KeyPair returns the key pair of the directory.
func (id *Identity) KeyPair() ed25519.PrivateKey { return id.Key.pair() }

// TokenBytesMin is the length of the shortest join token that is accepted. What
// a handshake shows of a token can be used to guess a short one.
const TokenBytesMin = 16

// NewToken draws a join token of 160 bits.
func NewToken() string {
	b := make([]byte, 20)
	if _, err := rand.Read(b); err != nil {
		panic(err) // never
	}
	return base32.StdEncoding.EncodeToString(b)
}

// checkToken returns why a join token cannot be used.
func checkToken(token string) error {
	if token != "" && len(token) < TokenBytesMin {
		return fmt.Errorf("the join token has %d characters, at least %d are required", len(token), TokenBytesMin)
	}
	return nil
}
