package bench

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/proa-kv/proa/client"
	"github.com/proa-kv/proa/protocol"
)

// markerKey is the row that says that the rows under Prefix are this package's.
// It is written before them and deleted after them, and not while a load is under
// way, so a load that was killed leaves no row without it. It sorts before them.
const markerKey = Prefix + "about"

// leaseRows begins the keys of leases, one for each load under way. They sort
// behind the marker and before all other rows.
const leaseRows = markerKey + "/"

// A lease expires leaseTime after its load was killed. A load renews it every
// leaseRenewal.
const (
	leaseTime    = 30 * time.Second
	leaseRenewal = leaseTime / 3
)

// leaseDigits is the number of hexadecimal digits behind leaseRows.
const leaseDigits = 16

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
	n, err := countAll(ctx, c)
	return n.rows, err
}

// rowCount is what countAll finds: the rows of loads, the loads under way, and the
// version of the marker, 0 without one.
type rowCount struct{ rows, leases, marker uint64 }

// countAll counts what lies under Prefix. DeleteRows may delete the marker while
// countAll reads the rows; a second count then finds the rows deleted, too.
func countAll(ctx context.Context, c *client.Client) (rowCount, error) {
	n, err := countAllOnce(ctx, c)
	if _, foreign := errors.AsType[*ForeignRowsError](err); foreign && n.marker == 0 {
		return countAllOnce(ctx, c)
	}
	return n, err
}

func countAllOnce(ctx context.Context, c *client.Client) (rowCount, error) {
	const page = 10_000
	var n rowCount
	var others uint64
	var first, firstOther []byte
	for item, err := range c.Scan(ctx, client.Prefix([]byte(Prefix)), client.KeysOnly(), client.PageSize(page)) {
		switch {
		case err != nil:
			return rowCount{}, fmt.Errorf("bench: looking for rows under %s: %w", Prefix, err)
		case string(item.Key) == markerKey:
			continue
		case isLeaseKey(item.Key):
			n.leases++
		case isRowKey(item.Key):
			n.rows++
		default:
			if others++; others == 1 {
				firstOther = bytes.Clone(item.Key)
			}
		}
		if first == nil && n.rows+others > 0 {
			first = bytes.Clone(item.Key)
		}
	}
	// The marker is read after the rows: another load may have begun meanwhile.
	ours, version, err := readMarker(ctx, c)
	n.marker = version
	switch {
	case err != nil:
		return rowCount{}, err
	case version != 0 && !ours:
		err = &ForeignRowsError{n.rows + others + 1, []byte(markerKey)}
	case version == 0 && n.rows+others > 0:
		err = &ForeignRowsError{n.rows + others, first}
	case others > 0:
		err = &ForeignRowsError{others, firstOther}
	default:
		return n, nil
	}
	n.rows = 0
	return n, err
}

// readMarker returns the version of the marker, 0 without one, and whether it is
// this package's.
func readMarker(ctx context.Context, c *client.Client) (ours bool, version uint64, err error) {
	item, err := c.Get(ctx, []byte(markerKey))
	switch {
	case errors.Is(err, client.ErrNotFound):
		return false, 0, nil
	case err != nil:
		return false, 0, fmt.Errorf("bench: reading %s: %w", markerKey, err)
	}
	var m marker
	return json.Unmarshal(item.Value, &m) == nil && m.WrittenBy == markerOwner, item.Version, nil
}

// isLeaseKey reports whether a key is one that a lease can have.
func isLeaseKey(key []byte) bool {
	rest, ok := bytes.CutPrefix(key, []byte(leaseRows))
	return ok && len(rest) == leaseDigits && len(bytes.Trim(rest, "0123456789abcdef")) == 0
}

