package environment

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"
)

// inChild says that the test's process is one that another has started.
const inChild = "PROA_TEST_WORKING_DIRECTORY"

// TestSettings runs this program where there are settings of dragonboat: they change
// nothing, and the working directory is the one in which it was started.
func TestSettings(t *testing.T) {
	if os.Getenv(inChild) != "" {
		dir, err := filepath.EvalSymlinks("/proc/self/cwd")
		fmt.Println("in", dir, err)
		h, err := startNodeHost(vfs.NewMem(), nil)
		must(t, err)
		h.close(t)
		return
	}
	for name, files := range map[string][2]string{
		"none":       {},
		"no JSON":    {"{", "{"},
		"wrong type": {`{"LRUMaxSessionCount": "1"}`, `{"ReceiveQueueLength": true}`},
		"hard":       {`{"LRUMaxSessionCount": 1}`, ""},
	} {
		dir, err := filepath.EvalSymlinks(t.TempDir())
		must(t, err)
		for i, content := range files {
			if content != "" {
				must(t, os.WriteFile(filepath.Join(dir, []string{"dragonboat-hard-settings.json", "dragonboat-soft-settings.json"}[i]), []byte(content), 0o644))
			}
		}
		if out, err := runAgain(t, "TestSettings", dir); err != nil || !strings.Contains(out, "in "+dir+" <nil>\n") {
			t.Errorf("%s: %v\n%s", name, err, out)
		}
	}
}

// TestClosedDirectory runs this program in a directory that is closed to its user.
func TestClosedDirectory(t *testing.T) {
	const nobody = 65534
	switch os.Getenv(inChild) {
	case "":
		if os.Getuid() != 0 {
			t.Skip("for root alone")
		}
		dir := t.TempDir()
		must(t, os.Chmod(dir, 0o700))
		if out, err := runAgain(t, "TestClosedDirectory", dir); err != nil || !strings.Contains(out, "no such user's file\n") {
			t.Errorf("%v\n%s", err, out)
		}
	case "1":
		must(t, syscall.Setgid(nobody))
		must(t, syscall.Setuid(nobody))
		t.Setenv(inChild, "2")
		must(t, syscall.Exec("/proc/self/exe", os.Args, os.Environ()))
	default:
		if err := os.Mkdir("directory", 0o755); !errors.Is(err, os.ErrPermission) {
			t.Error(err)
		}
		fmt.Println("no such user's file")
	}
}

// runAgain runs a test of this program in a directory.
func runAgain(t *testing.T, test, dir string) (output string, err error) {
	c := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^"+test+"$")
	c.Dir, c.Env = dir, append(os.Environ(), inChild+"=1")
	out, err := c.CombinedOutput()
	return string(out), err
}
