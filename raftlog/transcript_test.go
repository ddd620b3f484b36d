package raftlog

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/cockroachdb/datadriven"
	"github.com/cockroachdb/pebble/v2/vfs"
	"go.etcd.io/raft/v3/raftpb"
)

// TestTranscripts runs testdata/transcripts. Its commands:
//
//	open [begun] [cut]                         opens, or opens again
//	append g=N first=N [n=N] [term=N] [data=S]
//	hardstate g=N term=N vote=N commit=N
//	start g=N index=N term=N [voters=(N,...)]
//	conf g=N voters=(N,...)
//	metadata g=N data=S
//	restart g=N index=N term=N
//	remove g=N
//	truncate g=N index=N
//	save [nosync]
//	groups                                     shows all groups
//	runs                                       shows the runs in the files, and leftovers
//	crash [keep]                               loses what was not synced, or keeps all of it, without closing
//	record                                     records how far the log is synced
//	wipe seg=N block=N [rest]                  overwrites a block with zeros, or all from there; between crash and open
//	delete file=NAME                           between crash and open
//	flip seg=N at=N                            turns over a bit; between crash and open
//	verify
//	close
//
// What goes into a write, and save, take w=N for another write than the first.
func TestTranscripts(t *testing.T) {
	datadriven.Walk(t, "testdata/transcripts", func(t *testing.T, path string) {
		tr := &transcript{t: t, fs: vfs.NewCrashableMem()}
		defer tr.drop()
		datadriven.RunTest(t, path, tr.run)
	})
}

type transcript struct {
	t  *testing.T
	fs *vfs.MemFS
	l  *Log
	ws map[uint64]*Write
}

func (tr *transcript) write(n uint64) *Write {
	if tr.ws[n] == nil {
		tr.ws[n] = tr.l.NewWrite()
	}
	return tr.ws[n]
}

func (tr *transcript) drop() {
	if tr.l != nil {
		mustClose(tr.t, tr.l)
		tr.l = nil
	}
}

func (tr *transcript) options() Options {
	o := testOptions(tr.fs)
	o.SegmentBytes = 6 * BlockBytes
	return o
}

func (tr *transcript) run(t *testing.T, d *datadriven.TestData) string {
	number := func(name string, or uint64) uint64 {
		d.MaybeScanArgs(t, name, &or)
		return or
	}
	var voters []uint64
	d.MaybeScanArgs(t, "voters", &voters)
	switch d.Cmd {
	case "open":
		return tr.open(d.HasArg("begun"), d.HasArg("cut"))
	case "record":
		if err := tr.l.RecordSynced(); err != nil {
			return err.Error()
		}
		return ""
	case "delete":
		name := ""
		d.ScanArgs(t, "file", &name)
		if err := tr.fs.Remove(testDir + "/" + name); err != nil {
			return err.Error()
		}
		return ""
	case "crash":
		keep := 0
		if d.HasArg("keep") {
			keep = 100
		}
		clone := tr.fs.CrashClone(vfs.CrashCloneCfg{UnsyncedDataPercent: keep, RNG: rand.New(rand.NewPCG(0, 0))})
		tr.drop()
		tr.fs = clone
		return ""
	case "wipe":
		return tr.damage(number("seg", 0), func(p []byte) {
			p = p[number("block", 0)*BlockBytes:]
			if !d.HasArg("rest") {
				p = p[:BlockBytes]
			}
			clear(p)
		})
	case "flip":
		return tr.damage(number("seg", 0), func(p []byte) { p[number("at", 0)] ^= 1 })
	case "runs":
		return tr.runs()
	case "verify":
		return tr.verify()
	case "close":
		tr.drop()
		return ""
	case "groups":
		return tr.groups()
	case "save":
		if err := tr.l.Save(tr.write(number("w", 1)), !d.HasArg("nosync")); err != nil {
			return err.Error()
		}
		awaitDead(tr.l)
		return fmt.Sprintf("%d bytes live", tr.l.SizeBytes())
	}
	g, w := tr.l.Group(number("g", 0)), tr.write(number("w", 1))
	switch d.Cmd {
	case "append":
		data := ""
		d.MaybeScanArgs(t, "data", &data)
		w.Append(g, raftpb.HardState{}, entries(number("first", 0), int(number("n", 1)), number("term", 1), data))
	case "hardstate":
		w.Append(g, raftpb.HardState{Term: number("term", 0), Vote: number("vote", 0), Commit: number("commit", 0)}, nil)
	case "start":
		var cs *raftpb.ConfState
		if voters != nil {
			cs = confState(voters...)
		}
		w.SetStart(g, number("index", 0), number("term", 0), cs)
	case "conf":
		w.SetConfState(g, confState(voters...))
	case "metadata":
		data := ""
		d.ScanArgs(t, "data", &data)
		w.SetMetadata(g, []byte(data))
	case "restart":
		w.Restart(g, number("index", 0), number("term", 0))
	case "remove":
		w.Remove(g)
	case "truncate":
		tr.l.Truncate(g, number("index", 0))
	default:
		d.Fatalf(t, "unknown command %s", d.Cmd)
	}
	return ""
}

