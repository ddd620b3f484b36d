package config

import (
	"io/fs"
	"os"
	"path"
	"strconv"
	"strings"
)

func memoryBytes() int64 {
	root := os.DirFS("/")
	total := physicalMemory(root)
	if limit := cgroupMemory(root); limit > 0 && (total == 0 || limit < total) {
		return limit
	}
	return total
}

// physicalMemory reads MemTotal, or returns 0.
func physicalMemory(root fs.FS) int64 {
	b, err := fs.ReadFile(root, "proc/meminfo")
	if err != nil {
		return 0
	}
	for line := range strings.Lines(string(b)) {
		f := strings.Fields(line)
		if len(f) >= 2 && f[0] == "MemTotal:" {
			n, _ := strconv.ParseInt(f[1], 10, 64)
			return n * kib
		}
	}
	return 0
}

// cgroupMemory returns the lowest memory limit of the process's control group
// and the groups above it, or 0 if there is none.
func cgroupMemory(root fs.FS) int64 {
	b, err := fs.ReadFile(root, "proc/self/cgroup")
	if err != nil {
		return 0
	}
	var lowest int64
	for line := range strings.Lines(string(b)) {
		// Each line is hierarchy-id:controllers:path; version 2 has id 0 and
		// no controllers.
		f := strings.SplitN(strings.TrimSpace(line), ":", 3)
		if len(f) != 3 {
			continue
		}
		base, file := "", ""
		switch {
		case f[0] == "0" && f[1] == "":
			base, file = "sys/fs/cgroup", "memory.max"
		case strings.Contains(","+f[1]+",", ",memory,"):
			base, file = "sys/fs/cgroup/memory", "memory.limit_in_bytes"
		default:
			continue
		}
		for dir := path.Join("/", f[2]); ; dir = path.Dir(dir) {
			if n := readLimit(root, path.Join(base, dir, file)); n > 0 && (lowest == 0 || n < lowest) {
				lowest = n
			}
			if dir == "/" {
				break
			}
		}
	}
	return lowest
}

// readLimit returns the number in a control group file, or 0 if there is none
// or it stands for no limit ("max", or a number no machine has).
func readLimit(root fs.FS, name string) int64 {
	b, err := fs.ReadFile(root, name)
	if err != nil {
		return 0
	}
	n, err := strconv.ParseInt(strings.TrimSpace(string(b)), 10, 64)
	if err != nil || n >= 1<<60 {
		return 0
	}
	return n
}
