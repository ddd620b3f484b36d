package storage

import (
	"bytes"
	"cmp"
	"fmt"
	"math"
	"math/rand/v2"
	"reflect"
	"slices"
	"strconv"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"
	"pgregory.net/rapid"

	"github.com/proa-kv/proa/command"
)

// model is the plainest implementation of the commands on one shard: maps, no
// write batches, no cache, results written down in full.
type model struct {
	applied, stamp, revision uint64
	rows                     map[string]modelRow
	index                    map[expiryEntry]bool
	sessions                 map[uint64]*modelSession
	watched                  bool // marks are kept, since revision
	since                    uint64
	gone                     map[string]uint64
}

type modelRow struct {
	value             string
	version, expireAt uint64
}

type expiryEntry struct {
	at  uint64
	key string
}

type modelSession struct {
	floor, lastUse uint64
	results        map[uint64]command.Result
	requests       map[uint64]command.Command // without their sessions
}

const modelRetention = 300 // milliseconds

func newModel() *model {
	return &model{rows: map[string]modelRow{}, index: map[expiryEntry]bool{}, sessions: map[uint64]*modelSession{}, gone: map[string]uint64{}}
}

func (m *model) apply(t rapid.TB, e Entry) (out []command.Result) {
	m.applied = e.Index
	if len(e.Data) == 0 {
		return nil
	}
	r, err := command.NewReader(e.Data)
	if err != nil {
		t.Fatal(err)
	}
	m.stamp = max(m.stamp, r.StampMillis)
	for {
		var c command.Command
		more, err := r.Next(&c)
		if err != nil {
			t.Fatal(err)
		}
		if !more {
			return out
		}
		out = append(out, cloneResult(m.once(c)))
	}
}

func (m *model) once(c command.Command) command.Result {
	id, sequence := c.Session.ID, c.Session.Sequence
	if id == 0 {
		return m.do(c)
	}
	s := m.sessions[id]
	if s == nil {
		s = &modelSession{results: map[uint64]command.Result{}, requests: map[uint64]command.Command{}}
	}
	request := c
	request.Session = command.Session{}
	if r, ok := s.results[sequence]; ok {
		if !reflect.DeepEqual(request, s.requests[sequence]) {
			return command.Result{Kind: c.Kind, Status: command.SessionMismatch}
		}
		return r
	}
	if sequence <= s.floor {
		return command.Result{Kind: c.Kind, Status: command.SessionExpired}
	}
	r := m.do(c)
	acknowledged := min(c.Session.Acknowledged, sequence-1)
	for old := range s.results {
		if old <= acknowledged {
			delete(s.results, old)
		}
	}
	s.floor, s.lastUse = max(s.floor, acknowledged), m.stamp
	s.results[sequence], s.requests[sequence] = kept(r), request
	m.sessions[id] = s
	return r
}

// kept is what a retry is told: values only if they are small.
func kept(r command.Result) command.Result {
	r = cloneResult(r)
	n := len(r.Value)
	for _, x := range r.Results {
		n += len(x.Value)
	}
	if n <= 1024 {
		return r
	}
	strip := func(r *command.Result) { r.RowOmitted, r.Value = len(r.Value) > 0, nil }
	strip(&r)
	for i := range r.Results {
		strip(&r.Results[i])
	}
	return r
}

func (m *model) visible(key string) (modelRow, bool) {
	r, ok := m.rows[key]
	if !ok || r.expireAt != 0 && r.expireAt <= m.stamp {
		return modelRow{}, false
	}
	return r, true
}

func (m *model) set(key, value string, expireAt uint64) uint64 {
	m.revision++
	m.rows[key] = modelRow{value, m.revision, expireAt}
	if expireAt != 0 {
		m.index[expiryEntry{expireAt, key}] = true
	}
	return m.revision
}

