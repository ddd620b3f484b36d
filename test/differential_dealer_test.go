package test

import (
	"encoding/binary"
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"strconv"
	"time"

	"github.com/proa-kv/proa/protocol"
)

const differentialShards = 4

const (
	rowsOfShard = 8

	// sessionsDealt is how many sessions the writes are dealt to.
	sessionsDealt = 3

	// resultsKept is how many of a session's newest writes are not acknowledged.
	resultsKept = 12

	// relativeTTL is the time to live of rows that expire relative to the time of day. None
	// expires while a test runs.
	relativeTTL = 1000 * 24 * time.Hour

	// farMillis is a time of expiry in the year 2200. Others are some hours later.
	farMillis = 7_258_118_400_000
)

// operation is a request of the protocol.
type operation struct {
	what      string // names it in messages, the same for all engines
	code      protocol.Opcode
	key       string // of its reply's version, if it has one
	body      []byte
	then, els []operation // BATCH, TXN
}

// tags are hash tags of keys, one for each shard.
var tags = func() (tags [differentialShards]string) {
	for i, left := 0, differentialShards; left > 0; i++ {
		tag := fmt.Sprintf("{%d}", i)
		if shard := shardOf(tag); tags[shard] == "" {
			tags[shard] = tag
			left--
		}
	}
	return tags
}()

func shardOf(key string) int {
	return int(protocol.Slot([]byte(key))) * differentialShards / protocol.Slots
}

// key returns a key of a shard. What is stored under it depends on its class:
//
//	row    small values: all that a write's reply or a transaction shows, so that a session
//	       keeps the whole reply
//	count  integers, or near to it
//	float  numbers
//	text   values that grow
//	large  values of up to 1 MiB
func key(shard int, class string, n int) string { return fmt.Sprintf("%s%s/%d", tags[shard], class, n) }

// dealer deals operations. What it deals depends on its seed and on the replies.
type dealer struct {
	rng    *rand.Rand
	across bool // deal atomic operations across shards as well: all engines refuse them

	kinds   deck[func() []*exchange]
	singles deck[func(shard int) operation]

	sessions [sessionsDealt]uint64 // id
	last     [sessionsDealt]uint64 // sequence
	written  []*exchange           // in a session

	versions  map[string]uint64          // of a key, as last told; another may be there by now
	revisions [differentialShards]uint64 // the newest that was told
	watched   [differentialShards]uint64 // by WATCH

	cursor []byte // of the last page, empty if there is none
	page   protocol.Scan
}

func newDealer(seed uint64) *dealer {
	d := &dealer{rng: rand.New(rand.NewPCG(seed, 0)), versions: map[string]uint64{}}
	for i := range d.sessions {
		d.sessions[i] = d.rng.Uint64() | 1
	}
	d.kinds = deck[func() []*exchange]{rng: d.rng, all: []func() []*exchange{
		d.single, d.single, d.single, d.single, d.burst, d.burst, d.burst, d.burst, d.burst, d.burst, d.burst, d.burst,
		d.batch, d.batch, d.txn, d.txn, d.txn, d.txn, d.spread, d.spread,
		d.rows, d.scan, d.scan, d.scan, d.sessionRead, d.deleteRange, d.deleteRange,
		d.repeat, d.repeat, d.repeatOld, d.reuse, d.large, d.large, d.atomicAcross, d.tooLarge,
	}}
	d.singles = deck[func(int) operation]{rng: d.rng, all: []func(int) operation{
		d.put, d.put, d.put, d.put, d.putCount, d.delete, d.delete, d.incr, d.incr, d.incrFloat, d.append, d.setRange,
		d.expire, d.persist, d.setExpiry, d.setExpiry, d.rename, d.rename,
		d.get, d.exists, d.expiry, d.getRange, d.watch,
	}}
	return d
}

// deal returns requests that may be carried out in any order.
func (d *dealer) deal() []*exchange { return d.kinds.next()() }

func (d *dealer) shard() int { return d.rng.IntN(differentialShards) }

func (d *dealer) row(shard int) string { return key(shard, "row", d.rng.IntN(rowsOfShard)) }

