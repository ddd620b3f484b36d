// Package contexts keeps the clusters that a user of the command line has named,
// each with its endpoints, its id, and how to log in, in one file of the user's
// configuration directory.
package contexts

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"syscall"

	"github.com/rogpeppe/go-internal/lockedfile"

	"github.com/proa-kv/proa/internal/atomicfile"
	"github.com/proa-kv/proa/internal/symlink"
)

// version is that of the file format. A program refuses a file of a later one:
// it may say what a cluster must not be talked to without. Format 1 knew neither
// users nor TLS, and is still written where there are none.
const version = 2

// bytesMax bounds the file. A context takes some hundred bytes.
const bytesMax = 1 << 20

var errTooLarge = fmt.Errorf("it is larger than %d bytes", bytesMax)

// ErrDamaged is the cause of what Load returns for a file that it cannot read.
var ErrDamaged = errors.New("the file of contexts cannot be read")

// ClusterID is the id of a cluster, 16 hexadecimal digits in text; 0 stands for
// one that is not known yet.
type ClusterID uint64

// String returns the id as "proa status" shows it.
func (id ClusterID) String() string { return fmt.Sprintf("%016x", uint64(id)) }

// MarshalText implements encoding.TextMarshaler.
func (id ClusterID) MarshalText() ([]byte, error) { return []byte(id.String()), nil }

// UnmarshalText implements encoding.TextUnmarshaler.
func (id *ClusterID) UnmarshalText(text []byte) error {
	n, err := strconv.ParseUint(string(text), 16, 64)
	if err != nil || len(text) != 16 {
		return fmt.Errorf("cluster %q is not an id of 16 hexadecimal digits", text)
	}
	*id = ClusterID(n)
	return nil
}

// Context is one cluster.
type Context struct {
	// Endpoints are servers of the cluster, at least one, in the form of
	// client.Config.
	Endpoints []string `json:"endpoints"`
	// Cluster is the id of the cluster, 0 until a server of it has been reached.
	Cluster ClusterID `json:"cluster,omitzero"`
	Security
}

// Security is as whom to connect to the servers of a cluster, and how. Passwords are
// kept in files of their own.
type Security struct {
	User         string `json:"user,omitempty"`
	PasswordFile string `json:"password_file,omitempty"` // path of the file that holds the user's password
	TLS          *TLS   `json:"tls,omitempty"`           // nil: without TLS
}

// TLS holds the paths of PEM files. The zero value stands for the authorities that the
// system trusts, and no certificate.
type TLS struct {
	CA         string `json:"ca,omitempty"`          // certificates of the authorities that sign servers' certificates
	Cert       string `json:"cert,omitempty"`        // the user's certificate
	Key        string `json:"key,omitempty"`         // its private key
	ServerName string `json:"server_name,omitempty"` // that servers' certificates must be for; "": that of the endpoint
}

// Set is what the file holds. The zero value holds nothing.
type Set struct {
	Current  string             // name of the context in use; "": none
	Contexts map[string]Context // by name
}

// Names returns the names of all contexts, sorted.
func (s *Set) Names() []string { return slices.Sorted(maps.Keys(s.Contexts)) }

var validName = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$`)

// CheckName returns an error unless name can be the name of a context.
func CheckName(name string) error {
	if !validName.MatchString(name) {
		return fmt.Errorf("%q cannot name a context: use 1 to 64 letters, digits, dots, dashes and underscores, a letter or digit first", name)
	}
	return nil
}

// file is the form on disk.
type file struct {
	Version  int                `json:"version"`
	Current  string             `json:"current,omitempty"`
	Contexts map[string]Context `json:"contexts"`
}

// Path returns the path of the user's file: proa/contexts.json in the directory
// of os.UserConfigDir. The error says why there is none.
func Path() (string, error) {
	dir, err := os.UserConfigDir()
	if err != nil {
		return "", err
	}
	return filepath.Join(dir, "proa", "contexts.json"), nil
}

// Load reads the file. One that does not exist holds nothing. Errors other than
// those of the file system wrap ErrDamaged.
func Load(path string) (*Set, error) {
	f, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NONBLOCK, 0) // no wait for who writes a named pipe
	if errors.Is(err, fs.ErrNotExist) {
		return &Set{}, nil
	}
	if err != nil {
		return nil, err
	}
	defer f.Close()
	var s *Set
	b, err := readRegular(f)
	if err == nil {
		s, err = decode(b)
	}
	if err != nil {
		return nil, fmt.Errorf("%w: %s: %w; correct or remove it", ErrDamaged, path, err)
	}
	return s, nil
}

// readRegular reads a file that may be anything that somebody has put there.
func readRegular(f *os.File) ([]byte, error) {
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() {
		return nil, errors.New("it is not a regular file")
	}
	b, err := io.ReadAll(io.LimitReader(f, bytesMax+1))
	if len(b) > bytesMax {
		return nil, errTooLarge
	}
	return b, err
}

func decode(b []byte) (*Set, error) {
	var head struct{ Version int }
	if err := json.Unmarshal(b, &head); err != nil {
		return nil, err
	}
	if head.Version > version {
		return nil, fmt.Errorf("it has format %d, written by a later version of proa; this one knows format %d", head.Version, version)
	}
	d := json.NewDecoder(bytes.NewReader(b))
	d.DisallowUnknownFields()
	var f file
	if err := d.Decode(&f); err != nil {
		return nil, err
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return nil, errors.New("more than one JSON value")
	}
	for name, c := range f.Contexts {
		if err := CheckName(name); err != nil {
			return nil, err
		}
		if len(c.Endpoints) == 0 || slices.Contains(c.Endpoints, "") {
			return nil, fmt.Errorf("context %s: an endpoint is missing or empty", name)
		}
	}
	if _, ok := f.Contexts[f.Current]; f.Current != "" && !ok {
		return nil, fmt.Errorf("the current context, %q, is not in it", f.Current)
	}
	return &Set{Current: f.Current, Contexts: f.Contexts}, nil
}

// Update reads the file, lets change alter what it holds, and writes it again.
// The file is complete at any moment, only its owner can read it, and updates
// by several processes follow each other. Symbolic links to it stay. Nothing is written when change fails.
func Update(path string, change func(*Set) error) error {
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return err
	}
	unlock, err := lockedfile.MutexAt(path + ".lock").Lock()
	if err != nil {
		return err
	}
	defer unlock()
	s, err := Load(path)
	if err != nil {
		return err
	}
	if s.Contexts == nil {
		s.Contexts = map[string]Context{}
	}
	if err := change(s); err != nil {
		return err
	}
	b, err := encode(s)
	if err != nil {
		return err
	}
	if len(b) > bytesMax {
		return fmt.Errorf("%s: %w", path, errTooLarge)
	}
	file, _, err := symlink.Follow(path)
	if err != nil {
		return err
	}
	return atomicfile.Replace(file, 0o600, func(w io.Writer) error {
		_, err := w.Write(b)
		return err
	})
}

func encode(s *Set) ([]byte, error) {
	format := 1
	for _, c := range s.Contexts {
		if c.Security != (Security{}) {
			format = version
		}
	}
	b, err := json.MarshalIndent(file{format, s.Current, s.Contexts}, "", "  ")
	return append(b, '\n'), err
}
