package command

// Cut returns the part of value from byte start to byte end, both inclusive;
// negative ones count from the end, -1 being the last byte.
func Cut(value []byte, start, end int64) []byte {
	n := int64(len(value))
	if start < 0 && end < 0 && start > end {
		return nil
	}
	if start < 0 {
		start = max(start+n, 0)
	}
	if end < 0 {
		end = max(end+n, 0)
	}
	end = min(end, n-1)
	if start > end || n == 0 {
		return nil
	}
	return value[start : end+1]
}