// word draws a small value.
func (d *dealer) word() []byte {
	b := fmt.Appendf(nil, "%x", d.rng.Uint64())
	return b[:d.rng.IntN(len(b)+1)]
}

// bytes draws a large value.
func (d *dealer) bytes(size int) []byte {
	b := make([]byte, size)
	for i := 0; i < size; i += 8 {
		copy(b[i:], strconv.AppendUint(nil, d.rng.Uint64()|1<<63, 36))
	}
	return b
}

// version draws an operand for a condition: mostly the key's version, 0 where it is absent.
func (d *dealer) version(key string) uint64 { return d.versions[key] + uint64(d.rng.IntN(5)/4) }

// exchange makes a request of an operation, with a session if it is a write.
func (d *dealer) exchange(shard int, o operation) *exchange {
	r := &exchange{operation: o, shard: shard}
	switch o.code {
	case protocol.OpGet, protocol.OpExists, protocol.OpExpiry, protocol.OpMGet, protocol.OpScan, protocol.OpWatch, protocol.OpGetRange:
		return r
	}
	s := d.rng.IntN(sessionsDealt)
	d.last[s]++
	r.ext.Session, r.ext.Sequence = d.sessions[s], d.last[s]
	r.ext.Acknowledged = max(d.last[s], resultsKept) - resultsKept
	d.written = append(d.written, r)
	return r
}

func (d *dealer) single() []*exchange {
	shard := d.shard()
	return []*exchange{d.exchange(shard, d.singles.next()(shard))}
}

// burst deals requests that are in flight at the same time.
func (d *dealer) burst() []*exchange {
	var out []*exchange
	for _, shard := range d.rng.Perm(differentialShards)[:2+d.rng.IntN(differentialShards-1)] {
		out = append(out, d.exchange(shard, d.singles.next()(shard)))
	}
	return out
}

func (d *dealer) several(shard func() int) (out []operation) {
	for range 1 + d.rng.IntN(6) {
		out = append(out, d.singles.next()(shard()))
	}
	return out
}

func (d *dealer) batch() []*exchange {
	shard := d.shard()
	return []*exchange{d.exchange(shard, batchOf(0, d.several(func() int { return shard })))}
}

// spread deals a batch over shards.
func (d *dealer) spread() []*exchange {
	return []*exchange{d.exchange(-1, batchOf(protocol.BatchNonAtomic, d.several(d.shard)))}
}

// atomicAcross deals what all engines refuse. It is not repeated: if that comes too late,
// an engine that carries such batches out, while a node is alone, does not know any more
// that it has refused this one (SESSION_EXPIRED), and one that never does refuses it again.
func (d *dealer) atomicAcross() []*exchange {
	if !d.across {
		return d.single()
	}
	shard := d.shard()
	ops := []operation{d.put(shard), d.put((shard + 1) % differentialShards)}
	return []*exchange{d.unrepeated(d.exchange(-1, batchOf(0, ops)))}
}

// unrepeated takes the newest write out of those that are repeated.
func (d *dealer) unrepeated(r *exchange) *exchange {
	d.written = d.written[:len(d.written)-1]
	return r
}

func batchOf(flags uint8, ops []operation) operation {
	m := protocol.Batch{Flags: flags, Ops: encoded(ops)}
	return operation{what: fmt.Sprintf("BATCH with flags %d of %s", flags, names(ops)), code: protocol.OpBatch, body: m.AppendTo(nil), then: ops}
}

func encoded(ops []operation) (out protocol.Ops) {
	for _, o := range ops {
		out = append(out, protocol.Op{Code: o.code, Body: o.body})
	}
	return out
}

func names(ops []operation) (s string) {
	for _, o := range ops {
		s += "\n      " + o.what
	}
	return s
}

func (d *dealer) txn() []*exchange {
	shard := d.shard()
	var m protocol.Txn
	what := "TXN if"
	for range d.rng.IntN(3) {
		c := d.compare(shard)
		m.Compares = append(m.Compares, c)
		what += fmt.Sprintf(" [%s target %d relation %d version %d value %q]", c.Key, c.Target, c.Relation, c.Version, c.Value)
	}
	here := func() int { return shard }
	o := operation{code: protocol.OpTxn, then: d.several(here), els: d.several(here)}
	m.Then, m.Else = encoded(o.then), encoded(o.els)
	o.what = fmt.Sprintf("%s then %s\n      else %s", what, names(o.then), names(o.els))
	o.body = m.AppendTo(nil)
	return []*exchange{d.exchange(shard, o)}
}

