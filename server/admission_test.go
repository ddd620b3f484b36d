package server

import (
	"testing"

	"pgregory.net/rapid"
)

func newShare(max int64) *share { return &share{max: max, wake: make(chan struct{}, 1)} }

func TestShareIsFirstComeFirstServed(t *testing.T) {
	s := newShare(100)
	var a, b, c, d claim
	if !s.ask(&a, 60, 60) || s.ask(&b, 60, 60) || s.ask(&c, 10, 10) {
		t.Fatal("60 of 100 bytes are free for the first, and not for the second; the third stands behind it")
	}
	if s.take(1) {
		t.Error("what does not wait has overtaken what does")
	}
	if k := s.next(); k != nil {
		t.Fatal("granted although nothing was given back")
	}
	s.drop(&a)
	if s.next() != &b || s.next() != &c || s.next() != nil || s.used != 70 {
		t.Fatalf("the two that waited get their turn in order; %d bytes are used", s.used)
	}
	if s.ask(&d, 500, 500) {
		t.Fatal("what is larger than the share is granted beside others")
	}
	s.drop(&b)
	s.drop(&c)
	if s.next() != &d {
		t.Fatal("what is larger than the share is granted alone")
	}
	s.drop(&d)
	if s.used != 0 || s.contended() || !s.take(1000) {
		t.Errorf("%d bytes are used at the end", s.used)
	}
}

func TestShareForgetsWhoLeaves(t *testing.T) {
	s := newShare(100)
	var a, b, c claim
	s.ask(&a, 100, 100)
	s.ask(&b, 100, 100)
	s.ask(&c, 50, 50)
	s.drop(&b)
	s.drop(&a)
	if s.next() != &c || s.next() != nil || s.used != 50 || s.contended() {
		t.Errorf("%d bytes are used, want those of the third alone", s.used)
	}
}

// Claims that grow would wait for each other for ever if none could go beyond
// the share.
func TestShareLetsOneOfThoseThatGrowEnd(t *testing.T) {
	s := newShare(100)
	var a, b, fresh claim
	s.ask(&a, 50, 200)
	s.ask(&b, 50, 200)
	if s.ask(&fresh, 10, 10) {
		t.Fatal("the share is used up")
	}
	if !s.ask(&a, 80, 200) || a.held != 200 {
		t.Fatalf("the first that grows holds %d bytes, want all it will ever need", a.held)
	}
	if s.ask(&b, 80, 200) {
		t.Fatal("two have gone beyond the share")
	}
	s.drop(&a)
	if s.next() != &b || s.next() != &fresh {
		t.Fatal("the second that grows comes next, and before who holds nothing")
	}
}

func TestShareExpires(t *testing.T) {
	s := newShare(100)
	var a claim
	b := claim{deadline: 1000}
	s.ask(&a, 100, 100)
	s.ask(&b, 1, 1)
	if s.overdue(1000) != nil || s.overdue(1001) != &b || s.overdue(1001) != nil {
		t.Fatal("a claim is taken out when its deadline has passed, once")
	}
	s.drop(&b)
	s.drop(&a)
	if s.next() != nil || s.used != 0 || s.contended() {
		t.Error("the claim that has expired is granted after all")
	}
}

// TestShareModel plays any order of events. Whoever holds all it will need
// ends at some time; then everybody gets a turn, and the share is exceeded by
// no more than one claim.
func TestShareModel(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		const most = 40
		s := newShare(rapid.Int64Range(1, 100).Draw(t, "max"))
		size := rapid.Int64Range(1, most)
		var holding, waiting []*claim
		grant := func() {
			for k := s.next(); k != nil; k = s.next() {
				for i, x := range waiting {
					if x == k {
						waiting = append(waiting[:i:i], waiting[i+1:]...)
					}
				}
				holding = append(holding, k)
			}
		}
		end := func(i int) {
			s.drop(holding[i])
			holding = append(holding[:i:i], holding[i+1:]...)
			grant()
		}
		t.Repeat(map[string]func(*rapid.T){
			"arrive": func(t *rapid.T) {
				k := &claim{}
				n := size.Draw(t, "bytes")
				if s.ask(k, n, rapid.SampledFrom([]int64{n, most}).Draw(t, "most")) {
					holding = append(holding, k)
				} else {
					waiting = append(waiting, k)
				}
			},
			"grow": func(t *rapid.T) {
				for i, k := range holding {
					if k.held < k.most {
						if !s.ask(k, rapid.Int64Range(k.held+1, k.most).Draw(t, "bytes"), k.most) {
							holding = append(holding[:i:i], holding[i+1:]...)
							waiting = append(waiting, k)
						}
						return
					}
				}
			},
			"end": func(t *rapid.T) {
				if len(holding) > 0 {
					end(rapid.IntRange(0, len(holding)-1).Draw(t, "which"))
				}
			},
			"leave": func(t *rapid.T) {
				if len(waiting) > 0 {
					i := rapid.IntRange(0, len(waiting)-1).Draw(t, "which")
					s.drop(waiting[i])
					waiting = append(waiting[:i:i], waiting[i+1:]...)
					grant()
				}
			},
			"": func(t *rapid.T) {
				var held int64
				for _, k := range append(holding[:len(holding):len(holding)], waiting...) {
					held += k.held
				}
				if s.used != held || held > s.max+most || s.contended() != (len(waiting) > 0) {
					t.Fatalf("%d bytes are used of %d, the claims hold %d, %d wait", s.used, s.max, held, len(waiting))
				}
				if len(waiting) > 0 && len(holding) == 0 {
					t.Fatalf("%d wait and nobody goes on", len(waiting))
				}
			},
		})
		for len(holding) > 0 {
			end(0)
		}
		if len(waiting) > 0 || s.used != 0 {
			t.Fatalf("%d never got a turn, %d bytes are still used", len(waiting), s.used)
		}
	})
}