func (tr *transcript) open(begun, cut bool) string {
	tr.drop()
	o := tr.options()
	o.Begun, o.CutDamage = begun, cut
	l, rec, err := Open(o)
	if err != nil {
		return explain(err)
	}
	l.Prepare()
	awaitDead(l)
	tr.l, tr.ws = l, make(map[uint64]*Write)
	return fmt.Sprintf("%d groups, %d entries, %d segments, %d bytes, %d torn", rec.Groups, rec.Entries, rec.Segments, rec.Bytes, rec.TornBytes)
}

var timeOfDay = regexp.MustCompile(`\d{4}-\d\d-\d\dT[0-9:.]*Z`)

// explain is the error with what is lost, and without the time.
func explain(err error) string {
	text := timeOfDay.ReplaceAllString(err.Error(), "TIME")
	var damage *CorruptionError
	if errors.As(err, &damage) {
		for _, s := range damage.Lost {
			text += fmt.Sprintf("\n  lost of group %d: %d to %d", s.Group, s.First, s.Last)
		}
	}
	return text
}

func (tr *transcript) damage(seq uint64, f func([]byte)) string {
	p := segmentFile(tr.t, tr.fs, seq)
	f(p)
	file, err := tr.fs.OpenReadWrite(testDir+"/"+segmentName(seq), writeCategory)
	if err != nil {
		tr.t.Fatal(err)
	}
	defer file.Close()
	if _, err := file.WriteAt(p, 0); err != nil {
		tr.t.Fatal(err)
	}
	if err := file.Sync(); err != nil {
		tr.t.Fatal(err)
	}
	return ""
}

func (tr *transcript) verify() string {
	var lines []string
	if err := Verify(testOptions(tr.fs), func(s string) { lines = append(lines, timeOfDay.ReplaceAllString(s, "TIME")) }); err == nil {
		lines = append(lines, "ok")
	}
	return strings.Join(lines, "\n")
}

func (tr *transcript) groups() string {
	var b strings.Builder
	for _, id := range tr.l.Groups() {
		g := tr.l.Group(id)
		s := groupStateOf(tr.t, g)
		last, _ := g.LastIndex()
		fmt.Fprintf(&b, "group %d: starts after %d/%d, ends at %d, hard state %v, no configuration/voters %s", id, s.start.index, s.start.term, last, s.hs, s.conf)
		if s.meta != "" {
			fmt.Fprintf(&b, ", metadata %s", s.meta)
		}
		b.WriteByte('\n')
		if s.terms == "" {
			continue
		}
		es, _ := g.Entries(s.start.index+1, last+1, 1<<40)
		for _, e := range es {
			fmt.Fprintf(&b, "  %d/%d %s\n", e.Index, e.Term, e.Data)
		}
	}
	return b.String()
}

// runs lists what stands in the files, in good order or not.
func (tr *transcript) runs() string {
	names, err := tr.fs.List(testDir)
	if err != nil {
		tr.t.Fatal(err)
	}
	slices.Sort(names)
	var b strings.Builder
	for _, name := range names {
		if name == syncedName {
			r, err := readSynced(tr.fs, testDir)
			if err != nil {
				fmt.Fprintln(&b, err)
				continue
			}
			fmt.Fprintf(&b, "%s: run %d%s, closed %v, ends %v\n", name, r.run, r.place(), r.closed, r.groups)
			continue
		}
		seq, ok := parseSegmentName(name)
		if !ok {
			fmt.Fprintln(&b, name)
			continue
		}
		s, err := openSegment(tr.fs, testDir, seq, false)
		if err != nil {
			fmt.Fprintln(&b, err)
			continue
		}
		fmt.Fprintln(&b, name)
		r := blockReader{seg: s}
		for pos := int64(BlockBytes); pos < s.bytes; pos += BlockBytes {
			h, payload, err := r.run(pos)
			if claimed, _ := r.claims(pos); err != nil || (claimed && payload == nil) {
				fmt.Fprintf(&b, "  block %d: damaged run %d, %v\n", pos/BlockBytes, h.run, err)
			}
			if payload == nil {
				continue
			}
			fmt.Fprintf(&b, "  block %d: run %d, durable %d, flags %d:", pos/BlockBytes, h.run, h.durable, h.flags)
			rs, err := decodeAll(payload)
			for _, rec := range rs {
				fmt.Fprintf(&b, " %s", describe(rec))
			}
			if err != nil {
				fmt.Fprintf(&b, " %v", err)
			}
			b.WriteByte('\n')
		}
		if err := s.close(); err != nil {
			tr.t.Fatal(err)
		}
	}
	return b.String()
}

func describe(r record) string {
	switch r.kind {
	case kindEntries:
		return fmt.Sprintf("entry(%d: %d/%d)", r.group, r.mark.index, r.mark.term)
	case kindHardState:
		return fmt.Sprintf("hardstate(%d: %v)", r.group, r.hs)
	case kindStart:
		return fmt.Sprintf("start(%d: %d/%d reset=%v)", r.group, r.mark.index, r.mark.term, r.reset)
	case kindConfState:
		return fmt.Sprintf("conf(%d: %x)", r.group, r.data)
	case kindTruncate:
		return fmt.Sprintf("truncate(%d: %d/%d)", r.group, r.mark.index, r.mark.term)
	case kindRemove:
		return fmt.Sprintf("remove(%d)", r.group)
	case kindMetadata:
		return fmt.Sprintf("metadata(%d: %s)", r.group, r.data)
	}
	return fmt.Sprintf("checkpoint(%d: %d/%d to %d %v %x)", r.group, r.mark.index, r.mark.term, r.last, r.hs, r.data)
}