func (d *dealer) compare(shard int) protocol.Compare {
	k := d.row(shard)
	c := protocol.Compare{Key: []byte(k), Relation: protocol.CompareRelation(1 + d.rng.IntN(4))}
	switch d.rng.IntN(3) {
	case 0:
		c.Target, c.Version = protocol.CompareVersion, d.version(k)
	case 1:
		c.Target, c.Value = protocol.CompareValue, d.word()
	default:
		c.Target, c.Version = protocol.CompareAbsent, d.watched[shard]
		c.Relation = protocol.CompareRelation(1 + d.rng.IntN(2))
	}
	return c
}

func (d *dealer) rows() []*exchange {
	var keys [][]byte
	for range 1 + d.rng.IntN(8) {
		keys = append(keys, []byte(d.row(d.shard())))
	}
	return []*exchange{d.rowsOf(keys)}
}

// allRows deals a read of all rows there may be.
func (d *dealer) allRows() *exchange {
	var keys [][]byte
	for shard := range differentialShards {
		for n := range rowsOfShard {
			keys = append(keys, []byte(key(shard, "row", n)))
		}
	}
	return d.rowsOf(keys)
}

func (d *dealer) rowsOf(keys [][]byte) *exchange {
	m := protocol.MGet{Keys: keys}
	return d.exchange(-1, operation{what: fmt.Sprintf("MGET %s", keys), code: protocol.OpMGet, body: m.AppendTo(nil)})
}

// scan deals the page after the last one, or the first one of another range.
func (d *dealer) scan() []*exchange {
	if len(d.cursor) == 0 {
		d.page = protocol.Scan{Flags: protocol.ScanFlags(d.rng.IntN(4)), BytesMax: protocol.ScanBytesMax}
		if start := []byte(tags[d.shard()][:1+d.rng.IntN(3)]); d.rng.IntN(2) == 0 {
			d.page.Flags |= protocol.ScanPrefix
			d.page.Start = start
		} else if d.rng.IntN(2) == 0 {
			d.page.Start = start
		}
	}
	d.page.Cursor, d.page.CountMax = d.cursor, 1+uint32(d.rng.IntN(20))
	what := fmt.Sprintf("SCAN from %q with flags %d, %d rows, first page %v", d.page.Start, d.page.Flags, d.page.CountMax, len(d.cursor) == 0)
	return []*exchange{d.exchange(-1, operation{what: what, code: protocol.OpScan, body: d.page.AppendTo(nil)})}
}

// sessionRead deals a read that may be answered by a replica that is as far as the shard's
// newest version. (What a stale read shows is up to the replica.)
func (d *dealer) sessionRead() []*exchange {
	shard := d.shard()
	r := d.exchange(shard, d.get(shard))
	r.what += fmt.Sprintf(" not before version %d", d.revisions[shard])
	r.ext.Consistency, r.ext.Token = protocol.SessionReads, d.revisions[shard]
	return []*exchange{r}
}

// deleteRange deals a DELETE_RANGE. It concerns all shards, and most of them have nothing in
// the range.
func (d *dealer) deleteRange() []*exchange {
	m := protocol.DeleteRange{Start: []byte(d.row(d.shard()))}
	switch d.rng.IntN(4) {
	case 0:
		m.Flags = protocol.DeleteRangePrefix
		m.Start = m.Start[:len(m.Start)-1]
	case 1:
		m.End = []byte(d.row(d.shard()))
	default:
		m.End = slices.Concat(m.Start, []byte{'~'})
	}
	what := fmt.Sprintf("DELETE_RANGE from %q to %q with flags %d", m.Start, m.End, m.Flags)
	return []*exchange{d.exchange(-1, operation{what: what, code: protocol.OpDeleteRange, body: m.AppendTo(nil)})}
}