func (m *model) do(c command.Command) (out command.Result) {
	out.Kind = c.Kind
	key := string(c.Key)
	old, there := m.visible(key)
	show := func() {
		if there {
			out.HasRow, out.RowVersion, out.Value = true, old.version, []byte(old.value)
			if old.expireAt != 0 {
				out.RowTTL = old.expireAt - m.stamp
			}
		}
	}
	// unindex: the command knows the row, so the index need not keep it.
	unindex := func() {
		if r, ok := m.rows[key]; ok {
			delete(m.index, expiryEntry{r.expireAt, key})
		}
	}
	// remove deletes the row, which is deleted whether it is there or not.
	remove := func() command.Result {
		delete(m.rows, key)
		m.revision++
		m.gone[key] = m.revision
		out.Version = m.revision
		return out
	}
	switch c.Kind {
	case command.Put, command.Delete:
		if c.Flags&command.ReturnPrevious != 0 {
			show()
		}
		if c.Flags&command.IfAbsent != 0 && there || c.Flags&command.IfPresent != 0 && !there ||
			c.Flags&command.IfVersion != 0 && old.version != c.Version {
			out.Status, out.Version = command.ConditionFailed, old.version
			return out
		}
	}
	switch c.Kind {
	case command.Put:
		if c.Flags&^(command.SetTTL|command.SetExpireAt) != 0 {
			unindex()
		}
		if c.Flags&command.SetExpireAt != 0 {
			if c.TTLMillis <= m.stamp {
				unindex()
				return remove()
			}
			out.Version = m.set(key, string(c.Value), c.TTLMillis)
			return out
		}
		var expireAt uint64
		if c.Flags&command.KeepTTL != 0 {
			expireAt = old.expireAt
		}
		if c.Flags&command.SetTTL != 0 {
			expireAt = m.stamp + c.TTLMillis
		}
		out.Version = m.set(key, string(c.Value), expireAt)
	case command.Delete:
		if !there {
			out.Status = command.NotFound
			return out
		}
		unindex()
		return remove()
	case command.Append, command.SetRange:
		value := old.value
		if c.Kind == command.Append {
			value += string(c.Value)
		} else if len(c.Value) > 0 {
			end := int(c.Offset) + len(c.Value)
			b := make([]byte, max(len(value), end))
			copy(b, value)
			copy(b[c.Offset:], c.Value)
			value = string(b)
		}
		out.Integer = int64(len(value))
		if c.Kind == command.SetRange && len(c.Value) == 0 {
			out.Version = old.version
			return out
		}
		unindex()
		out.Version = m.set(key, value, old.expireAt)
	case command.IncrFloat:
		value := "0"
		if there {
			value = old.value
		}
		sum, status := command.AddFloat(nil, []byte(value), c.Value)
		if status != command.OK {
			out.Status, out.Version = status, old.version
			return out
		}
		unindex()
		out.Version = m.set(key, string(sum), old.expireAt)
		old, there = m.visible(key)
		show()
	case command.SetExpiry:
		if !there {
			out.Status = command.NotFound
			return out
		}
		if c.Flags&command.ExpiryReturnRow != 0 {
			show()
		}
		out.Version = old.version
		expireAt, holds := m.newExpiry(c, old)
		switch {
		case !holds:
			out.Status = command.ConditionFailed
			return out
		case expireAt == 0 && old.expireAt == 0:
			return out
		case expireAt != 0 && expireAt <= m.stamp:
			unindex()
			return remove()
		}
		unindex()
		out.Version = m.set(key, old.value, expireAt)
	case command.Expiry:
		if !there {
			out.Status = command.NotFound
			return out
		}
		out.Version, out.Integer = old.version, int64(old.expireAt)
	case command.Rename:
		return m.rename(c)
	case command.Incr:
		n := int64(0)
		if there {
			var err error
			n, err = strconv.ParseInt(old.value, 10, 64)
			if err != nil || strconv.FormatInt(n, 10) != old.value {
				out.Status, out.Version = command.NotInteger, old.version
				return out
			}
		}
		unindex()
		out.Integer = n + c.Delta
		out.Version = m.set(key, strconv.FormatInt(out.Integer, 10), old.expireAt)
	case command.Expire, command.Persist:
		if !there {
			out.Status = command.NotFound
			return out
		}
		if c.Kind == command.Persist && old.expireAt == 0 {
			out.Version = old.version
			return out
		}
		unindex()
		var expireAt uint64
		if c.Kind == command.Expire {
			expireAt = m.stamp + c.TTLMillis
		}
		out.Version = m.set(key, old.value, expireAt)
	case command.Get, command.Exists:
		if !there {
			out.Status = command.NotFound
			return out
		}
		out.Version = old.version
		show()
		if c.Kind == command.Exists {
			out.Value = nil
		}
	case command.GetRange:
		if !there {
			out.Status = command.NotFound
			return out
		}
		show()
		out.Version, out.Integer, out.Value = old.version, int64(len(old.value)), command.Cut([]byte(old.value), c.Delta, c.Until)
	case command.Watch:
		if !m.watched {
			m.watched, m.since = true, m.revision
			clear(m.gone)
		}
		out.Version, out.Integer = old.version, int64(m.revision)
	case command.DeleteRange:
		m.revision++
		m.deleteRange(key, string(c.Value))
		out.Version = m.revision
	case command.Batch:
		for _, op := range c.Ops {
			out.Results = append(out.Results, m.do(op))
		}
	case command.Txn:
		out.Succeeded = true
		for _, x := range c.Compares {
			out.Succeeded = out.Succeeded && m.holds(x)
		}
		ops := c.Ops
		if !out.Succeeded {
			ops = c.Else
		}
		for _, op := range ops {
			out.Results = append(out.Results, m.do(op))
		}
	case command.Sweep:
		out.Integer = m.sweep(int(c.Limit), c.TTLMillis)
	}
	return out
}

