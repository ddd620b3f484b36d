package main

import (
	"bytes"
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"iter"
	"os"
	"path/filepath"
	"slices"
	"time"
	"unicode/utf8"

	"github.com/spf13/cobra"

	"github.com/proa-kv/proa/client"
	"github.com/proa-kv/proa/internal/contexts"
	"github.com/proa-kv/proa/protocol"
)

const (
	importInFlight      = 512
	importBytesInFlight = 16 << 20
	importAttemptsMax   = 5
	importStateInterval = time.Second
	importStateSuffix   = ".import-state"
)

func importCommand(a *app) *cobra.Command {
	var i importer
	var resume bool
	var dir, prefix string
	cmd := newCommand("import", cobra.MaximumNArgs(1), func(cmd *cobra.Command, args []string) error {
		if i.inFlight < 1 || i.inFlight > 65536 {
			return usagef("--in-flight %d: 1 to 65536", i.inFlight)
		}
		i.app, i.resume = a, again(a, cmd, args, "--resume")
		var err error
		switch {
		case dir != "" && (len(args) > 0 || resume):
			return usagef("--dir goes with neither FILE nor --resume")
		case dir != "":
			key, err := a.bytes(prefix)
			if err != nil {
				return err
			}
			return i.run(cmd.Context(), fileRecords(dir, key), -1)
		case prefix != "":
			return usagef("--prefix goes with --dir")
		case len(args) == 0 || args[0] == "-":
			if resume {
				return usagef("standard input cannot be resumed; name a file")
			}
			return i.run(cmd.Context(), lineRecords(newLineReader(a.in), "standard input"), -1)
		}
		f, err := os.Open(args[0])
		if err != nil {
			return notDonef("%w", err)
		}
		defer f.Close()
		return i.runFile(cmd.Context(), f, resume)
	})
	f := cmd.Flags()
	f.BoolVar(&resume, "resume", false, "continue an interrupted import of FILE")
	f.StringVar(&i.statePath, "state", "", "the state `file`; default FILE"+importStateSuffix)
	f.IntVar(&i.inFlight, "in-flight", importInFlight, "`number` of requests in flight")
	f.StringVar(&dir, "dir", "", "import the files of this `directory`")
	f.StringVarP(&prefix, "prefix", "p", "", "with --dir: `prefix` of all keys")
	return cmd
}

// record is one key to store.
type record struct {
	key, value []byte
	ttl        time.Duration
	end        int64  // offset in the source behind the record
	where      string // for messages
}

// records yields what to store. An error ends it.
type records = iter.Seq2[record, error]

// lineRecords reads JSON Lines.
func lineRecords(lines *lineReader, name string) records {
	return func(yield func(record, error) bool) {
		for line, err := range lines.all() {
			where := fmt.Sprintf("%s, line %d", name, lines.number)
			var r record
			switch {
			case err != nil:
			case len(bytes.TrimSpace(line)) == 0:
				continue
			default:
				if r, err = parseRecord(line); err != nil {
					err = notDonef("%s: %w", where, err)
				}
			}
			r.end, r.where = lines.offset, where
			if !yield(r, err) || err != nil {
				return
			}
		}
	}
}

