package raftlog

// queueCapKept is the capacity, in elements, that an emptied queue keeps.
const queueCapKept = 4096

// queue is a slice that can also be cut at the front, in amortised constant
// time. The zero value is empty.
type queue[T any] struct {
	items []T
	head  int
}

func (q *queue[T]) len() int { return len(q.items) - q.head }

// at returns element i, counted from the front. The pointer is valid until the
// next push.
func (q *queue[T]) at(i int) *T { return &q.items[q.head+i] }

// slice returns elements [i, j), valid until the next push.
func (q *queue[T]) slice(i, j int) []T { return q.items[q.head+i : q.head+j] }

func (q *queue[T]) push(v ...T) {
	if len(q.items)+len(v) > cap(q.items) && q.head > len(q.items)/2 {
		n := copy(q.items, q.items[q.head:])
		clear(q.items[n:])
		q.items, q.head = q.items[:n], 0
	}
	q.items = append(q.items, v...)
}

// dropFront removes the first n elements.
func (q *queue[T]) dropFront(n int) {
	clear(q.items[q.head : q.head+n])
	q.head += n
	q.settle()
}

// dropBack removes the last n elements.
func (q *queue[T]) dropBack(n int) {
	keep := len(q.items) - n
	clear(q.items[keep:])
	q.items = q.items[:keep]
	q.settle()
}

// settle starts over at the front of the array once the queue is empty, and
// lets go of an array that a burst has made large.
func (q *queue[T]) settle() {
	if q.len() > 0 {
		return
	}
	q.items, q.head = q.items[:0], 0
	if cap(q.items) > queueCapKept {
		q.items = nil
	}
}
