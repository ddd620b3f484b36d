package access

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

func verifierPolicy(t *testing.T) *Policy {
	return directory(t, Change{User: user("root", "admin")}, Change{User: user("svc", "readonly")},
		Change{User: &User{Name: "cert", Certificate: true}},
		Change{User: &User{Name: "off", Passwords: []string{somebody}, Disabled: true}},
		Change{User: &User{Name: "two", Passwords: []string{Hash("new password"), somebody}}}).Policy()
}

func TestVerify(t *testing.T) {
	p, ctx := verifierPolicy(t), t.Context()
	for _, x := range []struct {
		user, password string
		ok             bool
	}{
		{"root", "a password", true}, {"two", "a password", true}, {"two", "new password", true}, {"svc", "A password", false}, {"svc", "", false},
		{"cert", "", false}, {"cert", "a password", false}, {"off", "a password", false}, {"none", "a password", false}, {"", "", false},
	} {
		v := NewVerifier()
		if _, known := v.Known(p, x.user, x.password); known {
			t.Errorf("%s is known", x.user)
		}
		l, err := v.Verify(ctx, p, x.user, x.password, "10.0.0.1:1234")
		if x.ok != (err == nil) || err != nil && !errors.Is(err, ErrWrong) {
			t.Errorf("%s with %q: %v", x.user, x.password, err)
		}
		k, known := v.Known(p, x.user, x.password)
		if known != x.ok || known && k != l {
			t.Errorf("%s with %q is known afterwards: %v", x.user, x.password, known)
		}
		if _, ok := p.Permit(&l, nil); x.ok && (!ok || l.User != x.user || l.Method() != "password") {
			t.Errorf("%s: the login %+v does not hold", x.user, l)
		}
	}
}

// TestKnownPasswordsEnd: what has been verified is of no use after a change.
func TestKnownPasswordsEnd(t *testing.T) {
	p, v := verifierPolicy(t), NewVerifier()
	if _, err := v.Verify(t.Context(), p, "svc", "a password", "a"); err != nil {
		t.Fatal(err)
	}
	after := directory(t, Change{User: &User{Name: "svc", Passwords: []string{Hash("another one")}}}).Policy()
	if _, known := v.Known(after, "svc", "a password"); known {
		t.Error("the old password is known")
	}
	if _, known := v.Known(p, "root", "a password"); known {
		t.Error("another user's password is known")
	}
}

func TestNobodyToBe(t *testing.T) {
	v := NewVerifier()
	for _, p := range []*Policy{nil, (&Directory{}).Policy()} {
		for range 100 {
			if _, err := v.Verify(t.Context(), p, "admin", "a password", "10.0.0.1:1"); !errors.Is(err, ErrNoUsers) {
				t.Fatal(err)
			}
		}
	}
	if _, err := v.Verify(t.Context(), verifierPolicy(t), "root", "a password", "10.0.0.1:1"); err != nil {
		t.Errorf("afterwards: %v", err)
	}
}

// TestGuessing counts how many passwords somebody can try.
func TestGuessing(t *testing.T) {
	for _, x := range []struct {
		name     string
		at       func(i int) (user, address string)
		min, max int // attempts of 10 minutes that were checked
	}{
		{"one user from one address", func(int) (string, string) { return "svc", "10.0.0.1:1" }, 20, 40},
		{"one user from the addresses of a network", func(i int) (string, string) { return "svc", fmt.Sprintf("[2001:db8::%x]:1", i) }, 20, 40},
		{"many users from one address", func(i int) (string, string) { return fmt.Sprint("user", i), "10.0.0.1:1" }, 100, 200},
		{"one user from many addresses", func(i int) (string, string) { return "svc", fmt.Sprintf("10.%d.%d.%d:1", i>>16, i>>8&255, i&255) }, 400, 800},
	} {
		t.Run(x.name, func(t *testing.T) {
			t.Parallel()
			p := verifierPolicy(t)
			synctest.Test(t, func(t *testing.T) {
				v := NewVerifier()
				cheap(t, p)
				checked := 0
				for i, end := 0, time.Now().Add(10*time.Minute); time.Now().Before(end); i++ {
					u, address := x.at(i)
					_, err := v.Verify(context.Background(), p, u, "a guess", address)
					var slow *SlowDownError
					switch {
					case errors.Is(err, ErrWrong):
						checked++
					case errors.As(err, &slow) && slow.After > 0:
						time.Sleep(slow.After)
					default:
						t.Fatal(err)
					}
				}
				if checked < x.min || checked > x.max {
					t.Errorf("%d guesses were checked, want %d to %d", checked, x.min, x.max)
				}
			})
		})
	}
}

