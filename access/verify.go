package access

import (
	"context"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"runtime"
	"sync"
	"time"
)

// Errors of Verify.
var (
	// ErrWrong: the user is not there or disabled, or the password is not the user's. It does
	// not say which.
	ErrWrong = errors.New("wrong user name or password")
	// ErrNoUsers: there is nobody to be, as far as this node knows. It may just have started.
	ErrNoUsers = errors.New("the cluster has no users, as far as this node knows yet")
	// ErrCrowded: too many passwords are being checked.
	ErrCrowded = errors.New("too many passwords are being checked; try again")
)

// SlowDownError refuses to check a password, since too many wrong ones have come.
type SlowDownError struct {
	After time.Duration // until the next one may come
}

func (e *SlowDownError) Error() string {
	return fmt.Sprintf("too many wrong passwords; the next attempt is accepted in %v", e.After.Round(time.Millisecond))
}

const (
	// knownMax is how many verified passwords are remembered, in each of two generations.
	knownMax = 4096
	// waitingMax bounds the calls of Verify under way, waitingOfAddressMax those from one
	// address: a client that opens many connections at once has one password checked.
	waitingMax          = 256
	waitingOfAddressMax = 64
	// failuresMax bounds the entries of each table of failures.
	failuresMax = 8192
)

// pace says how wrong passwords are slowed down: the first ones are free, then there is a
// delay that doubles with each.
type pace struct {
	free       int
	first, max time.Duration
}

// An address that guesses the password of one user is slowed down soonest, one that guesses
// those of many later. Guesses from many addresses slow down all but those from which the
// user has logged in before: else strangers could lock a user out.
var (
	pacePair    = pace{free: 3, first: 100 * time.Millisecond, max: 30 * time.Second}
	paceAddress = pace{free: 20, first: 100 * time.Millisecond, max: 5 * time.Second}
	paceUser    = pace{free: 100, first: 50 * time.Millisecond, max: time.Second}
)

// failureMemory is how long a wrong password is remembered.
const failureMemory = 10 * time.Minute

// delay is how long after the n-th failure the next attempt has to wait.
func (p pace) delay(n int) time.Duration {
	if n <= p.free {
		return 0
	}
	shift := min(n-p.free-1, 20)
	return min(p.first<<shift, p.max)
}

// Verifier checks credentials. To hash a password takes 20 ms and 19 MiB, so few are
// hashed at a time, who presents one that has been verified is not made to wait, and who
// presents wrong ones waits longer each time. It is safe for concurrent use.
type Verifier struct {
	key   [32]byte      // of proofs: they are of no use outside this process
	slots chan struct{} // to hash

	mu        sync.Mutex
	known     generations[proof]
	trusted   generations[pair] // have logged in
	pairs     failures[pair]
	addresses failures[string]
	users     failures[string]
	flights   map[proof]*flight
	waiting   int
	waitingOf map[string]int // by address
}

// proof stands for a user, a password, and possibly the hash that it matches.
type proof [sha256.Size]byte

type pair struct{ address, user string }

// flight is a check under way, which others with the same credentials wait for.
type flight struct {
	done  chan struct{}
	login Login
	err   error
}

// NewVerifier returns a Verifier that knows of nobody.
func NewVerifier() *Verifier {
	v := &Verifier{
		slots:     make(chan struct{}, max(1, runtime.NumCPU()/2)),
		flights:   make(map[proof]*flight),
		waitingOf: make(map[string]int),
	}
	v.pairs.pace, v.addresses.pace, v.users.pace = pacePair, paceAddress, paceUser
	_, _ = rand.Read(v.key[:]) // never fails
	return v
}

func (v *Verifier) proof(user, password, hash string) (p proof) {
	h := hmac.New(sha256.New, v.key[:])
	var n [8]byte
	for _, s := range [...]string{user, password, hash} {
		binary.LittleEndian.PutUint64(n[:], uint64(len(s)))
		h.Write(n[:])
		h.Write([]byte(s))
	}
	h.Sum(p[:0])
	return p
}

// Known returns the login of credentials that have been verified before, without hashing
// anything: it takes some microseconds.
func (v *Verifier) Known(policy *Policy, user, password string) (Login, bool) {
	a := policy.Account(user)
	if a == nil {
		return Login{}, false
	}
	for _, hash := range a.Passwords {
		p := v.proof(user, password, hash)
		v.mu.Lock()
		known := v.known.has(p)
		v.mu.Unlock()
		if known {
			return Login{User: user, hash: hash, by: byPassword}, true
		}
	}
	return Login{}, false
}

