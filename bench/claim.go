package bench

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/proa-kv/proa/client"
	"github.com/proa-kv/proa/protocol"
)

// markerKey is the row that says that the rows under Prefix are this package's.
// It is written before them and deleted after them, so a load that was killed
// leaves no row without it. It sorts before them.
const markerKey = Prefix + "about"

// markerOwner stands in every marker.
const markerOwner = "proa bench"

// marker is the value of the row markerKey, in JSON: the load that wrote last.
type marker struct {
	WrittenBy  string    `json:"written_by"`
	Started    time.Time `json:"started"`
	Workload   string    `json:"workload"`
	Rows       uint64    `json:"rows"`
	ValueBytes string    `json:"value_bytes"`
	Seed       uint64    `json:"seed"`
}

// keyPadding fills keys that are to be longer than they need be.
const keyPadding = '.'

// ForeignRowsError says that rows lie under Prefix that this package has not
// written.
type ForeignRowsError struct {
	Rows    uint64
	Example []byte // the first key
}

// Error says what was found and what to do about it.
func (e *ForeignRowsError) Error() string {
	return fmt.Sprintf("bench: the benchmark keeps its rows under %s, where it found %d that it did not write, the first %.64q: "+
		"move them, or delete them with: proa del --prefix %s", Prefix, e.Rows, e.Example, Prefix)
}

// CountRows returns how many rows loads have left under Prefix. It reads all
// their keys, some at a time. The error is a *ForeignRowsError where other rows
// lie there, too: rows of which the key is none that this package makes, and all
// rows where there is no marker.
func CountRows(ctx context.Context, c *client.Client) (uint64, error) {
	const page = 10_000
	var own, others uint64
	var first, firstOther []byte
	for item, err := range c.Scan(ctx, client.Prefix([]byte(Prefix)), client.KeysOnly(), client.PageSize(page)) {
		switch {
		case err != nil:
			return 0, fmt.Errorf("bench: looking for rows under %s: %w", Prefix, err)
		case string(item.Key) == markerKey:
			continue
		case madeHere(item.Key):
			first = firstOf(first, item.Key)
			own++
		default:
			firstOther = firstOf(firstOther, item.Key)
			others++
		}
	}
	// The marker is read after the rows: another load may have begun meanwhile.
	switch ours, present, err := readMarker(ctx, c); {
	case err != nil:
		return 0, err
	case present && !ours:
		return 0, &ForeignRowsError{own + others + 1, []byte(markerKey)}
	case !present && own+others > 0:
		return 0, &ForeignRowsError{own + others, least(first, firstOther)}
	case others > 0:
		return 0, &ForeignRowsError{others, firstOther}
	}
	return own, nil
}

// firstOf returns first, or a copy of key where there is none yet.
func firstOf(first, key []byte) []byte {
	if first == nil {
		first = bytes.Clone(key)
	}
	return first
}

// least returns the key that sorts first of those that are not nil.
func least(a, b []byte) []byte {
	if a == nil || b != nil && bytes.Compare(b, a) < 0 {
		return b
	}
	return a
}

func readMarker(ctx context.Context, c *client.Client) (ours, present bool, err error) {
	item, err := c.Get(ctx, []byte(markerKey))
	switch {
	case errors.Is(err, client.ErrNotFound):
		return false, false, nil
	case err != nil:
		return false, false, fmt.Errorf("bench: reading %s: %w", markerKey, err)
	}
	var m marker
	return json.Unmarshal(item.Value, &m) == nil && m.WrittenBy == markerOwner, true, nil
}

// madeHere reports whether a key is one that a row of this package can have.
func madeHere(key []byte) bool {
	for _, sort := range []struct {
		prefix string
		digits int
	}{{plainRows, numberDigits}, {counterRows, numberDigits}, {ycsbRows, hashDigits}} {
		rest, ok := bytes.CutPrefix(key, []byte(sort.prefix))
		if ok && len(rest) >= sort.digits && len(bytes.Trim(rest[:sort.digits], keyDigits)) == 0 &&
			len(bytes.TrimRight(rest[sort.digits:], string(keyPadding))) == 0 {
			return true
		}
	}
	return false
}

// DeleteRows deletes all rows that loads have left under Prefix, those of a load
// under way included, and returns how many there were. It deletes nothing where
// CountRows finds rows of others.
func DeleteRows(ctx context.Context, c *client.Client) (uint64, error) {
	n, err := CountRows(ctx, c)
	if err != nil {
		return 0, err
	}
	if err := c.DeleteRange(ctx, []byte(markerKey+"\x00"), protocol.PrefixEnd([]byte(Prefix))); err != nil {
		return 0, fmt.Errorf("bench: deleting the rows under %s: %w", Prefix, err)
	}
	// Without the marker, rows that are left would be taken for those of others.
	if _, err := c.Delete(ctx, []byte(markerKey)); err != nil && !errors.Is(err, client.ErrNotFound) {
		return 0, fmt.Errorf("bench: deleting %s: %w", markerKey, err)
	}
	return n, nil
}

// Claim makes sure that Preload and Run overwrite only rows of this package, and
// marks the rows that they write as such. Call it before either, unless the
// cluster is known to hold nothing else. The error is a *ForeignRowsError where
// rows of others lie under Prefix.
func (h *Harness) Claim(ctx context.Context) error {
	c, err := h.client(ctx)
	if err != nil {
		return err
	}
	defer c.Close()
	if _, err := CountRows(ctx, c); err != nil {
		return err
	}
	l := &h.load
	b, err := json.Marshal(marker{markerOwner, time.Now().UTC().Truncate(time.Second), l.Workload.Name, l.Keys, l.Workload.ValueBytes.String(), l.Seed})
	if err != nil {
		return err
	}
	if _, err := c.Put(ctx, []byte(markerKey), b); err != nil {
		return fmt.Errorf("bench: writing %s: %w", markerKey, err)
	}
	return nil
}

// client connects to the servers as a program would.
func (h *Harness) client(ctx context.Context) (*client.Client, error) {
	endpoints := make([]string, len(h.cluster.members))
	for i, m := range h.cluster.members {
		endpoints[i] = m.Address
	}
	return client.New(ctx, client.Config{Endpoints: endpoints, Cluster: h.cluster.id, Connections: connectionsPerClient, DialTimeout: h.load.Timeout, RequestTimeout: h.load.Timeout, Name: clientName})
}