func (m *model) deleteRange(from, to string) {
	for key := range m.rows {
		if key >= from && (to == "" || key < to) {
			delete(m.rows, key)
		}
	}
	if from == "" && to == "" {
		clear(m.index)
	}
	if m.watched && (to == "" || from < to) {
		m.since = m.revision - 1
		clear(m.gone)
	}
}

// newExpiry is when the row shall expire, 0 for never, and whether the
// conditions hold.
func (m *model) newExpiry(c command.Command, old modelRow) (at uint64, holds bool) {
	before, after := float64(old.expireAt), math.Inf(1)
	if old.expireAt == 0 {
		before = math.Inf(1)
	}
	switch {
	case c.Flags&command.ExpiryRemove != 0:
	case c.Flags&command.ExpiryAt != 0:
		at, after = max(c.TTLMillis, 1), float64(c.TTLMillis)
	default:
		at = m.stamp + c.TTLMillis
		after = float64(at)
	}
	for flag, ok := range map[command.Flags]bool{
		command.ExpiryIfNone: old.expireAt == 0, command.ExpiryIfSome: old.expireAt != 0,
		command.ExpiryIfLater: after > before, command.ExpiryIfEarlier: after < before,
	} {
		if c.Flags&flag != 0 && !ok {
			return 0, false
		}
	}
	return at, true
}

func (m *model) rename(c command.Command) (out command.Result) {
	out.Kind = c.Kind
	from, there := m.visible(string(c.Key))
	if !there {
		out.Status = command.NotFound
		return out
	}
	to, taken := m.visible(string(c.Value))
	if c.Flags&command.RenameIfAbsent != 0 && taken {
		out.Status, out.Version = command.ConditionFailed, to.version
		return out
	}
	if string(c.Key) == string(c.Value) {
		out.Version = from.version
		return out
	}
	if c.Flags&command.RenameKeepSource == 0 {
		delete(m.rows, string(c.Key))
		m.gone[string(c.Key)] = m.revision
		delete(m.index, expiryEntry{from.expireAt, string(c.Key)})
	}
	if r, ok := m.rows[string(c.Value)]; ok {
		delete(m.index, expiryEntry{r.expireAt, string(c.Value)})
	}
	out.Version = m.set(string(c.Value), from.value, from.expireAt)
	return out
}

func (m *model) holds(x command.Compare) bool {
	row, there := m.visible(string(x.Key))
	if x.Target == command.OnAbsence {
		holds := m.watched && x.Version >= m.since && m.rows[string(x.Key)].version <= x.Version && m.gone[string(x.Key)] <= x.Version
		return (holds && !there) == (x.Relation == command.Equal)
	}
	order := cmp.Compare(row.version, x.Version)
	if x.Target == command.OnValue {
		if !there {
			return false
		}
		order = cmp.Compare(row.value, string(x.Value))
	}
	return [...]bool{false, order == 0, order != 0, order < 0, order > 0}[x.Relation]
}