// Verify returns the login of credentials that come from an address: host:port, or anything
// else that names the peer. It may wait for others until ctx ends. Errors are ErrWrong,
// ErrNoUsers, ErrCrowded, a *SlowDownError, or ctx's.
func (v *Verifier) Verify(ctx context.Context, policy *Policy, user, password, address string) (Login, error) {
	if l, ok := v.Known(policy, user, password); ok {
		return l, nil
	}
	if policy.Empty() {
		return Login{}, ErrNoUsers
	}
	if len(user) > NameBytesMax || len(password) > PasswordBytesMax {
		return Login{}, ErrWrong
	}
	at := pair{network(address), user}
	a := policy.Account(user)
	id := v.proof(user, password, "")
	v.mu.Lock()
	if wait := v.mustWait(at, a != nil); wait > 0 {
		v.mu.Unlock()
		return Login{}, &SlowDownError{wait}
	}
	if v.waiting >= waitingMax || v.waitingOf[at.address] >= waitingOfAddressMax {
		v.mu.Unlock()
		return Login{}, ErrCrowded
	}
	v.waiting++
	v.waitingOf[at.address]++
	f, flying := v.flights[id]
	if !flying {
		f = &flight{done: make(chan struct{})}
		v.flights[id] = f
	}
	v.mu.Unlock()
	defer v.leave(at.address)
	if flying {
		select {
		case <-f.done:
			return f.login, f.err
		case <-ctx.Done():
			return Login{}, ctx.Err()
		}
	}
	f.login, f.err = v.hash(ctx, a, at, password)
	v.mu.Lock()
	delete(v.flights, id)
	v.mu.Unlock()
	close(f.done)
	return f.login, f.err
}

func (v *Verifier) leave(address string) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.waiting--
	if v.waitingOf[address]--; v.waitingOf[address] == 0 {
		delete(v.waitingOf, address)
	}
}

// mustWait returns how long an attempt has to wait. v.mu must be held.
func (v *Verifier) mustWait(at pair, exists bool) time.Duration {
	now := time.Now()
	wait := max(v.pairs.wait(at, now), v.addresses.wait(at.address, now))
	if exists && !v.trusted.has(at) {
		wait = max(wait, v.users.wait(at.user, now))
	}
	return wait
}

// hash looks whether the password is a's, which may be nil: that takes as long.
func (v *Verifier) hash(ctx context.Context, a *Account, at pair, password string) (Login, error) {
	select {
	case v.slots <- struct{}{}:
	case <-ctx.Done():
		return Login{}, ctx.Err()
	}
	defer func() { <-v.slots }()
	var stored []string
	if a != nil {
		stored = a.Passwords
	}
	if len(stored) == 0 {
		stored = decoys
	}
	for _, s := range stored {
		h, err := parseHash(s)
		if err != nil || !h.matches(password) || a == nil || len(a.Passwords) == 0 {
			continue
		}
		v.mu.Lock()
		v.known.add(v.proof(at.user, password, s))
		v.trusted.add(at)
		v.mu.Unlock()
		return Login{User: at.user, hash: s, by: byPassword}, nil
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	now := time.Now()
	v.pairs.add(at, now)
	v.addresses.add(at.address, now)
	if a != nil {
		v.users.add(at.user, now)
	}
	return Login{}, ErrWrong
}

// decoys are hashed where there is no password to compare with, so that the time does not
// tell whether a user exists.
var decoys = []string{(&hash{memoryKiB: hashMemoryKiB, passes: hashPasses, lanes: hashLanes, salt: make([]byte, saltBytes), sum: make([]byte, sumBytes)}).String()}

// network is what is slowed down together with an address: it alone, or of IPv6 the /64,
// of which anybody has all addresses.
func network(address string) string {
	ap, err := netip.ParseAddrPort(address)
	if err != nil {
		return address
	}
	ip := ap.Addr().Unmap().WithZone("")
	if ip.Is6() {
		if p, err := ip.Prefix(64); err == nil {
			return p.String()
		}
	}
	return ip.String()
}

// generations is a set that forgets what has not been asked for in a while.
type generations[K comparable] struct{ young, old map[K]struct{} }

func (g *generations[K]) has(k K) bool {
	if _, ok := g.young[k]; ok {
		return true
	}
	if _, ok := g.old[k]; !ok {
		return false
	}
	g.add(k)
	return true
}

func (g *generations[K]) add(k K) {
	if g.young == nil || len(g.young) >= knownMax {
		g.young, g.old = make(map[K]struct{}), g.young
	}
	g.young[k] = struct{}{}
}

// failures counts wrong passwords.
type failures[K comparable] struct {
	pace    pace
	entries map[K]failure
}

type failure struct {
	n     int
	last  time.Time
	until time.Time // no attempt before
}

// wait returns how long the next attempt has to wait.
func (f *failures[K]) wait(k K, now time.Time) time.Duration { return f.entries[k].until.Sub(now) }

// add counts a wrong password.
func (f *failures[K]) add(k K, now time.Time) {
	if f.entries == nil {
		f.entries = make(map[K]failure)
	}
	e := f.entries[k]
	if now.Sub(e.last) > failureMemory {
		e = failure{}
	}
	e.n, e.last = e.n+1, now
	e.until = now.Add(f.pace.delay(e.n))
	if _, ok := f.entries[k]; !ok && len(f.entries) >= failuresMax {
		f.makeRoom(now)
	}
	f.entries[k] = e
}

// makeRoom forgets what is old, or anything if nothing is.
func (f *failures[K]) makeRoom(now time.Time) {
	for k, e := range f.entries {
		if now.Sub(e.last) > failureMemory {
			delete(f.entries, k)
		}
	}
	for k := range f.entries {
		if len(f.entries) < failuresMax {
			return
		}
		delete(f.entries, k)
	}
}