// cheap replaces the hashes of a policy, and the decoy, by ones that take no time.
func cheap(t *testing.T, p *Policy) {
	t.Helper()
	h := hash{memoryKiB: 8, passes: 1, lanes: 1, salt: make([]byte, 8)}
	h.sum = h.of("a password", 16)
	for _, a := range p.accounts {
		for i := range a.Passwords {
			a.Passwords[i] = h.String()
		}
	}
}

// TestNobodyIsLockedOut: guesses of strangers do not keep a user out who comes from where it
// has come from before, nor one whose password is known.
func TestNobodyIsLockedOut(t *testing.T) {
	p := verifierPolicy(t)
	synctest.Test(t, func(t *testing.T) {
		v := NewVerifier()
		cheap(t, p)
		verify := func(password, address string) error {
			_, err := v.Verify(context.Background(), p, "svc", password, address)
			return err
		}
		if err := verify("a password", "10.9.9.9:1"); err != nil {
			t.Fatal(err)
		}
		for i := range 2 * paceUser.free {
			_ = verify("a guess", fmt.Sprintf("10.0.%d.%d:1", i>>8, i&255))
		}
		var slow *SlowDownError
		if err := verify("another guess", "10.8.8.8:1"); !errors.As(err, &slow) {
			t.Fatalf("from a new address: %v", err)
		}
		if err := verify("a password", "10.8.8.8:1"); err != nil {
			t.Errorf("a known password from a new address: %v", err)
		}
		if err := verify("a third guess", "10.9.9.9:1"); !errors.Is(err, ErrWrong) {
			t.Errorf("from the user's own address: %v", err)
		}
		time.Sleep(failureMemory + time.Second)
		if err := verify("a guess", "10.8.8.8:1"); !errors.Is(err, ErrWrong) {
			t.Errorf("after a while: %v", err)
		}
	})
}

// TestCrowd: many connections with the same credentials have them checked once, and who
// comes from one address does not take all the room.
func TestCrowd(t *testing.T) {
	p := verifierPolicy(t)
	synctest.Test(t, func(t *testing.T) {
		v := NewVerifier()
		for range cap(v.slots) {
			v.slots <- struct{}{} // nothing is hashed for now
		}
		var wg sync.WaitGroup
		logins, crowded := 0, 0
		var mu sync.Mutex
		for range waitingOfAddressMax + 5 {
			wg.Go(func() {
				_, err := v.Verify(context.Background(), p, "svc", "a password", "10.0.0.1:1")
				mu.Lock()
				defer mu.Unlock()
				switch {
				case err == nil:
					logins++
				case errors.Is(err, ErrCrowded):
					crowded++
				default:
					t.Error(err)
				}
			})
		}
		synctest.Wait()
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		if _, err := v.Verify(ctx, p, "root", "a password", "10.0.0.2:1"); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("from another address: %v", err)
		}
		<-v.slots
		wg.Wait()
		if logins != waitingOfAddressMax || crowded != 5 {
			t.Errorf("%d logins, %d crowded out", logins, crowded)
		}
		if len(v.known.young) != 1 || v.waiting != 0 || len(v.waitingOf) != 0 || len(v.flights) != 0 {
			t.Errorf("%d are known, %d wait, %d addresses, %d flights", len(v.known.young), v.waiting, len(v.waitingOf), len(v.flights))
		}
	})
}

func TestTablesAreBounded(t *testing.T) {
	var f failures[int]
	f.pace = pacePair
	var g generations[int]
	now := time.Now()
	for i := range 3 * failuresMax {
		f.add(i, now)
		g.add(i)
	}
	if len(f.entries) != failuresMax || len(g.young)+len(g.old) > 2*knownMax {
		t.Errorf("%d failures, %d known", len(f.entries), len(g.young)+len(g.old))
	}
	if last := 3*failuresMax - 1; !g.has(last) || f.entries[last].n != 1 {
		t.Error("the latest are not there")
	}
	f.add(0, now.Add(failureMemory+time.Second))
	if len(f.entries) != 1 {
		t.Errorf("%d failures are left that are too old", len(f.entries))
	}
}

func BenchmarkKnown(b *testing.B) {
	d := Directory{Users: []User{*user("svc", "readonly")}}
	p, v := d.Policy(), NewVerifier()
	if _, err := v.Verify(context.Background(), p, "svc", "a password", "a"); err != nil {
		b.Fatal(err)
	}
	b.ReportAllocs()
	for b.Loop() {
		if _, ok := v.Known(p, "svc", "a password"); !ok {
			b.Fatal("not known")
		}
	}
}
