package bench

import (
	"fmt"
	"math"
	"strings"
)

// Kind is the kind of an operation, as a report distinguishes them.
type Kind uint8

// The kinds.
const (
	KindPing   Kind = iota // a round trip that touches no row
	KindRead               // GET of a row that is there
	KindUpdate             // PUT over a row that is there
	KindInsert             // PUT of a new row
	KindScan               // SCAN from a row on
	KindModify             // GET of a row, then PUT over it; the latency is of both together
	KindIncr               // INCR of a counter by one
	KindBatch              // BATCH of several PUTs
	kindEnd
)

var kindNames = [kindEnd]string{"ping", "read", "update", "insert", "scan", "read-modify-write", "incr", "batch"}

// String returns the name that stands in reports.
func (k Kind) String() string {
	if k >= kindEnd {
		return "unknown"
	}
	return kindNames[k]
}

// writes reports whether an operation of the kind can have an effect.
func (k Kind) writes() bool {
	return k != KindPing && k != KindRead && k != KindScan
}

// Workload says what is asked for. Get one from FindWorkload and change what is
// to be different.
type Workload struct {
	Name  string
	About string // one line for people

	// Shares are the parts of the operations, by Kind. They add up to 1.
	Shares [kindEnd]float64

	// Choice is how rows are chosen.
	Choice Choice

	// Prefix begins every key. Hashed keys have the hash of the row's number
	// behind it, others the number itself, so that those sort by number.
	Prefix string
	Hashed bool

	// KeyBytes and ValueBytes are the sizes of keys and values, and ScanRows
	// how many rows a scan asks for. BatchRows is the number of PUTs in a
	// BATCH. The zero value of KeyBytes makes keys as short as can be.
	KeyBytes, ValueBytes, ScanRows Sizes
	BatchRows                      int
}

// Bounds of a Workload.
const (
	BatchRowsMax = 1000
	ScanRowsMax  = 10_000
	keyBytesMax  = 8 << 10

	plainValueBytes = 128
	ycsbValueBytes  = 1000 // ten fields of 100 bytes
)

func plain(name, about string, kind Kind) Workload {
	w := Workload{
		Name: name, About: about, Prefix: plainRows,
		ValueBytes: FixedSize(plainValueBytes), ScanRows: FixedSize(100), BatchRows: 10,
	}
	w.Shares[kind] = 1
	return w
}

func ycsb(letter byte, about string, choice Choice, a Kind, share float64, b Kind) Workload {
	w := Workload{
		Name: "ycsb-" + string(letter), About: about, Choice: choice, Prefix: ycsbRows, Hashed: true,
		ValueBytes: FixedSize(ycsbValueBytes), ScanRows: Sizes{[]sizePart{{share: 1, low: 1, high: 100}}}, BatchRows: 10,
	}
	w.Shares[a] = share
	w.Shares[b] += 1 - share
	return w
}

// Workloads returns all workloads. Those of YCSB are the core workloads of
// Cooper, Silberstein, Tam, Ramakrishnan and Sears, "Benchmarking cloud serving
// systems with YCSB", SoCC 2010.
func Workloads() []Workload {
	incr := plain("incr", "add 1 to counters", KindIncr)
	incr.Prefix = counterRows
	return []Workload{
		plain("get", "read rows", KindRead),
		plain("put", "overwrite rows", KindUpdate),
		plain("mixed", "read and write rows", KindRead).WithReads(0.5),
		plain("scan", "read rows in order", KindScan),
		incr,
		plain("batch", "write several rows in one request", KindBatch),
		plain("ping", "round trips that touch no row", KindPing),
		ycsb('a', "50 % reads, 50 % updates, zipfian", Zipfian, KindRead, 0.5, KindUpdate),
		ycsb('b', "95 % reads, 5 % updates, zipfian", Zipfian, KindRead, 0.95, KindUpdate),
		ycsb('c', "reads, zipfian", Zipfian, KindRead, 1, KindRead),
		ycsb('d', "95 % reads of the latest rows, 5 % inserts", Latest, KindRead, 0.95, KindInsert),
		ycsb('e', "95 % scans of 1 to 100 rows, 5 % inserts, zipfian", Zipfian, KindScan, 0.95, KindInsert),
		ycsb('f', "50 % reads, 50 % read-modify-writes, zipfian", Zipfian, KindRead, 0.5, KindModify),
	}
}