func (m *model) sweep(limit int, retention uint64) (removed int64) {
	var due []expiryEntry
	for e := range m.index {
		if e.at <= m.stamp {
			due = append(due, e)
		}
	}
	slices.SortFunc(due, func(a, b expiryEntry) int { return cmp.Or(cmp.Compare(a.at, b.at), cmp.Compare(a.key, b.key)) })
	for _, e := range due[:min(limit, len(due))] {
		delete(m.index, e)
		if r, ok := m.rows[e.key]; ok && r.expireAt == e.at {
			delete(m.rows, e.key)
			m.gone[e.key] = m.revision
			removed++
		}
	}
	ids := make([]uint64, 0, len(m.sessions))
	for id, s := range m.sessions {
		if s.lastUse+retention <= m.stamp {
			ids = append(ids, id)
		}
	}
	slices.SortFunc(ids, func(a, b uint64) int {
		return cmp.Or(cmp.Compare(m.sessions[a].lastUse, m.sessions[b].lastUse), cmp.Compare(a, b))
	})
	records := 0
	for _, id := range ids {
		if records >= limit {
			break
		}
		records += len(m.sessions[id].results)
		delete(m.sessions, id)
	}
	return removed
}

// scan is what readers see.
func (m *model) scan() (rows []scanned) {
	for key := range m.rows {
		r, there := m.visible(key)
		if !there {
			continue
		}
		ttl := r.expireAt
		if ttl != 0 {
			ttl -= m.stamp
		}
		rows = append(rows, scanned{key, read{r.value, r.version, ttl, true}})
	}
	slices.SortFunc(rows, func(a, b scanned) int { return cmp.Compare(a.Key, b.Key) })
	return rows
}

// Generators. Few keys, short times and few sessions, so that commands meet.

var (
	genKey   = rapid.Custom(func(t *rapid.T) []byte { return fmt.Appendf(nil, "key%02d", rapid.IntRange(0, 15).Draw(t, "key")) })
	genValue = rapid.Custom(func(t *rapid.T) []byte {
		switch rapid.IntRange(0, 5).Draw(t, "class") {
		case 0:
			return nil
		case 1, 2:
			return strconv.AppendInt(nil, int64(rapid.IntRange(-5, 1000).Draw(t, "n")), 10)
		case 3:
			return bytes.Repeat([]byte{'v'}, rapid.IntRange(500, 1500).Draw(t, "size"))
		case 4:
			return bytes.Repeat([]byte{'L'}, rapid.SampledFrom([]int{30_000, 33_000}).Draw(t, "size"))
		}
		return []byte(rapid.StringN(1, 20, -1).Draw(t, "value"))
	})
	genTTL   = rapid.Uint64Range(1, 200)
	genTime  = rapid.Uint64Range(0, 8000) // before and after the stamps of drawEntries
	genShort = rapid.Custom(func(t *rapid.T) []byte {
		return bytes.Repeat([]byte{rapid.Byte().Draw(t, "byte")}, rapid.SampledFrom([]int{0, 1, 5, 100}).Draw(t, "size"))
	})
	// extending kinds make a row out of the one there is.
	extending = []command.Kind{command.Append, command.SetRange, command.IncrFloat, command.SetExpiry, command.Rename}
)