// isRowKey reports whether a row of this package can have the key.
func isRowKey(key []byte) bool {
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
// under way included, and returns how many there were. While a load is under way
// the marker stays, for the rows that the load goes on writing. DeleteRows deletes
// nothing where CountRows finds rows of others.
func DeleteRows(ctx context.Context, c *client.Client) (uint64, error) {
	n, err := countAll(ctx, c)
	if err != nil {
		return 0, err
	}
	if err := c.DeleteRange(ctx, protocol.PrefixEnd([]byte(leaseRows)), protocol.PrefixEnd([]byte(Prefix))); err != nil {
		return 0, fmt.Errorf("bench: deleting the rows under %s: %w", Prefix, err)
	}
	if n.leases > 0 || n.marker == 0 {
		return n.rows, nil
	}
	// Without the marker, rows that are left would be taken for those of others.
	// A load that has begun since countAll has written the marker again.
	_, err = c.Delete(ctx, []byte(markerKey), client.IfVersion(n.marker))
	if err != nil && !errors.Is(err, client.ErrNotFound) && !errors.Is(err, client.ErrConditionFailed) {
		return 0, fmt.Errorf("bench: deleting %s: %w", markerKey, err)
	}
	return n.rows, nil
}

// Claim makes sure that Preload and Run overwrite only rows of this package, and
// marks the rows that they write as such. Call it before either, unless the
// cluster is known to hold nothing else, and end the lease after them. The error
// is a *ForeignRowsError where rows of others lie under Prefix.
func (h *Harness) Claim(ctx context.Context) (*Lease, error) {
	c, err := h.client(ctx)
	if err != nil {
		return nil, err
	}
	l := &Lease{client: c, key: fmt.Appendf(nil, "%s%0*x", leaseRows, leaseDigits, rand.Uint64())}
	if err := l.begin(ctx, &h.load); err != nil {
		return nil, errors.Join(err, c.Close())
	}
	return l, nil
}

// Lease is a row that expires and by which other loads see that one is under way,
// so that they do not delete the marker. It is renewed until End.
type Lease struct {
	client  *client.Client
	key     []byte
	marker  []byte // the value of the marker, and of the lease
	cancel  context.CancelFunc
	renewal sync.WaitGroup
}

func (l *Lease) begin(ctx context.Context, load *Load) (err error) {
	if _, err := countAll(ctx, l.client); err != nil {
		return err
	}
	l.marker, err = json.Marshal(marker{markerOwner, time.Now().UTC().Truncate(time.Second), load.Workload.Name, load.Keys, load.Workload.ValueBytes.String(), load.Seed})
	if err != nil {
		return err
	}
	if err := l.renew(ctx); err != nil {
		return err
	}
	ctx, l.cancel = context.WithCancel(context.WithoutCancel(ctx))
	l.renewal.Go(func() {
		for pause(ctx, leaseRenewal) {
			_ = l.renew(ctx) // the servers may be away for a while: the next time
		}
	})
	return nil
}

// renew writes the lease and then the marker: a load that finds no lease deletes the
// marker only in its earlier version.
func (l *Lease) renew(ctx context.Context) error {
	if _, err := l.client.Put(ctx, l.key, l.marker, client.WithTTL(leaseTime)); err != nil {
		return fmt.Errorf("bench: writing %s: %w", l.key, err)
	}
	return l.mark(ctx)
}

// mark writes the marker.
func (l *Lease) mark(ctx context.Context) error {
	if _, err := l.client.Put(ctx, []byte(markerKey), l.marker); err != nil {
		return fmt.Errorf("bench: writing %s: %w", markerKey, err)
	}
	return nil
}

// leaseEnd bounds the time that the end of a lease takes.
const leaseEnd = 2 * time.Second

// End ends the lease, also where ctx has ended. Rows that the load has written
// stay marked. A lease that cannot be deleted expires.
func (l *Lease) End(ctx context.Context) {
	l.cancel()
	l.renewal.Wait()
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), leaseEnd)
	defer cancel()
	_ = l.mark(ctx) // another load may have deleted it since renew
	_, _ = l.client.Delete(ctx, l.key)
	_ = l.client.Close()
}

// client connects to the servers as a program would.
func (h *Harness) client(ctx context.Context) (*client.Client, error) {
	endpoints := make([]string, len(h.cluster.members))
	for i, m := range h.cluster.members {
		endpoints[i] = m.Address
	}
	config := h.load.login()
	config.Endpoints, config.Cluster, config.Connections = endpoints, h.cluster.id, connectionsPerClient
	return client.New(ctx, config)
}
