package bufpool

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"os"
	"strings"
	"sync"
	"testing"
)

func TestMain(m *testing.M) { os.Exit(CheckedMain(m).Run()) }

func TestGetCapacity(t *testing.T) {
	for _, n := range []int{
		0, 1, ClassBytesMin - 1, ClassBytesMin, ClassBytesMin + 1, 1000, 1024, 1025, 4096,
		ClassBytesMax - 1, ClassBytesMax, ClassBytesMax + 1, 16<<20 + 3,
	} {
		b := Get(n)
		if len(b.B) != 0 || cap(b.B) < n {
			t.Errorf("Get(%d): len %d, cap %d", n, len(b.B), cap(b.B))
		}
		switch {
		case n > ClassBytesMax && cap(b.B) != n:
			t.Errorf("Get(%d) beyond the classes: cap %d, want it to measure", n, cap(b.B))
		case n <= ClassBytesMax && (cap(b.B)&(cap(b.B)-1) != 0 || cap(b.B) > max(2*n, ClassBytesMin)):
			t.Errorf("Get(%d): cap %d is not the tightest class", n, cap(b.B))
		}
		b.B = b.B[:cap(b.B)]
		for i := range b.B {
			b.B[i] = byte(i)
		}
		b.Release()
	}
}

func TestBuffersDoNotOverlap(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	type owned struct {
		b    *Buffer
		fill byte
	}
	var live []owned
	check := func(o owned) {
		t.Helper()
		for i, c := range o.b.B {
			if c != o.fill {
				t.Fatalf("byte %d of %d is %#x, want %#x", i, len(o.b.B), c, o.fill)
			}
		}
	}
	for range 20_000 {
		if len(live) < 64 && rng.IntN(2) == 0 {
			o := owned{Get(rng.IntN(5000)), byte(rng.IntN(200))}
			o.b.Append(bytes.Repeat([]byte{o.fill}, cap(o.b.B)))
			live = append(live, o)
			continue
		}
		if len(live) == 0 {
			continue
		}
		i := rng.IntN(len(live))
		check(live[i])
		if rng.IntN(3) == 0 {
			live[i].b.Append(bytes.Repeat([]byte{live[i].fill}, rng.IntN(300)))
			continue
		}
		live[i].b.Release()
		live[i] = live[len(live)-1]
		live = live[:len(live)-1]
	}
	for _, o := range live {
		check(o)
		o.b.Release()
	}
}

func TestGrow(t *testing.T) {
	pattern := make([]byte, 3*ClassBytesMax)
	for i := range pattern {
		pattern[i] = byte(i * 7)
	}
	for _, tc := range []struct{ have, grow int }{
		{0, 0}, {0, 1}, {10, 10}, {64, 1}, {64, 0}, {100, 1 << 16},
		{ClassBytesMax, 0}, {ClassBytesMax, 1}, {ClassBytesMax - 1, 2}, {ClassBytesMax + 1, 1}, {ClassBytesMax, ClassBytesMax},
	} {
		b := Get(tc.have)
		b.Append(pattern[:tc.have])
		b.Grow(tc.grow)
		if room := cap(b.B) - len(b.B); room < tc.grow {
			t.Errorf("%+v: room for %d", tc, room)
		}
		if !bytes.Equal(b.B, pattern[:tc.have]) {
			t.Errorf("%+v: content lost", tc)
		}
		b.Release()
	}
}

func TestGrowReclaimsTheFront(t *testing.T) {
	b := Get(4096)
	defer b.Release()
	b.B = b.B[:cap(b.B)]
	copy(b.B[4000:], "the rest of a frame")
	start := &b.B[0]
	b.B = b.B[4000:4019]
	b.Grow(4000)
	if &b.B[0] != start || cap(b.B) != 4096 {
		t.Errorf("Grow took new memory of %d bytes where moving to the front sufficed", cap(b.B))
	}
	if string(b.B) != "the rest of a frame" {
		t.Errorf("content is %q", b.B)
	}
}

func TestGrowIsLinearBeyondTheClasses(t *testing.T) {
	b := Get(ClassBytesMax)
	defer b.Release()
	moves, last := 0, cap(b.B)
	chunk := make([]byte, 4096)
	for len(b.B) < 16<<20 {
		b.Append(chunk)
		if cap(b.B) != last {
			moves, last = moves+1, cap(b.B)
		}
	}
	if moves > 16 {
		t.Errorf("%d moves to append 16 MiB in steps of 4 KiB", moves)
	}
}

