// Package symlink finds the file that a name leads to, so that a new one can be
// put in its place and the links to it stay.
package symlink

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
)

// linksMax bounds how many symbolic links are followed, as the kernel does.
const linksMax = 40

// Follow returns the path that name leads to, which need not exist. through is set
// where that is one of the process's own open files: a file of that path is not
// the same, since what has opened it goes on writing to it.
func Follow(name string) (path string, through bool, err error) {
	if path, err = filepath.Abs(name); err != nil {
		return "", false, err
	}
	for range linksMax {
		dir, err := filepath.EvalSymlinks(filepath.Dir(path))
		if err != nil {
			return "", false, err
		}
		path = filepath.Join(dir, filepath.Base(path))
		if strings.HasPrefix(path, "/proc/") || strings.HasPrefix(path, "/dev/fd/") {
			return path, true, nil
		}
		target, err := os.Readlink(path)
		if err != nil {
			return path, false, nil // no link
		}
		if !filepath.IsAbs(target) {
			target = filepath.Join(dir, target)
		}
		path = target
	}
	return "", false, fmt.Errorf("%s: more than %d symbolic links", name, linksMax)
}