// kept returns the writes whose results are kept.
func (d *dealer) kept() (out []*exchange) {
	for _, r := range d.written {
		if s := slices.Index(d.sessions[:], r.ext.Session); r.ext.Sequence+resultsKept > d.last[s] {
			out = append(out, r)
		}
	}
	return out
}

// repeat deals a write again, whose reply must be the same.
func (d *dealer) repeat() []*exchange {
	kept := d.kept()
	if len(kept) == 0 {
		return d.single()
	}
	return []*exchange{repeated(kept[d.rng.IntN(len(kept))])}
}

func repeated(r *exchange) *exchange {
	return &exchange{operation: r.operation, shard: r.shard, ext: r.ext, rendered: r.rendered}
}

// repeatOld deals any write again. Its result may not be kept any more.
func (d *dealer) repeatOld() []*exchange {
	if len(d.written) == 0 {
		return d.single()
	}
	r := repeated(d.written[d.rng.IntN(len(d.written))])
	r.what, r.rendered = "maybe too late: "+r.what, ""
	return []*exchange{r}
}

// reuse deals a write whose number was used for another.
func (d *dealer) reuse() []*exchange {
	kept := slices.DeleteFunc(d.kept(), func(r *exchange) bool { return r.shard < 0 })
	if len(kept) == 0 {
		return d.single()
	}
	of := kept[d.rng.IntN(len(kept))]
	r := &exchange{operation: d.put(of.shard), shard: of.shard, ext: of.ext}
	r.what += " with the number of " + of.what
	return []*exchange{r}
}

// large deals a write or read of a large value.
func (d *dealer) large() []*exchange {
	shard := d.shard()
	k := key(shard, "large", d.rng.IntN(2))
	switch d.rng.IntN(4) {
	case 0:
		return []*exchange{d.exchange(shard, get(k))}
	case 1:
		m := protocol.Append{Key: []byte(k), Value: d.bytes(d.rng.IntN(64 << 10))}
		return []*exchange{d.exchange(shard, operation{what: fmt.Sprintf("APPEND %s %d bytes", k, len(m.Value)), code: protocol.OpAppend, key: k, body: m.AppendTo(nil)})}
	}
	return []*exchange{d.putLarge(shard, k, d.rng.IntN(1<<20))}
}

func (d *dealer) putLarge(shard int, k string, size int) *exchange {
	m := protocol.Put{Flags: protocol.WriteReturnPrevious, Key: []byte(k), Value: d.bytes(size)}
	r := d.exchange(shard, operation{what: fmt.Sprintf("PUT %s %d bytes", k, size), code: protocol.OpPut, key: k, body: m.AppendTo(nil)})
	r.recorded = true
	return r
}

// bulk deals much to write. It is not repeated, so that it need not be kept in memory.
func (d *dealer) bulk(shard int) *exchange {
	return d.unrepeated(d.putLarge(shard, key(shard, "large", 0), 3<<20))
}

// tooLarge deals a write that would make a value longer than any may be.
func (d *dealer) tooLarge() []*exchange {
	shard := d.shard()
	return []*exchange{d.exchange(shard, setRange(key(shard, "text", 0), protocol.ValueBytesMax, []byte("x")))}
}

// The operations on one key, which a BATCH or TXN may have as well.

func (d *dealer) put(shard int) operation {
	m := protocol.Put{Value: d.word()}
	k := d.row(shard)
	m.Key = []byte(k)
	switch d.rng.IntN(6) {
	case 0:
		m.Flags |= protocol.WriteIfAbsent
	case 1:
		m.Flags |= protocol.WriteIfPresent
	case 2, 3:
		m.Flags |= protocol.WriteIfVersion
		m.Version = d.version(k)
	}
	switch d.rng.IntN(8) {
	case 0:
		m.Flags |= protocol.WriteKeepTTL
	case 1:
		m.Flags |= protocol.WriteTTL
		m.TTLMillis = uint64(relativeTTL / time.Millisecond)
	case 2:
		m.Flags |= protocol.WriteExpireAt
		m.TTLMillis = d.time()
	}
	if d.rng.IntN(3) == 0 {
		m.Flags |= protocol.WriteReturnPrevious
	}
	what := fmt.Sprintf("PUT %s %q with flags %d, version %d, time %d", k, m.Value, m.Flags, m.Version, m.TTLMillis)
	return operation{what: what, code: protocol.OpPut, key: k, body: m.AppendTo(nil)}
}