func parseRecord(line []byte) (record, error) {
	if !utf8.Valid(line) {
		return record{}, errors.New("not valid UTF-8; write such bytes as base64")
	}
	d := json.NewDecoder(bytes.NewReader(line))
	d.DisallowUnknownFields()
	var r struct {
		row
		TTLMillis *int64 `json:"ttl_ms"` // nil: the key does not expire
	}
	if err := d.Decode(&r); err != nil {
		return record{}, err
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return record{}, errors.New("more than one JSON value")
	}
	switch {
	case r.Value == nil:
		return record{}, errors.New("no value")
	case len(r.Key) < protocol.KeyBytesMin || len(r.Key) > protocol.KeyBytesMax:
		return record{}, fmt.Errorf("a key of %d bytes; 1 to %d are allowed", len(r.Key), protocol.KeyBytesMax)
	case len(r.Value) > protocol.ValueBytesMax:
		return record{}, fmt.Errorf("a value of %d bytes; %d are allowed", len(r.Value), protocol.ValueBytesMax)
	case r.TTLMillis == nil:
		return record{key: r.Key, value: r.Value}, nil
	case *r.TTLMillis <= 0 || *r.TTLMillis > int64(protocol.TTLMillisMax):
		return record{}, fmt.Errorf("ttl_ms %d is out of range, 1 to %d; leave it out where the key does not expire", *r.TTLMillis, int64(protocol.TTLMillisMax))
	}
	return record{key: r.Key, value: r.Value, ttl: ttlOf(*r.TTLMillis)}, nil
}

// ttlOf stops at the end of a time.Duration, which is 292 years.
func ttlOf(millis int64) time.Duration {
	return time.Duration(min(millis, int64(1<<63-1)/int64(time.Millisecond))) * time.Millisecond
}

// fileRecords reads the regular files below a directory, in lexical order.
func fileRecords(root string, prefix []byte) records {
	return func(yield func(record, error) bool) {
		err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
			if err != nil || !d.Type().IsRegular() {
				return err
			}
			rel, err := filepath.Rel(root, path)
			if err != nil {
				return err
			}
			value, err := readFile(path, func(r io.Reader) ([]byte, error) {
				value, err := readValue(r)
				if err != nil {
					err = fmt.Errorf("%s: %w", path, err)
				}
				return value, err
			})
			r := record{key: append(slices.Clone(prefix), filepath.ToSlash(rel)...), value: value, where: path}
			if !yield(r, err) || err != nil {
				return filepath.SkipAll
			}
			return nil
		})
		if err != nil {
			yield(record{}, notDonef("%w", err))
		}
	}
}

// importer keeps many puts in flight and knows up to where, in the order of
// the source, all of them are acknowledged.
type importer struct {
	app       *app
	inFlight  int
	statePath string
	resume    string // command line that goes on where this one stops

	put      func(*record) acknowledgement
	window   []pending // oldest first
	bytes    int       // of the window
	keys     map[string]struct{}
	progress *progress

	state *importState // nil where nothing is noted
	saved time.Time
}

type pending struct {
	record
	future   acknowledgement
	attempts int
}

// acknowledgement is what a put on its way promises: a *client.Future.
type acknowledgement interface {
	Wait(context.Context) (client.WriteResult, error)
}

// importState is the note from which an import can be resumed.
type importState struct {
	Offset  int64  `json:"offset"`  // all before it is stored
	Records int64  `json:"records"` // stored so far, over all runs
	Head    string `json:"head"`    // hash of the file's beginning, so that another file is noticed
	HeadLen int64  `json:"head_bytes"`
	Cluster string `json:"cluster,omitempty"` // that the records are stored in; empty in states of earlier versions
	Check   string `json:"check,omitempty"`   // hash of the fields above; empty in states of earlier versions
}

// check returns what Check must be: a damaged offset would leave records out.
func (s importState) check() string {
	return hashOf(fmt.Appendf(nil, "%d %d %s %d %s", s.Offset, s.Records, s.Head, s.HeadLen, s.Cluster))
}

// headBytesMax is how much of a file's beginning identifies it.
const headBytesMax = 64 << 10

