//go:build linux

package main

import (
	"bufio"
	"context"
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

// machine is what the figures depend on.
type machine struct {
	cpu        string
	cores      int
	kernel     string
	memory     int64  // bytes, 0 if unknown
	fileSystem string // type of the one the data are on
	proa       string
	redis      string
	goVersion  string
}

const unknown = "unknown"

// describe finds out about the machine and the programs.
func describe(proaPath, redisPath, data string) machine {
	d := machine{
		cpu: unknown, cores: runtime.NumCPU(), kernel: unknown, fileSystem: unknown,
		proa: versionLine(proaPath, "version"), redis: versionLine(redisPath, "--version"), goVersion: runtime.Version(),
	}
	withFile("/proc/cpuinfo", func(r io.Reader) { d.cpu = cpuModel(r) })
	withFile("/proc/meminfo", func(r io.Reader) { d.memory, _ = kilobytes(r, "MemTotal:") })
	withFile("/proc/self/mountinfo", func(r io.Reader) { d.fileSystem = fileSystemOf(r, data) })
	var u unix.Utsname
	if unix.Uname(&u) == nil {
		d.kernel = unix.ByteSliceToString(u.Sysname[:]) + " " + unix.ByteSliceToString(u.Release[:]) + " " + unix.ByteSliceToString(u.Machine[:])
	}
	return d
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

// versionLine returns the first line a program says about itself, "" if there
// is none.
func versionLine(program string, args ...string) string {
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
