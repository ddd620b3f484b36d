package environment

import (
	"bytes"
	"crypto/md5"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/cockroachdb/errors/oserror"
	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/lni/dragonboat/v4/config"
	pb "github.com/lni/dragonboat/v4/raftpb"
)

// Files of dragonboat in the directory of a NodeHost.
const (
	purposeFile = "dragonboat.ds"
	idFile      = "NODEHOST.ID"

	idBytes  = 16
	sumBytes = 8 // of a checksum in front of a file's contents
)

// What dragonboat's hard settings are. It refuses a directory with others.
const (
	hardSessionsMax  = 4096
	hardBatchEntries = 48
)

// ErrDamaged says that a file of the directory is damaged.
var ErrDamaged = errors.New("damaged file")

// Prepare gives a NodeHost the file system fs, and makes its directory, c.NodeHostDir,
// ready for it: after a crash, on another host, with other numbers of workers. What
// dragonboat may check of a directory is what it was made for: the address, the
// deployment, the LogDB and its format.
//
// The directory's parent must be durable. Prepare must be called before NewNodeHost, with the configuration that is complete but for
// the file system. It returns ErrDamaged and errors of fs.
func Prepare(c *config.NodeHostConfig, fs vfs.FS, format uint32) error {
	if name, err := os.Hostname(); err == nil && name == "" {
		return errors.New("this host has no name, which dragonboat panics at")
	}
	if err := c.Prepare(); err != nil {
		return err
	}
	c.Expert.FS = newFileSystem(fs, c.NodeHostDir, c.GetDeploymentID())
	d := directory{fs, c.NodeHostDir}
	if err := fs.MkdirAll(d.path, 0o750); err != nil {
		return err
	}
	if err := d.sync(fs.PathDir(d.path)); err != nil {
		return err
	}
	return errors.Join(d.preparePurpose(c, format), d.prepareID())
}

// Verify checks the files that Prepare keeps in a directory. It returns ErrDamaged and
// errors of fs.
func Verify(fs vfs.FS, dir string) error {
	d := directory{fs, dir}
	_, purposeErr := d.read(purposeFile)
	_, idErr := d.read(idFile)
	return errors.Join(purposeErr, idErr)
}

// directory is a NodeHost's.
type directory struct {
	fs   vfs.FS
	path string
}

// preparePurpose has the directory say what it was made for, or is from now on.
func (d directory) preparePurpose(c *config.NodeHostConfig, format uint32) error {
	s := pb.RaftDataStatus{
		Address: c.RaftAddress, DeploymentId: c.GetDeploymentID(), AddressByNodeHostId: c.DefaultNodeRegistryEnabled,
		LogdbType: c.Expert.LogDBFactory.Name(), BinVer: format,
	}
	old, err := d.read(purposeFile)
	if err != nil {
		return err
	}
	if old != nil {
		if err := s.Unmarshal(old); err != nil {
			return d.damaged(purposeFile)
		}
	}
	// No host's name, which dragonboat would compare; and what the LogDB does not depend on.
	s.StepWorkerCount, s.LogdbShardCount = c.Expert.Engine.ExecShards, c.Expert.LogDB.Shards
	s.MaxSessionCount, s.EntryBatchSize = hardSessionsMax, hardBatchEntries
	if content := pb.MustMarshal(&s); !bytes.Equal(content, old) {
		return d.write(purposeFile, content)
	}
	return nil
}

// prepareID has the directory hold an identity.
func (d directory) prepareID() error {
	old, err := d.read(idFile)
	if err != nil || len(old) == idBytes {
		return err
	}
	if old != nil {
		return d.damaged(idFile)
	}
	id := make([]byte, idBytes)
	_, _ = rand.Read(id) // does not fail
	return d.write(idFile, id)
}

// damaged is an error about a file that dragonboat would panic over.
func (d directory) damaged(name string) error {
	return fmt.Errorf("%w: %s; nothing in it is needed: remove it, and start again", ErrDamaged, d.fs.PathJoin(d.path, name))
}

// read returns what a file holds behind its checksum, nil if there is no file.
func (d directory) read(name string) ([]byte, error) {
	f, err := d.fs.Open(d.fs.PathJoin(d.path, name))
	if oserror.IsNotExist(err) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	p, err := io.ReadAll(f)
	if err := errors.Join(err, f.Close()); err != nil {
		return nil, err
	}
	if len(p) < sumBytes || !bytes.Equal(p[:sumBytes], checksum(p[sumBytes:])) {
		return nil, d.damaged(name)
	}
	return p[sumBytes:], nil
}

// write replaces a file as a whole.
func (d directory) write(name string, content []byte) error {
	path := d.fs.PathJoin(d.path, name)
	temporary := path + ".tmp"
	f, err := d.fs.Create(temporary, writeCategory)
	if err != nil {
		return err
	}
	_, err = f.Write(append(checksum(content), content...))
	if err == nil {
		err = f.Sync()
	}
	if err := errors.Join(err, f.Close()); err != nil {
		return err
	}
	if err := d.fs.Rename(temporary, path); err != nil {
		return err
	}
	return d.sync(d.path)
}

func (d directory) sync(path string) error {
	f, err := d.fs.OpenDir(path)
	if err != nil {
		return err
	}
	return errors.Join(f.Sync(), f.Close())
}

// checksum is dragonboat's, which is no protection against intent.
func checksum(content []byte) []byte {
	sum := md5.Sum(content)
	return sum[len(sum)-sumBytes:]
}