// time draws a time of expiry: far away, or long gone.
func (d *dealer) time() uint64 {
	if d.rng.IntN(4) == 0 {
		return 1
	}
	return farMillis + 3_600_000*uint64(d.rng.IntN(4))
}

// putCount stores something that is an integer, large, or not quite one.
func (d *dealer) putCount(shard int) operation {
	k := d.count(shard)
	m := protocol.Put{Key: []byte(k), Value: []byte([]string{"7", strconv.Itoa(math.MaxInt64 - 50), strconv.Itoa(math.MinInt64), "07", ""}[d.rng.IntN(5)])}
	return operation{what: fmt.Sprintf("PUT %s %q", k, m.Value), code: protocol.OpPut, key: k, body: m.AppendTo(nil)}
}

func (d *dealer) count(shard int) string { return key(shard, "count", d.rng.IntN(3)) }

func (d *dealer) delete(shard int) operation {
	k := d.row(shard)
	m := protocol.Delete{Key: []byte(k)}
	switch d.rng.IntN(4) {
	case 0:
		m.Flags = protocol.WriteIfVersion
		m.Version = d.version(k)
	case 1:
		m.Flags = protocol.WriteReturnPrevious
	case 2:
		k = key(shard, "text", d.rng.IntN(3))
		m.Key = []byte(k)
	}
	return operation{what: fmt.Sprintf("DELETE %s with flags %d, version %d", k, m.Flags, m.Version), code: protocol.OpDelete, key: k, body: m.AppendTo(nil)}
}

func (d *dealer) incr(shard int) operation {
	k := d.count(shard)
	m := protocol.Incr{Delta: d.rng.Int64N(100) - 40, Key: []byte(k)}
	return operation{what: fmt.Sprintf("INCR %s by %d", k, m.Delta), code: protocol.OpIncr, key: k, body: m.AppendTo(nil)}
}

func (d *dealer) incrFloat(shard int) operation {
	k := key(shard, "float", d.rng.IntN(2))
	m := protocol.IncrFloat{Key: []byte(k), Increment: []byte([]string{"0.1", "-3e3", "1e-12", "12345.678", "x"}[d.rng.IntN(5)])}
	return operation{what: fmt.Sprintf("INCRFLOAT %s by %s", k, m.Increment), code: protocol.OpIncrFloat, key: k, body: m.AppendTo(nil)}
}

func (d *dealer) append(shard int) operation {
	k := key(shard, "text", d.rng.IntN(3))
	m := protocol.Append{Key: []byte(k), Value: d.word()}
	return operation{what: fmt.Sprintf("APPEND %s %q", k, m.Value), code: protocol.OpAppend, key: k, body: m.AppendTo(nil)}
}

func (d *dealer) setRange(shard int) operation {
	return setRange(key(shard, "text", d.rng.IntN(3)), d.rng.IntN(300), d.word())
}

func setRange(k string, offset int, part []byte) operation {
	m := protocol.SetRange{Offset: uint32(offset), Key: []byte(k), Value: part}
	return operation{what: fmt.Sprintf("SETRANGE %s at %d %q", k, offset, part), code: protocol.OpSetRange, key: k, body: m.AppendTo(nil)}
}

func (d *dealer) expire(shard int) operation {
	k := d.row(shard)
	m := protocol.Expire{TTLMillis: uint64(relativeTTL / time.Millisecond), Key: []byte(k)}
	return operation{what: "EXPIRE " + k, code: protocol.OpExpire, key: k, body: m.AppendTo(nil)}
}

func (d *dealer) persist(shard int) operation { return ofKey(protocol.OpPersist, d.row(shard)) }