func genOp(kinds ...command.Kind) *rapid.Generator[command.Command] {
	return rapid.Custom(func(t *rapid.T) command.Command {
		c := command.Command{Kind: rapid.SampledFrom(kinds).Draw(t, "kind")}
		switch c.Kind {
		case command.Batch:
			c.Ops = genOps().Draw(t, "ops")
			return c
		case command.Txn:
			c.Compares = rapid.SliceOfN(genCompare, 0, 3).Draw(t, "compares")
			c.Flags = rapid.SampledFrom([]command.Flags{0, command.Whole}).Draw(t, "flags")
			c.Ops, c.Else = genOps().Draw(t, "then"), genOps().Draw(t, "else")
			return c
		case command.Sweep:
			c.Limit = rapid.SampledFrom([]uint32{1, 3, 1000}).Draw(t, "limit")
			c.TTLMillis = modelRetention
			return c
		case command.DeleteRange:
			if rapid.IntRange(0, 3).Draw(t, "bounded below") != 0 {
				c.Key = genKey.Draw(t, "from")
			}
			if rapid.IntRange(0, 3).Draw(t, "bounded above") != 0 {
				c.Value = genKey.Draw(t, "to")
			}
			return c
		}
		c.Key = genKey.Draw(t, "key")
		switch c.Kind {
		case command.Put:
			c.Value = genValue.Draw(t, "value")
			c.Flags = command.Flags(rapid.SampledFrom([]int{0, 0, 0, 1, 1, 2, 4, 8, 16, 32, 33, 36, 49, 34, 37, 64, 68, 96}).Draw(t, "flags"))
		case command.Delete:
			c.Flags = command.Flags(rapid.SampledFrom([]int{0, 0, 16, 32, 48}).Draw(t, "flags"))
		case command.Incr:
			c.Delta = int64(rapid.IntRange(-3, 3).Draw(t, "delta"))
		case command.GetRange:
			c.Delta, c.Until = rapid.Int64Range(-50, 50).Draw(t, "start"), rapid.Int64Range(-50, 50).Draw(t, "end")
		case command.Append:
			c.Value = genShort.Draw(t, "value")
		case command.SetRange:
			c.Offset, c.Value = rapid.Uint32Range(0, 100).Draw(t, "offset"), genShort.Draw(t, "value")
		case command.IncrFloat:
			c.Value = []byte(rapid.SampledFrom([]string{"0.5", "-1.25", "3", "1e400", "inf", "x"}).Draw(t, "increment"))
		case command.SetExpiry:
			c.Flags = command.Flags(rapid.Byte().Draw(t, "flags")) &^ 0x80
		case command.Rename:
			c.Flags = command.Flags(rapid.IntRange(0, 3).Draw(t, "flags"))
			c.Value = genKey.Draw(t, "destination")
		}
		switch {
		case c.Kind == command.SetExpiry && c.Flags&command.ExpiryAt != 0, c.Kind == command.Put && c.Flags&command.SetExpireAt != 0:
			c.TTLMillis = genTime.Draw(t, "time")
		case c.Kind == command.Expire, c.Kind == command.SetExpiry, c.Kind == command.Put && c.Flags&command.SetTTL != 0:
			c.TTLMillis = genTTL.Draw(t, "ttl")
		}
		if (c.Kind == command.Put || c.Kind == command.Delete) && c.Flags&command.IfVersion != 0 {
			c.Version = rapid.Uint64Range(0, 40).Draw(t, "version")
		}
		return c
	})
}

func genOps() *rapid.Generator[[]command.Command] {
	kinds := []command.Kind{command.Put, command.Put, command.Delete, command.Incr, command.Expire, command.Persist, command.Get, command.Exists, command.Expiry, command.Watch, command.GetRange}
	return rapid.SliceOfN(genOp(append(kinds, extending...)...), 0, 5)
}

var (
	genCompare = rapid.Custom(func(t *rapid.T) command.Compare {
		target := command.Target(rapid.IntRange(1, 3).Draw(t, "target"))
		relations := 4
		if target == command.OnAbsence {
			relations = 2
		}
		return command.Compare{
			Target:   target,
			Relation: command.Relation(rapid.IntRange(1, relations).Draw(t, "relation")),
			Key:      genKey.Draw(t, "key"),
			Version:  rapid.Uint64Range(0, 40).Draw(t, "version"),
			Value:    genValue.Draw(t, "value"),
		}
	})
	genCommand = rapid.Custom(func(t *rapid.T) command.Command {
		kinds := []command.Kind{command.Put, command.Put, command.Put, command.Delete, command.Incr, command.Expire, command.Persist,
			command.Batch, command.Txn, command.Sweep, command.DeleteRange}
		c := genOp(append(kinds, extending...)...).Draw(t, "command")
		if c.Kind != command.Sweep && rapid.IntRange(0, 2).Draw(t, "in session") == 0 {
			c.Session.ID = rapid.Uint64Range(1, 3).Draw(t, "session")
			c.Session.Sequence = rapid.Uint64Range(1, 30).Draw(t, "sequence")
			c.Session.Acknowledged = rapid.Uint64Range(0, 20).Draw(t, "acknowledged")
		}
		return c
	})
)

// drawEntries draws the log of two shards, interleaved.
func drawEntries(t *rapid.T) (entries []Entry) {
	retry := retries{}
	indexes, stamps := [2]uint64{}, [2]uint64{1000, 2000}
	for range rapid.IntRange(1, 60).Draw(t, "entries") {
		shard := rapid.IntRange(0, 1).Draw(t, "shard")
		indexes[shard] += rapid.Uint64Range(1, 2).Draw(t, "index step")
		stamps[shard] += rapid.SampledFrom([]uint64{0, 1, 10, 60, 400}).Draw(t, "time step")
		e := Entry{Shard: shard, Index: indexes[shard]}
		if rapid.IntRange(0, 9).Draw(t, "empty") != 0 {
			stamp := stamps[shard] - rapid.SampledFrom([]uint64{0, 0, 0, 5}).Draw(t, "stamp back")
			e.Data = entryOf(stamp, retry.some(t, rapid.SliceOfN(genCommand, 0, 6).Draw(t, "commands"))...)
		}
		entries = append(entries, e)
	}
	return entries
}