// runFile imports a file whose progress is noted.
func (i *importer) runFile(ctx context.Context, f *os.File, resume bool) error {
	info, err := f.Stat()
	if err != nil {
		return err
	}
	if !info.Mode().IsRegular() {
		if resume {
			return notDonef("%s is not a regular file and cannot be resumed", f.Name())
		}
		return i.run(ctx, lineRecords(newLineReader(f), f.Name()), -1)
	}
	i.statePath = cmp.Or(i.statePath, f.Name()+importStateSuffix)
	if i.state, err = i.loadState(f, info.Size(), resume); err != nil {
		return err
	}
	if err := i.checkCluster(ctx); err != nil {
		return err
	}
	if _, err := f.Seek(i.state.Offset, io.SeekStart); err != nil {
		return err
	}
	where := f.Name()
	lines := newLineReader(f)
	lines.offset = i.state.Offset
	if i.state.Offset > 0 {
		where = fmt.Sprintf("%s behind byte %d", where, i.state.Offset)
	}
	err = i.run(ctx, lineRecords(lines, where), info.Size()-i.state.Offset)
	if err != nil && i.state.Offset == 0 {
		return err // nothing is stored, so there is nothing to go on from
	}
	if err != nil {
		if saveErr := i.saveState(); saveErr != nil {
			return errors.Join(err, saveErr)
		}
		stored := "1 record is"
		if i.state.Records != 1 {
			stored = fmt.Sprintf("%d records are", i.state.Records)
		}
		i.app.Note("%s stored; continue with: %s", stored, i.resume)
		return err
	}
	if err := os.Remove(i.statePath); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

// loadState reads the note of an earlier run, or begins a new one.
func (i *importer) loadState(f *os.File, size int64, resume bool) (*importState, error) {
	head := make([]byte, min(size, headBytesMax))
	if _, err := f.ReadAt(head, 0); err != nil && !errors.Is(err, io.EOF) {
		return nil, err
	}
	fresh := &importState{HeadLen: int64(len(head)), Head: hashOf(head)}
	if info, err := os.Lstat(i.statePath); err == nil && !info.Mode().IsRegular() {
		return nil, notDonef("%s is not a regular file; name another state file with --state", i.statePath)
	}
	b, err := os.ReadFile(i.statePath)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		if resume {
			return nil, notDonef("nothing to resume: %s does not exist", i.statePath)
		}
		return fresh, nil
	case err != nil:
		return nil, err
	case !resume:
		return nil, notDonef("%s is left from an interrupted import; continue with: %s; or remove the file to start again", i.statePath, i.resume)
	}
	var s importState
	d := json.NewDecoder(bytes.NewReader(b))
	d.DisallowUnknownFields()
	if err := d.Decode(&s); err != nil {
		return nil, notDonef("%s is damaged (%w); remove it to start again", i.statePath, err)
	}
	if s.Check != "" && s.Check != s.check() {
		return nil, notDonef("%s is damaged (its checksum does not match); remove it to start again", i.statePath)
	}
	if s.Offset < 0 || s.Offset > size || s.HeadLen < 0 || s.HeadLen > int64(len(head)) || s.Head != hashOf(head[:s.HeadLen]) {
		return nil, notDonef("%s belongs to another file; remove it to start again", i.statePath)
	}
	return &s, nil
}

// checkCluster makes sure that an import goes on in the cluster in which it began.
func (i *importer) checkCluster(ctx context.Context) error {
	c, err := i.app.connect(ctx)
	if err != nil {
		return err
	}
	info, ok := c.Server()
	if !ok {
		return nil // lost again already: the first record will say so
	}
	cluster := contexts.ClusterID(info.Cluster).String()
	if i.state.Cluster = cmp.Or(i.state.Cluster, cluster); i.state.Cluster != cluster {
		return notDonef("%s belongs to an import into cluster %s, but %s is in cluster %s: nothing was stored; name the endpoints of that cluster, or remove the file to start again in this one", i.statePath, i.state.Cluster, info.Endpoint, cluster)
	}
	return nil
}

func hashOf(b []byte) string {
	sum := sha256.Sum256(b)
	return hex.EncodeToString(sum[:])
}