func (d *dealer) setExpiry(shard int) operation {
	k := d.row(shard)
	m := protocol.SetExpiry{Key: []byte(k), Flags: []protocol.ExpiryFlags{
		0, protocol.ExpiryIfNone, protocol.ExpiryIfSome, protocol.ExpiryIfLater, protocol.ExpiryIfEarlier, protocol.ExpiryIfSome | protocol.ExpiryIfLater,
	}[d.rng.IntN(6)]}
	if d.rng.IntN(3) == 0 {
		m.Flags |= protocol.ExpiryReturnRow
	}
	if d.rng.IntN(4) == 0 {
		m.Flags |= protocol.ExpiryRemove
	} else {
		m.Flags |= protocol.ExpiryAt
		m.Millis = d.time()
	}
	return operation{what: fmt.Sprintf("SETEXPIRY %s with flags %d, time %d", k, m.Flags, m.Millis), code: protocol.OpSetExpiry, key: k, body: m.AppendTo(nil)}
}

func (d *dealer) rename(shard int) operation {
	from, to := d.row(shard), d.row(shard)
	m := protocol.Rename{Flags: protocol.RenameFlags(d.rng.IntN(4)), Source: []byte(from), Destination: []byte(to)}
	return operation{what: fmt.Sprintf("RENAME %s to %s with flags %d", from, to, m.Flags), code: protocol.OpRename, key: to, body: m.AppendTo(nil)}
}

func (d *dealer) get(shard int) operation    { return get(d.row(shard)) }
func (d *dealer) exists(shard int) operation { return ofKey(protocol.OpExists, d.row(shard)) }
func (d *dealer) expiry(shard int) operation { return expiry(d.row(shard)) }
func (d *dealer) watch(shard int) operation  { return watch(d.row(shard)) }

func (d *dealer) getRange(shard int) operation {
	k := d.row(shard)
	m := protocol.GetRange{Start: d.rng.Int64N(20) - 10, End: d.rng.Int64N(20) - 10, Key: []byte(k)}
	return operation{what: fmt.Sprintf("GETRANGE %s %d to %d", k, m.Start, m.End), code: protocol.OpGetRange, key: k, body: m.AppendTo(nil)}
}

func get(k string) operation    { return ofKey(protocol.OpGet, k) }
func expiry(k string) operation { return ofKey(protocol.OpExpiry, k) }
func watch(k string) operation  { return ofKey(protocol.OpWatch, k) }

// ofKey is an operation that has nothing but a key.
func ofKey(code protocol.Opcode, k string) operation {
	return operation{what: code.String() + " " + k, code: code, key: k, body: []byte(k)}
}

// learn notes the versions that a reply tells.
func (d *dealer) learn(r *exchange) {
	switch r.code {
	case protocol.OpScan:
		var m protocol.ScanReply
		if m.Decode(r.reply) == nil && !r.ext.HasShard {
			d.cursor = slices.Clone(m.Cursor)
		}
	case protocol.OpDeleteRange:
		var m protocol.BatchReply
		if m.Decode(r.reply) == nil {
			for shard, part := range m.Results {
				d.learnVersion(operation{key: tags[shard]}, part.Status, part.Body)
			}
		}
	case protocol.OpBatch:
		var m protocol.BatchReply
		if m.Decode(r.reply) == nil {
			d.learnVersions(r.then, m.Results)
		}
	case protocol.OpTxn:
		var m protocol.TxnReply
		if m.Decode(r.reply) == nil && m.Succeeded {
			d.learnVersions(r.then, m.Results)
		} else {
			d.learnVersions(r.els, m.Results)
		}
	default:
		d.learnVersion(r.operation, r.status, r.reply)
	}
}

func (d *dealer) learnVersions(ops []operation, results protocol.OpResults) {
	for i := range min(len(ops), len(results)) {
		d.learnVersion(ops[i], results[i].Status, results[i].Body)
	}
}

// learnVersion notes the version with which each reply about a key begins.
func (d *dealer) learnVersion(o operation, s protocol.Status, body []byte) {
	if o.key == "" || !s.CarriesResult() || len(body) < 8 {
		return
	}
	shard, version := shardOf(o.key), binary.LittleEndian.Uint64(body)
	d.revisions[shard] = max(d.revisions[shard], version)
	d.versions[o.key] = version
	if o.code == protocol.OpDelete {
		d.versions[o.key] = 0
	}
	var m protocol.WatchReply
	if o.code == protocol.OpWatch && m.Decode(body) == nil {
		d.watched[shard] = m.Revision
	}
}
