//go:build linux

package rig

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// Machine is what the figures depend on. What could not be found out is
// "unknown" or 0.
type Machine struct {
	CPU         string `json:"cpu"`
	Cores       int    `json:"cores"`
	Kernel      string `json:"kernel"`
	MemoryBytes int64  `json:"memory_bytes"`
	FileSystem  string `json:"file_system"` // type of the one the data are on
	GoVersion   string `json:"go_version"`  // that built this program
}

const unknown = "unknown"

// Describe finds out about the machine and the file system of a directory.
func Describe(data string) Machine {
	d := Machine{CPU: unknown, Cores: runtime.NumCPU(), Kernel: unknown, FileSystem: unknown, GoVersion: runtime.Version()}
	withFile("/proc/cpuinfo", func(r io.Reader) { d.CPU = cpuModel(r) })
	withFile("/proc/meminfo", func(r io.Reader) { d.MemoryBytes, _ = kilobytes(r, "MemTotal:") })
	withFile("/proc/self/mountinfo", func(r io.Reader) { d.FileSystem = fileSystemOf(r, data) })
	var u unix.Utsname
	if unix.Uname(&u) == nil {
		d.Kernel = unix.ByteSliceToString(u.Sysname[:]) + " " + unix.ByteSliceToString(u.Release[:]) + " " + unix.ByteSliceToString(u.Machine[:])
	}
	return d
}

// String returns the machine in one line.
func (m Machine) String() string {
	memory := unknown
	if m.MemoryBytes > 0 {
		memory = fmt.Sprintf("%.1f GiB", float64(m.MemoryBytes)/(1<<30))
	}
	return fmt.Sprintf("%s, %d cores, %s memory, data on %s; %s", m.CPU, m.Cores, memory, m.FileSystem, m.Kernel)
}

// DataDirectory returns where to put data: the directory asked for, or else the
// system's temporary directory, or the current one if that is in memory.
func DataDirectory(asked string) (string, error) {
	if asked == "" {
		if asked = os.TempDir(); InMemory(asked) {
			asked = "."
		}
	}
	return filepath.Abs(asked)
}

// InMemory reports whether a directory is on a file system in memory, where
// nothing is durable.
func InMemory(dir string) bool {
	var s unix.Statfs_t
	return unix.Statfs(dir, &s) == nil && (s.Type == unix.TMPFS_MAGIC || s.Type == unix.RAMFS_MAGIC)
}

func withFile(path string, f func(io.Reader)) {
	file, err := os.Open(path)
	if err != nil {
		return
	}
	defer file.Close()
	f(file)
}

// cpuModel finds the name of the processor in /proc/cpuinfo.
func cpuModel(r io.Reader) string {
	s := bufio.NewScanner(r)
	for s.Scan() {
		if name, value, ok := strings.Cut(s.Text(), ":"); ok && strings.TrimSpace(name) == "model name" {
			return strings.TrimSpace(value)
		}
	}
	return unknown
}

// fileSystemOf finds the type of the file system a path is on in
// /proc/self/mountinfo: that of the last mount at the longest prefix.
func fileSystemOf(r io.Reader, path string) string {
	if real, err := filepath.EvalSymlinks(path); err == nil {
		path = real
	}
	best, longest := unknown, -1
	s := bufio.NewScanner(r)
	for s.Scan() {
		// ID parent major:minor root mountpoint options [tags] - type source options
		mount, rest, ok := strings.Cut(s.Text(), " - ")
		fields := strings.Fields(mount)
		if !ok || len(fields) < 6 {
			continue
		}
		at := fields[4]
		inside := path == at || strings.HasPrefix(path, strings.TrimSuffix(at, "/")+"/")
		if inside && len(at) >= longest {
			best, longest = strings.Fields(rest)[0], len(at)
		}
	}
	return best
}

// noise is what a version line says beyond the version.
var noise = regexp.MustCompile(` (sha|malloc|bits|build)=\S+`)

// VersionLine returns the first line a program says about itself when called
// with args, "" if program is "".
func VersionLine(program string, args ...string) string {
	if program == "" {
		return ""
	}
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	out, err := exec.CommandContext(ctx, program, args...).Output()
	if err != nil {
		return unknown
	}
	line, _, _ := strings.Cut(string(out), "\n")
	return noise.ReplaceAllString(strings.TrimSpace(line), "")
}