// saveState writes the note so that it is whole at any moment.
func (i *importer) saveState() error {
	if i.state == nil {
		return nil
	}
	i.saved = time.Now()
	i.state.Check = i.state.check()
	b, err := json.Marshal(i.state)
	if err != nil {
		return err
	}
	return replaceFile(i.statePath, 0o600, func(w io.Writer) error {
		_, err := w.Write(append(b, '\n'))
		return err
	})
}

// run stores everything the source yields. total is its size in bytes, -1
// where it is not known.
func (i *importer) run(ctx context.Context, source records, total int64) error {
	c, err := i.app.connect(ctx)
	if err != nil {
		return err
	}
	i.put = func(r *record) acknowledgement {
		if r.ttl > 0 {
			return c.PutAsync(r.key, r.value, client.WithTTL(r.ttl))
		}
		return c.PutAsync(r.key, r.value)
	}
	i.progress = newProgress(i.app, "importing", total)
	err = i.transfer(ctx, source)
	i.progress.stop()
	switch {
	case i.app.JSON():
		return errors.Join(err, i.app.WriteJSON(map[string]any{"records": i.progress.records, "bytes": i.progress.bytes, "complete": err == nil}))
	case err == nil:
		fmt.Fprintf(i.app.Err, "imported %s\n", i.progress.summary())
	case i.state == nil && i.progress.records > 0: // otherwise runFile says how much is stored
		fmt.Fprintf(i.app.Err, "stored, but not all: %s\n", i.progress.summary())
	}
	return err
}

// transfer keeps the window full until the source ends, and then waits for
// what is in it.
func (i *importer) transfer(ctx context.Context, source records) error {
	i.keys, i.saved = map[string]struct{}{}, time.Now()
	var failure error
	for r, err := range source {
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if failure = err; err != nil {
			break
		}
		if err := i.admit(ctx, &r); err != nil {
			return err
		}
	}
	// What is on its way counts, whatever ended the source.
	for len(i.window) > 0 {
		if err := i.finishOldest(ctx); err != nil {
			return err
		}
	}
	return failure
}

// admit sends a record as soon as there is room. Two records of one key are
// never on their way together, because requests may overtake each other and
// the later record has to win.
func (i *importer) admit(ctx context.Context, r *record) error {
	size := len(r.key) + len(r.value)
	for len(i.window) > 0 {
		_, twice := i.keys[string(r.key)]
		if !twice && len(i.window) < i.inFlight && i.bytes+size <= importBytesInFlight {
			break
		}
		if err := i.finishOldest(ctx); err != nil {
			return err
		}
	}
	i.keys[string(r.key)] = struct{}{}
	i.bytes += size
	i.window = append(i.window, pending{record: *r, future: i.put(r), attempts: 1})
	return nil
}

// finishOldest waits for the oldest record. One whose outcome is unknown is
// stored again: to store the same value twice does no harm.
func (i *importer) finishOldest(ctx context.Context) error {
	p := &i.window[0]
	for {
		_, err := p.future.Wait(ctx)
		if err == nil {
			break
		}
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if p.attempts == importAttemptsMax || !retryable(err) {
			return fmt.Errorf("%s: %w", p.where, err)
		}
		p.attempts++
		p.future = i.put(&p.record)
	}
	delete(i.keys, string(p.key))
	i.bytes -= len(p.key) + len(p.value)
	read := int64(len(p.key) + len(p.value))
	if i.state != nil {
		read = p.end - i.state.Offset
		i.state.Offset = p.end
		i.state.Records++
	}
	i.progress.add(1, read)
	*p = pending{}
	i.window = i.window[1:]
	if i.state != nil && time.Since(i.saved) >= importStateInterval {
		return i.saveState()
	}
	return nil
}

// retryable reports whether storing a record again may help.
func retryable(err error) bool {
	return isAny(err, client.ErrOutcomeUnknown, client.ErrBusy, client.ErrUnavailable, client.ErrConnectionLost,
		client.ErrShuttingDown, client.ErrNotLeader, client.ErrNoQuorum, client.ErrDropped)
}
