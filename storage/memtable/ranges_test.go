package memtable

import (
	"testing"

	"pgregory.net/rapid"
)

// What ranges that were deleted one after the other hide is what a list of all
// of them hides.
func TestDeletedRanges(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var all []Range
		var ranges Ranges
		for i := range rapid.IntRange(0, 12).Draw(t, "ranges") {
			from := rapid.IntRange(1, 28).Draw(t, "from")
			to := rapid.IntRange(from+1, 30).Draw(t, "to")
			r := Range{[]byte{0, 1, byte(from)}, []byte{0, 1, byte(to)}, uint32(i + 1)}
			all, ranges = append(all, r), ranges.with(r)
		}
		for k := range byte(32) {
			key := []byte{0, 1, k}
			newest := uint32(0)
			for _, r := range all {
				if string(r.From) <= string(key) && string(key) < string(r.To) {
					newest = r.place
				}
			}
			for place := range uint32(14) {
				if got := ranges.hides(key, place); got != (newest > place) {
					t.Fatalf("%v: key %d at place %d is hidden: %v; the newest deletion is %d", ranges, k, place, got, newest)
				}
			}
		}
		for i := range ranges {
			if string(ranges[i].From) >= string(ranges[i].To) || i > 0 && string(ranges[i-1].To) > string(ranges[i].From) {
				t.Fatalf("%v", ranges)
			}
		}
		if n := len(ranges.within([]byte{0, 1}, []byte{0, 2})); n != len(ranges) {
			t.Fatalf("%d ranges of the shard, want %d", n, len(ranges))
		}
		if n := len(ranges.within([]byte{0, 0}, []byte{0, 1})) + len(ranges.within([]byte{0, 2}, []byte{0, 3})); n != 0 {
			t.Fatalf("%d ranges of other shards", n)
		}
	})
}