// retries remembers what was asked for under each session and sequence.
type retries map[[2]uint64]command.Command

// some makes repetitions of what uses a number again, with a few exceptions.
func (r retries) some(t *rapid.T, commands []command.Command) []command.Command {
	for i := range commands {
		c := &commands[i]
		id := [2]uint64{c.Session.ID, c.Session.Sequence}
		if first, again := r[id]; c.Session.ID != 0 && again && rapid.IntRange(0, 3).Draw(t, "repeat") != 0 {
			first.Session = c.Session
			*c = first
		}
		r[id] = *c
	}
	return commands
}

// replayModels returns the models of both shards after entries up to the given
// indexes, and the results of all of them.
func replayModels(t rapid.TB, entries []Entry, upTo [2]uint64) (models [2]*model, out []command.Result) {
	models = [2]*model{newModel(), newModel()}
	for _, e := range entries {
		if e.Index <= upTo[e.Shard] {
			out = append(out, models[e.Shard].apply(t, e)...)
		}
	}
	return models, out
}

// sameAsModels compares everything that can be asked.
func sameAsModels(t *rapid.T, s *Store, models [2]*model) {
	for shard, m := range models {
		if s.Applied(shard) != m.applied || s.LastStamp(shard) != m.stamp {
			t.Fatalf("shard %d: applied %d at %d, the model %d at %d", shard, s.Applied(shard), s.LastStamp(shard), m.applied, m.stamp)
		}
		want := m.scan()
		diff(t, "scan", scan(t, s, ScanOptions{Shards: []int{shard}, NowMillis: m.stamp}), want)
		byKey := map[string]read{}
		for _, r := range want {
			byKey[r.Key] = r.Row
		}
		for i := range 16 {
			key := fmt.Sprintf("key%02d", i)
			diff(t, key, get(t, s, shard, key, m.stamp), byKey[key])
		}
		next := uint64(never)
		for e := range m.index {
			next = min(next, e.at)
		}
		// A lower bound, and exact in that a Sweep is not due for nothing for ever.
		if at, ok := s.NextExpiry(shard); ok && at > next || !ok && next != never {
			t.Fatalf("shard %d: next expiry %d %v, the model's %d", shard, at, ok, next)
		}
		var sessions []uint64
		for id, x := range s.shards[shard].sessions.byID {
			mx := m.sessions[id]
			if mx == nil || mx.floor != x.floor || mx.lastUse != x.lastUse || len(mx.results) != len(x.records) {
				t.Fatalf("shard %d: session %d is %+v, in the model %+v", shard, id, x, mx)
			}
			sessions = append(sessions, id)
		}
		if len(sessions) != len(m.sessions) {
			t.Fatalf("shard %d: sessions %v, the model %d", shard, sessions, len(m.sessions))
		}
	}
}

// applyInPasses applies in passes of random size, and calls between after each.
func applyInPasses(t *rapid.T, s *Store, entries []Entry, passMax int, between func()) []command.Result {
	var d delivered
	for len(entries) > 0 {
		n := rapid.IntRange(1, min(passMax, len(entries))).Draw(t, "pass")
		if err := s.Apply(entries[:n], &d); err != nil {
			t.Fatal(err)
		}
		entries = entries[n:]
		between()
	}
	return d.results
}

// disturber rotates, drains and flushes at random moments, holds flushes back,
// and lets one crash happen.
type disturber struct {
	s    *Store
	fs   *vfs.MemFS
	gate *gate
	held bool

	crashed *vfs.MemFS // what the crash left, nil: none yet
	durable [2]uint64  // before the crash
	applied [2]uint64
}

func disturb(s *Store, fs *vfs.MemFS) *disturber { return &disturber{s: s, fs: fs, gate: newGate(s)} }