func TestAppend(t *testing.T) {
	b := Get(0)
	defer b.Release()
	var want []byte
	for i := range 500 {
		p := []byte(fmt.Sprintf("<%d>", i))
		want = append(want, p...)
		b.Append(p)
	}
	if !bytes.Equal(b.B, want) {
		t.Error("content differs")
	}
}

// An append beyond cap by the language moves B to memory the pool does not
// own. Neither that memory nor the pooled one may end up twice in use.
func TestForeignArray(t *testing.T) {
	for _, after := range []string{"release", "grow"} {
		b := Get(ClassBytesMin)
		b.B = append(b.B, make([]byte, ClassBytesMin*4)...)
		foreign := b.B
		if after == "grow" {
			b.Grow(ClassBytesMin * 8)
			foreign[0] = 9
			if b.B[0] != 0 {
				t.Error("Grow kept the foreign array")
			}
		}
		b.Release()
		foreign[0] = 1
		for range 8 {
			c := Get(len(foreign))
			c.B = c.B[:cap(c.B)]
			if &c.B[0] == &foreign[0] {
				t.Error("the pool handed out an array it never owned")
			}
			clear(c.B)
			defer c.Release()
		}
		if foreign[0] != 1 {
			t.Error("the foreign array was written to")
		}
	}
}

func TestReferences(t *testing.T) {
	b := Get(100)
	b.Append([]byte("shared"))
	const holders = 32
	var wg sync.WaitGroup
	for range holders {
		b.Retain()
		wg.Go(func() {
			for range 200 {
				b.Retain()
				if string(b.B) != "shared" {
					t.Error("content changed while references were held")
				}
				b.Release()
			}
			b.Release()
		})
	}
	b.Release()
	wg.Wait()
}

func TestMisusePanics(t *testing.T) {
	for _, tc := range []struct {
		name, want string
		f          func()
	}{
		{"negative capacity", "capacity of -1", func() { Get(-1) }},
		{"negative grow", "Grow by -1", func() { b := Get(1); defer b.Release(); b.Grow(-1) }},
		{"grow overflow", "address space", func() {
			b := Get(1)
			defer b.Release()
			b.B = b.B[:1]
			b.Grow(int(^uint(0) >> 1))
		}},
		{"move while shared", "2 references", func() {
			b := Get(64)
			b.Retain()
			defer b.Release()
			defer b.Release()
			b.Grow(65)
		}},
	} {
		t.Run(tc.name, func(t *testing.T) { mustPanic(t, tc.want, tc.f) })
	}
}

func TestGrowInPlaceWhileShared(t *testing.T) {
	b := Get(64)
	b.Retain()
	b.Grow(64)
	b.Release()
	b.Release()
}

func mustPanic(t *testing.T, want string, f func()) (message string) {
	t.Helper()
	defer func() {
		t.Helper()
		r := recover()
		message = fmt.Sprint(r)
		if r == nil || !strings.Contains(message, want) {
			t.Errorf("panic %v, want one with %q", r, want)
		}
	}()
	f()
	return ""
}

func TestUnpooledIsNotRetained(t *testing.T) {
	if classOf(ClassBytesMax) == unpooled || classOf(ClassBytesMax+1) != unpooled {
		t.Fatal("ClassBytesMax is not the border of the pool")
	}
	b := Get(ClassBytesMax + 1)
	b.B = b.B[:1]
	first := &b.B[0]
	b.Release()
	for range 4 {
		c := Get(ClassBytesMax + 1)
		if &c.B[:1][0] == first {
			t.Error("a buffer above ClassBytesMax came back")
		}
		defer c.Release()
	}
}

func BenchmarkGetRelease(b *testing.B) {
	for _, size := range []int{64, 4096, 1 << 16} {
		b.Run(fmt.Sprint(size), func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				Get(size).Release()
			}
		})
	}
}

func BenchmarkGetReleaseParallel(b *testing.B) {
	b.ReportAllocs()
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			Get(4096).Release()
		}
	})
}

func BenchmarkRetainRelease(b *testing.B) {
	buf := Get(64)
	defer buf.Release()
	b.ReportAllocs()
	for b.Loop() {
		buf.Retain()
		buf.Release()
	}
}
