package config

import (
	"testing"
	"testing/fstest"
)

func TestMemoryLimits(t *testing.T) {
	file := func(s string) *fstest.MapFile { return &fstest.MapFile{Data: []byte(s)} }
	tests := []struct {
		name string
		fs   fstest.MapFS
		want int64
	}{
		{"none", fstest.MapFS{}, 0},
		{"v2, the parent is tighter", fstest.MapFS{
			"proc/self/cgroup":                      file("0::/a/b\n"),
			"sys/fs/cgroup/a/b/memory.max":          file("max\n"),
			"sys/fs/cgroup/a/memory.max":            file("1048576\n"),
			"sys/fs/cgroup/elsewhere/b/memory.max":  file("4096\n"),
			"sys/fs/cgroup/memory.max":              file("2097152\n"),
			"sys/fs/cgroup/memory/memory.unrelated": file("1\n"),
		}, 1 << 20},
		{"v2 in a container", fstest.MapFS{
			"proc/self/cgroup":         file("0::/\n"),
			"sys/fs/cgroup/memory.max": file("536870912\n"),
		}, 512 << 20},
		{"v1", fstest.MapFS{
			"proc/self/cgroup": file("5:cpu,cpuacct:/x\n4:memory:/x\n"),
			"sys/fs/cgroup/memory/x/memory.limit_in_bytes":   file("3145728\n"),
			"sys/fs/cgroup/memory/memory.limit_in_bytes":     file("9223372036854771712\n"),
			"sys/fs/cgroup/cpu,cpuacct/x/memory.limit_bogus": file("1\n"),
		}, 3 << 20},
		{"garbage", fstest.MapFS{"proc/self/cgroup": file("what\n"), "sys/fs/cgroup/memory.max": file("?")}, 0},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if got := cgroupMemory(tt.fs); got != tt.want {
				t.Errorf("cgroupMemory() = %d, want %d", got, tt.want)
			}
		})
	}
	meminfo := fstest.MapFS{"proc/meminfo": file("MemFree: 1 kB\nMemTotal:       2048 kB\n")}
	if got := physicalMemory(meminfo); got != 2<<20 {
		t.Errorf("physicalMemory() = %d", got)
	}
}