// FindWorkload returns the workload of a name. The error lists the names.
func FindWorkload(name string) (Workload, error) {
	var names []string
	for _, w := range Workloads() {
		if w.Name == strings.ToLower(name) {
			return w, nil
		}
		names = append(names, w.Name)
	}
	return Workload{}, fmt.Errorf("%w: there is no workload %q; choose one of %s", ErrConfig, name, strings.Join(names, " "))
}

// WithReads returns w with the given share of reads, 0..1, and updates for the
// rest.
func (w Workload) WithReads(share float64) Workload {
	w.Shares = [kindEnd]float64{}
	w.Shares[KindRead], w.Shares[KindUpdate] = share, 1-share
	return w
}

// has reports whether the workload has operations of a kind.
// TouchesRows reports whether it does more than round trips.
func (w *Workload) TouchesRows() bool { return w.Shares[KindPing] < 1 }

func (w *Workload) has(k Kind) bool { return w.Shares[k] > 0 }

// Writes reports whether the workload changes rows.
func (w *Workload) Writes() bool {
	for k := range kindEnd {
		if w.has(k) && k.writes() {
			return true
		}
	}
	return false
}

// KeyBytesMin returns the length of the shortest keys that distinguish all rows.
func (w *Workload) KeyBytesMin() int {
	if w.Hashed {
		return len(w.Prefix) + hashDigits
	}
	return len(w.Prefix) + numberDigits
}

// check returns what is wrong with the workload.
func (w *Workload) check() error {
	sum := 0.0
	for _, s := range w.Shares {
		if !(s >= 0) {
			return fmt.Errorf("%w: a share of %g", ErrConfig, s)
		}
		sum += s
	}
	least := w.KeyBytesMin()
	switch {
	case math.Abs(sum-1) > 1e-6:
		return fmt.Errorf("%w: the shares of the operations add up to %g, not to 1", ErrConfig, sum)
	case w.Choice >= choiceEnd:
		return fmt.Errorf("%w: choice %d", ErrConfig, w.Choice)
	case len(w.KeyBytes.parts) > 0 && (w.KeyBytes.Min() < least || w.KeyBytes.Max() > keyBytesMax):
		return fmt.Errorf("%w: keys of %v bytes: %d to %d are allowed", ErrConfig, w.KeyBytes, least, keyBytesMax)
	case w.ValueBytes.Max() > ValueBytesMax:
		return fmt.Errorf("%w: values of %v bytes; at most %d are allowed", ErrConfig, w.ValueBytes, ValueBytesMax)
	case w.has(KindScan) && (w.ScanRows.Min() < 1 || w.ScanRows.Max() > ScanRowsMax):
		return fmt.Errorf("%w: scans of %v rows; 1 to %d are allowed", ErrConfig, w.ScanRows, ScanRowsMax)
	case w.has(KindBatch) && (w.BatchRows < 1 || w.BatchRows > BatchRowsMax):
		return fmt.Errorf("%w: batches of %d rows; 1 to %d are allowed", ErrConfig, w.BatchRows, BatchRowsMax)
	case w.has(KindBatch) && w.BatchRows*(w.ValueBytes.Max()+max(w.KeyBytes.Max(), least)) > batchBytesMax:
		return fmt.Errorf("%w: a batch of %d rows of %v bytes does not fit in a request; at most %d bytes do", ErrConfig, w.BatchRows, w.ValueBytes, batchBytesMax)
	}
	return nil
}

// batchBytesMax bounds keys and values of a batch, well below a frame.
const batchBytesMax = 8 << 20
