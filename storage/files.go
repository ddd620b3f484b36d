package storage

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"strings"
	"sync"
	"sync/atomic"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/vfs"
)

// # Files without which there is no database
//
// The marker names the manifest, the manifest the tables. Where one of them is lost
// or cut, Pebble takes the database for a new one, or for what it was earlier, and
// deletes the tables that it then does not know. So a start looks for the marker
// first, and nothing is deleted before the owner has found that the state and the
// log belong together.

// checkMarker fails with ErrFiles where there was a database and its marker is
// missing.
func checkMarker(o *Options) error {
	if !o.Begun {
		return nil
	}
	found, err := pebble.Peek(o.Dir, o.FS)
	switch {
	case err != nil && !errors.Is(err, fs.ErrNotExist):
		return err
	case err != nil || !found.Exists:
		return fmt.Errorf("%w: %s has no marker.manifest.*, which names the manifest", ErrFiles, o.Dir)
	case found.FormatMajorVersion == 0:
		return fmt.Errorf("%w: %s has no marker.format-version.*", ErrFiles, o.Dir)
	}
	return nil
}

// explainFiles names the file for which Pebble has refused to open the database in
// dir, where it is a file that is missing, cut or damaged.
func explainFiles(err error, dir string, o *pebble.Options) error {
	found, peekErr := pebble.Peek(dir, o.FS)
	if peekErr != nil {
		return err
	}
	err = &causedError{strings.ReplaceAll(err.Error(), "\n", "; "), err}
	if _, statErr := o.FS.Stat(found.ManifestFilename); errors.Is(statErr, fs.ErrNotExist) {
		return fmt.Errorf("%w: %s is missing", ErrFiles, found.ManifestFilename)
	}
	// Pebble has no error of its own for another length.
	if errors.Is(err, fs.ErrNotExist) || strings.Contains(err.Error(), "object size mismatch") {
		return fmt.Errorf("%w: %s names others than there are: %w", ErrFiles, found.ManifestFilename, err)
	}
	if options, readErr := readText(o.FS, found.OptionsFilename); readErr == nil && o.CheckCompatibility(dir, options) != nil {
		return fmt.Errorf("%w: %s: %w", ErrOptionsFile, found.OptionsFilename, err)
	}
	if pebble.IsCorruptionError(err) {
		return fmt.Errorf("%w: %s: %w", ErrFiles, found.ManifestFilename, err)
	}
	return err
}

func readText(f vfs.FS, path string) (string, error) {
	file, err := f.Open(path)
	if err != nil {
		return "", err
	}
	b, err := io.ReadAll(file)
	return string(b), errors.Join(err, file.Close())
}

// remover holds back the deletion of what Pebble does not need any more until the
// first flush: by then the node has begun to work. What is left when the store ends
// before, the next start finds.
type remover struct {
	begun atomic.Bool
	mu    sync.Mutex
	held  []string // paths; Pebble takes them for deleted
}

// cleanupFunction is what Pebble deletes files below that it does not need any more. Its
// own hook, Options.Cleaner, cannot be implemented elsewhere: it names a type of an
// internal package. TestLostFiles fails where a later version has renamed the function.
const cleanupFunction = "github.com/cockroachdb/pebble/v2.(*cleanupManager).mainLoop"

// holds reports whether a file that Pebble deletes is kept until begin.
func (r *remover) holds(path string) bool {
	if r.begun.Load() || !onStack(cleanupFunction) {
		return false
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.begun.Load() {
		return false
	}
	r.held = append(r.held, path)
	return true
}

// begin ends the holding back, and returns what has been held back.
func (r *remover) begin() (held []string) {
	if r.begun.Load() {
		return nil
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.begun.Store(true)
	held, r.held = r.held, nil
	return held
}

// removeHeld deletes what has been held back. An error leaves a file for the next
// start.
func (s *Store) removeHeld() {
	for _, path := range s.remover.begin() {
		_ = s.damage.options.FS.Remove(path)
	}
}