func (d *disturber) do(t *rapid.T) {
	switch rapid.IntRange(0, 9).Draw(t, "disturbance") {
	case 0:
		d.release()
		if err := d.s.Flush(); err != nil {
			t.Fatal(err)
		}
		for i := range d.s.shards {
			if d.s.Durable(i) != d.s.Applied(i) {
				t.Fatalf("shard %d: durable %d after a flush, applied %d", i, d.s.Durable(i), d.s.Applied(i))
			}
		}
	case 1:
		d.release()
		if err := d.s.flushAll(); err != nil {
			t.Fatal(err)
		}
	case 2:
		rotateTable(d.s)
	case 3:
		if err := d.s.FlushAsync(); err != nil {
			t.Fatal(err)
		}
	case 4, 5:
		if !d.held {
			d.gate.Lock()
			d.held = true
		}
		rotateTable(d.s)
	case 6:
		d.release()
	case 7:
		scan(t, d.s, ScanOptions{Shards: []int{1, 0}}) // leaves sorted runs
	case 8:
		if d.crashed == nil && rapid.IntRange(0, 3).Draw(t, "crash now") == 0 {
			d.crash(t)
		}
	}
	// Whatever the next pass needs must fit, or it would wait for ever.
	const passBytesMax = 3 << 20
	if d.s.publishing.Lock(); !d.s.memtables.mutable.Fits(passBytesMax) {
		d.s.publishing.Unlock()
		d.release()
	} else {
		d.s.publishing.Unlock()
	}
}

func (d *disturber) release() {
	if d.held {
		d.gate.Unlock()
		d.held = false
	}
}

// crash keeps what would be left if the machine stopped now.
func (d *disturber) crash(t *rapid.T) {
	d.durable = [2]uint64{d.s.Durable(0), d.s.Durable(1)}
	seed := rapid.Uint64().Draw(t, "crash")
	d.crashed = d.fs.CrashClone(vfs.CrashCloneCfg{
		UnsyncedDataPercent: rapid.SampledFrom([]int{0, 50, 100}).Draw(t, "survives"),
		RNG:                 rand.New(rand.NewPCG(seed, 1)),
	})
	d.applied = [2]uint64{d.s.Applied(0), d.s.Applied(1)}
}

// The store does what the model does, however entries are grouped and whenever
// tables are frozen, flushed and flushed; after a crash it is the model at the
// indexes it finds, which are not below the durable ones; replaying the rest
// makes it whole again.
func TestModel(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		entries := drawEntries(t)
		all := [2]uint64{never, never}
		models, want := replayModels(t, entries, all)

		fs := vfs.NewCrashableMem()
		o := testOptions(fs)
		o.MemtableBytes = rapid.SampledFrom([]int64{1 << 10, 16 << 10, 16 << 20}).Draw(t, "recent bytes")
		a := open(t, o)
		b := open(t, withoutRowCache())
		a.flusher.fileBytes = rapid.SampledFrom([]int{1, 2000, flushFileBytes}).Draw(t, "bytes of a file")
		a.flusher.cutBytes = rapid.SampledFrom([]int{1, flushCutBytes}).Draw(t, "bytes to cut from")
		upset := disturb(a, fs)
		diff(t, "results", applyInPasses(t, a, entries, 8, func() { upset.do(t) }), want)
		diff(t, "results in other passes", applyInPasses(t, b, entries, len(entries), func() {}), want)
		sameAsModels(t, a, models)
		sameAsModels(t, b, models)
		if upset.crashed == nil {
			upset.crash(t)
		}
		upset.release()
		sums := checksums(t, a)
		diff(t, "checksums", checksums(t, b), sums)
		closeStore(t, a)
		closeStore(t, b)

		crashed := upset.crashed
		c := open(t, testOptions(crashed))
		found := [2]uint64{c.Applied(0), c.Applied(1)}
		for i := range found {
			if found[i] < upset.durable[i] || found[i] > upset.applied[i] {
				t.Fatalf("shard %d: found %d after the crash, %d was durable, %d applied", i, found[i], upset.durable[i], upset.applied[i])
			}
		}
		at, _ := replayModels(t, entries, found)
		sameAsModels(t, c, at)
		var rest []Entry
		for _, e := range entries {
			if e.Index > found[e.Shard] {
				rest = append(rest, e)
			}
		}
		again := disturb(c, crashed)
		again.crashed = crashed // one is enough
		applyInPasses(t, c, rest, 8, func() { again.do(t) })
		again.release()
		sameAsModels(t, c, models)
		diff(t, "checksums after replay", checksums(t, c), sums)
		closeStore(t, c)

		applied, err := Verify(Options{FS: crashed, Dir: "data", Shards: 2}, func(s string) { t.Error(s) })
		if err != nil || applied[0] != models[0].applied || applied[1] != models[1].applied {
			t.Fatalf("verify: applied %d, error %v", applied, err)
		}
	})
}
