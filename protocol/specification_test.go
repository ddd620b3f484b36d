package protocol

import (
	"os"
	"regexp"
	"strconv"
	"strings"
	"testing"
)

// readSpecification returns docs/protocol.md, which must say what the code does.
func readSpecification(t *testing.T) string {
	t.Helper()
	b, err := os.ReadFile("../docs/protocol.md")
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// table returns the rows of the table whose head begins with head.
func table(t *testing.T, doc, head string) (rows [][]string) {
	t.Helper()
	_, after, found := strings.Cut(doc, "\n"+head)
	if !found {
		t.Fatalf("docs/protocol.md has no table %q", head)
	}
	for i, line := range strings.Split(after, "\n") {
		switch {
		case i < 2: // what is left of the head, and the rule
		case !strings.HasPrefix(line, "|"):
			return rows
		default:
			cells := strings.Split(strings.Trim(line, "|"), "|")
			for j := range cells {
				cells[j] = strings.TrimSpace(cells[j])
			}
			rows = append(rows, cells)
		}
	}
	return rows
}

func TestSpecificationStatuses(t *testing.T) {
	var want [][]string
	for s := Status(0); s < statusEnd; s++ {
		retry := "no"
		if s.Retry() {
			retry = "yes"
		}
		want = append(want, []string{strconv.Itoa(int(s)), s.String(), s.Outcome().String(), retry, s.Text()})
	}
	if d := diff(want, table(t, readSpecification(t), "| Code | Name | Outcome |")); d != "" {
		t.Error(d)
	}
}

func TestSpecificationOpcodes(t *testing.T) {
	rows := table(t, readSpecification(t), "| Opcode | Name |")
	if len(rows) != int(opcodeEnd)-1 {
		t.Errorf("%d opcodes, want %d", len(rows), opcodeEnd-1)
	}
	for i, r := range rows {
		if o := Opcode(i + 1); r[0] != strconv.Itoa(int(o)) || r[1] != o.String() {
			t.Errorf("%v, want %d %v", r, o, o)
		}
	}
}

func TestSpecificationLimits(t *testing.T) {
	limits := map[string]uint64{
		"FrameBytesMax": FrameBytesMax, "HeaderBytes": HeaderBytes, "ExtensionBytesMax": ExtensionBytesMax,
		"KeyBytesMin": KeyBytesMin, "KeyBytesMax": KeyBytesMax, "ValueBytesMax": ValueBytesMax, "OpsMax": OpsMax,
		"ScanCountMax": ScanCountMax, "ScanBytesMax": ScanBytesMax, "ScanCountDefault": ScanCountDefault,
		"ScanBytesDefault": ScanBytesDefault, "ChunkBytes": ChunkBytes, "CursorBytesMax": CursorBytesMax,
		"TTLMillisMax": TTLMillisMax, "NameBytesMax": NameBytesMax, "AddressBytesMax": AddressBytesMax,
		"MessageBytesMax": MessageBytesMax, "ExpireAtMillisMax": ExpireAtMillisMax, "IncrementBytesMax": IncrementBytesMax, "FloatBytesMax": FloatBytesMax,
		"VerbBytesMax": VerbBytesMax, "AdminBytesMax": AdminBytesMax, "Slots": Slots,
	}
	units := map[string]uint64{"": 1, "B": 1, "ms": 1, "KiB": 1 << 10, "MiB": 1 << 20}
	for _, r := range table(t, readSpecification(t), "| Limit | Value |") {
		name := strings.Trim(r[2], "`")
		number, unit, _ := strings.Cut(r[1], " ")
		n, err := strconv.ParseUint(strings.ReplaceAll(number, ",", ""), 10, 64)
		if err != nil || units[unit] == 0 || n*units[unit] != limits[name] {
			t.Errorf("%s is given as %q, it is %d", name, r[1], limits[name])
		}
		delete(limits, name)
	}
	for name := range limits {
		t.Errorf("%s is not in the table", name)
	}
}

// checkNumbers compares the first column of a table with numbers, by the name
// in the second.
func checkNumbers(t *testing.T, doc, head string, numbers map[string]uint64) {
	t.Helper()
	rows := table(t, doc, head)
	if len(rows) != len(numbers) {
		t.Errorf("%s: %d rows, want %d", head, len(rows), len(numbers))
	}
	for _, r := range rows {
		n, err := strconv.ParseUint(r[0], 0, 64)
		want, known := numbers[r[1]]
		if err != nil || !known || n != want {
			t.Errorf("%s: %s is given as %s, it is %#x", head, r[1], r[0], want)
		}
	}
}

func TestSpecificationNumbers(t *testing.T) {
	doc := readSpecification(t)
	checkNumbers(t, doc, "| Flag | Name |", map[string]uint64{
		"REPLY": uint64(FlagReply), "EXTENSIONS": uint64(FlagExtensions), "MORE": uint64(FlagMore),
	})
	checkNumbers(t, doc, "| Type | Name | In |", map[string]uint64{
		"DEADLINE": extDeadline, "SESSION": extSession, "CONSISTENCY": extConsistency, "TRACE": extTrace,
		"EPOCH": extEpoch, "LEADER": extLeader, "AGE": extAge, "SHARD": extShard,
	})
	checkNumbers(t, doc, "| Option | Name |", map[string]uint64{
		"TTL": uint64(WriteTTL), "KEEP_TTL": uint64(WriteKeepTTL), "IF_ABSENT": uint64(WriteIfAbsent),
		"IF_PRESENT": uint64(WriteIfPresent), "IF_VERSION": uint64(WriteIfVersion), "RETURN_PREVIOUS": uint64(WriteReturnPrevious),
		"EXPIRE_AT": uint64(WriteExpireAt),
	})
	checkNumbers(t, doc, "| SETEXPIRY option | Name |", map[string]uint64{
		"AT": uint64(ExpiryAt), "REMOVE": uint64(ExpiryRemove), "IF_NONE": uint64(ExpiryIfNone), "IF_SOME": uint64(ExpiryIfSome),
		"IF_LATER": uint64(ExpiryIfLater), "IF_EARLIER": uint64(ExpiryIfEarlier), "RETURN_ROW": uint64(ExpiryReturnRow),
	})
	checkNumbers(t, doc, "| RENAME option | Name |", map[string]uint64{
		"KEEP_SOURCE": uint64(RenameKeepSource), "IF_ABSENT": uint64(RenameIfAbsent),
	})
	checkNumbers(t, doc, "| Mode | Name |", map[string]uint64{
		Linearizable.String(): uint64(Linearizable), SessionReads.String(): uint64(SessionReads), Stale.String(): uint64(Stale),
	})
	for _, r := range table(t, doc, "| Feature bit | Name |") {
		bit, err := strconv.Atoi(r[0])
		want := map[string]uint64{"SESSIONS": FeatureSessions, "CREDENTIALS": FeatureCredentials}[r[1]]
		if err != nil || uint64(1)<<bit != want {
			t.Errorf("feature %v, want %#x", r, want)
		}
	}
	for _, n := range []uint64{KeyBytesMax, KeyBytesMax + 1, OpsMax, TTLMillisMax, ScanCountMax, ScanCountDefault, CursorBytesMax} {
		if plain := strconv.FormatUint(n, 10); !strings.Contains(doc, plain) && !strings.Contains(doc, grouped(plain)) {
			t.Errorf("the text does not name %d", n)
		}
	}
}

// grouped puts a comma before each group of three digits.
func grouped(digits string) string {
	for i := len(digits) - 3; i > 0; i -= 3 {
		digits = digits[:i] + "," + digits[i:]
	}
	return digits
}

// TestSpecificationExample compares the vectors printed in the text with the
// files.
func TestSpecificationExample(t *testing.T) {
	blocks := regexp.MustCompile("(?s)```text ([a-z_]+)\n(.*?)```").FindAllStringSubmatch(readSpecification(t), -1)
	if len(blocks) < 6 {
		t.Fatalf("%d vectors in the text", len(blocks))
	}
	for _, b := range blocks {
		stored, err := os.ReadFile(goldenPath(b[1]))
		if err != nil {
			t.Error(err)
		} else if string(stored) != b[2] {
			t.Errorf("%s differs from its file", b[1])
		}
	}
}

// TestSpecificationLinks finds links to headings that are not there.
func TestSpecificationLinks(t *testing.T) {
	doc := readSpecification(t)
	anchors := map[string]bool{}
	for _, h := range regexp.MustCompile(`(?m)^#+ (.*)$`).FindAllStringSubmatch(doc, -1) {
		a := strings.ToLower(h[1])
		a = regexp.MustCompile(`[^a-z0-9 _-]`).ReplaceAllString(a, "")
		anchors[strings.ReplaceAll(a, " ", "-")] = true
	}
	for _, l := range regexp.MustCompile(`\]\(#([^)]*)\)`).FindAllStringSubmatch(doc, -1) {
		if !anchors[l[1]] {
			t.Errorf("no heading for #%s", l[1])
		}
	}
}
