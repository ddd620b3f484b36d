package lint

import (
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
)

const module = "github.com/proa-kv/proa"

// mayImport is the table of packages in the design: each package (a tree, by
// its top directory, unless a deeper one has its own line) and the packages of
// ours it may import. "*" stands for all of them.
//
// Test files are free of it: a test may drive its package through others.
var mayImport = map[string][]string{
	"bufpool":              {},
	"protocol":             {"bufpool"},
	"access":               {},
	"command":              {"access"},
	"storage":              {"storage/memtable", "command", "bufpool", "internal/prefetch"},
	"storage/memtable":     {"internal/prefetch"},
	"raftlog":              {},
	"raftgroup":            {"access", "raftgroup/dragonboat", "raftgroup/etcd", "raftgroup/engine", "raftgroup/datadir", "raftgroup/placement", "raftgroup/call", "command", "storage", "raftlog", "bufpool"},
	"raftgroup/dragonboat": {"raftgroup/dragonboat/environment", "raftgroup/dragonboat/logdb", "raftgroup/dragonboat/transport", "raftgroup/engine", "raftgroup/datadir", "raftgroup/placement", "command", "storage"},
	"raftgroup/etcd":       {"raftgroup/engine", "raftgroup/datadir", "raftgroup/placement", "command", "storage", "raftlog"},
	"raftgroup/engine":     {"raftgroup/placement", "command", "storage", "raftlog"},
	"raftgroup/datadir":    {"raftgroup/dragonboat/environment", "raftgroup/dragonboat/logdb", "raftgroup/dragonboat/transport", "raftgroup/placement", "raftgroup/call", "command", "storage", "raftlog"},
	"raftgroup/placement":  {"access", "command"},
	"raftgroup/call":       {"command"},
	"raftgroup/peer":       {"bufpool"},
	"server":               {"access", "server/resp", "protocol", "command", "bufpool"},
	"server/admin":         {"access", "server", "protocol", "command", "bufpool"},
	"server/resp":          {},
	"config":               {},
	"client":               {"protocol"},
	"bench":                {"client", "protocol"},                     // the generator writes its own frames
	"bench/rig":            {"bench", "client", "protocol", "command"}, // administers the clusters it starts
	"bench/lab":            {"bench", "bench/rig", "client", "protocol", "command"},
	"docs/examples":        {"client"},
	"cmd":                  {"*"},
	"internal":             {"*"},
	"test":                 {"*"},

	// what the second Raft engine is made of
	"raftgroup/dragonboat/environment": {},
	"raftgroup/dragonboat/logdb":       {"raftlog"},
	"raftgroup/dragonboat/transport":   {},
}

// owned are modules that belong to one package, or with /... to a tree of packages,
// behind its seam.
var owned = map[string]string{
	"github.com/cloudwego/netpoll": "server",
	"github.com/lni/dragonboat":    "raftgroup/dragonboat/...",
}

func TestImports(t *testing.T) {
	for _, f := range sources(t) {
		if f.isTest {
			continue
		}
		for _, spec := range f.syntax.Imports {
			imported, err := strconv.Unquote(spec.Path.Value)
			if err != nil {
				t.Fatal(err)
			}
			if problem := checkImport(f.dir, imported); problem != "" {
				t.Errorf("%s: %s", f.at(spec), problem)
			}
		}
	}
}

// checkImport returns what is wrong with importing a path in a directory of
// this module, or "".
func checkImport(dir, imported string) string {
	for module, owner := range owned {
		tree, isTree := strings.CutSuffix(owner, "/...")
		owns := dir == tree || isTree && strings.HasPrefix(dir, tree+"/")
		if !owns && (imported == module || strings.HasPrefix(imported, module+"/")) {
			return imported + " is for " + owner + " alone"
		}
	}
	ours, ok := strings.CutPrefix(imported, module+"/")
	if !ok {
		return ""
	}
	row, allowed, ok := tableRow(dir)
	if !ok {
		return fmt.Sprintf("directory %s is not in the table of packages", dir)
	}
	target, _, known := tableRow(ours)
	switch {
	case !known:
		return fmt.Sprintf("imports %s, which is not in the table of packages", ours)
	case target == row, slices.Contains(allowed, "*"), slices.Contains(allowed, target):
		return ""
	case strings.HasPrefix(ours, "internal/"):
		// Internal packages are support code. They may be used by any package
		// as long as they themselves import nothing of ours that it may not,
		// which TestInternalImports checks.
		return ""
	}
	return fmt.Sprintf("%s must not import %s; it may import %s", row, target, orNone(allowed))
}

// tableRow finds the longest row of the table that covers a directory.
func tableRow(dir string) (row string, allowed []string, ok bool) {
	for d := dir; d != "."; d = path.Dir(d) {
		if allowed, ok := mayImport[d]; ok {
			return d, allowed, true
		}
	}
	return "", nil, false
}

func orNone(names []string) string {
	if len(names) == 0 {
		return "none of ours"
	}
	return strings.Join(names, ", ")
}

// An internal package lends its imports to whoever imports it, so the table
// has to hold across it.
func TestInternalImports(t *testing.T) {
	direct := map[string][]string{} // directory → directories of ours it imports
	for _, f := range sources(t) {
		if f.isTest {
			continue
		}
		for _, spec := range f.syntax.Imports {
			imported, _ := strconv.Unquote(spec.Path.Value)
			if ours, ok := strings.CutPrefix(imported, module+"/"); ok && !slices.Contains(direct[f.dir], ours) {
				direct[f.dir] = append(direct[f.dir], ours)
			}
		}
	}
	var through func(from, via string, seen map[string]bool)
	through = func(from, via string, seen map[string]bool) {
		if seen[via] {
			return
		}
		seen[via] = true
		for _, ours := range direct[via] {
			if strings.HasPrefix(ours, "internal/") {
				through(from, ours, seen)
			} else if problem := checkImport(from, module+"/"+ours); problem != "" {
				t.Errorf("%s imports %s, which leads to: %s", from, via, problem)
			}
		}
	}
	for from := range direct {
		for _, ours := range direct[from] {
			if strings.HasPrefix(ours, "internal/") && !strings.HasPrefix(from, "internal/") {
				through(from, ours, map[string]bool{})
			}
		}
	}
}

// The rules themselves, so that a table that allows everything is noticed.
func TestCheckImport(t *testing.T) {
	for _, tt := range []struct {
		dir, imported string
		ok            bool
	}{
		{"server", module + "/protocol", true},
		{"server", module + "/raftgroup", false},
		{"server", module + "/storage", false},
		{"client", module + "/server", false},
		{"client/internal/x", module + "/client", true},
		{"bufpool", module + "/protocol", false},
		{"cmd/proa", module + "/raftgroup", true},
		{"protocol", module + "/nowhere", false},
		{"nowhere", module + "/protocol", false},
		{"server", "github.com/cloudwego/netpoll", true},
		{"raftgroup/peer", "github.com/cloudwego/netpoll", false},
		{"server/resp", "github.com/cloudwego/netpoll", false},
		{"raftgroup", "github.com/lni/dragonboat/v4", false},
		{"raftgroup/dragonboat/logdb", "github.com/lni/dragonboat/v4/raftio", true},
		{"raftgroup/dragonboat/logdb", module + "/raftlog", true},
		{"raftgroup/dragonboat/logdb", module + "/storage", false},
		{"server", "net", true},
	} {
		if got := checkImport(tt.dir, tt.imported); (got == "") != tt.ok {
			t.Errorf("checkImport(%q, %q) = %q", tt.dir, tt.imported, got)
		}
	}
}

// A test that sleeps is slow where the machine is fast and fails where it is
// slow.
func TestNoSleepInTests(t *testing.T) {
	for _, f := range sources(t) {
		if !f.isTest && !strings.HasPrefix(f.dir, "test") {
			continue
		}
		timePackage := localName(f.syntax, "time")
		ast.Inspect(f.syntax, func(n ast.Node) bool {
			if s, ok := n.(*ast.SelectorExpr); ok && s.Sel.Name == "Sleep" {
				if x, ok := s.X.(*ast.Ident); ok && x.Name == timePackage && !insideSynctest(f, n.Pos()) {
					t.Errorf("%s: time.Sleep in a test; wait for what is to happen", f.at(n))
				}
			}
			return true
		})
	}
}

// insideSynctest reports whether pos lies in a call of synctest.Test, where
// sleeping takes no time and orders events exactly.
func insideSynctest(f *source, pos token.Pos) bool {
	name := localName(f.syntax, "testing/synctest")
	if name == "" {
		return false
	}
	inside := false
	ast.Inspect(f.syntax, func(n ast.Node) bool {
		call, ok := n.(*ast.CallExpr)
		if !ok || pos < call.Pos() || pos >= call.End() {
			return true
		}
		if s, ok := call.Fun.(*ast.SelectorExpr); ok && s.Sel.Name == "Test" {
			if x, ok := s.X.(*ast.Ident); ok && x.Name == name {
				inside = true
			}
		}
		return !inside
	})
	return inside
}

// localName returns the name a file uses for an imported package, or "".
func localName(f *ast.File, imported string) string {
	for _, spec := range f.Imports {
		if p, _ := strconv.Unquote(spec.Path.Value); p == imported {
			if spec.Name != nil {
				return spec.Name.Name
			}
			return path.Base(p)
		}
	}
	return ""
}

func TestExportedNamesAreDocumented(t *testing.T) {
	packageDoc := map[string]bool{}
	for _, f := range sources(t) {
		if f.isTest {
			continue
		}
		packageDoc[f.dir] = packageDoc[f.dir] || f.syntax.Doc != nil
		if f.syntax.Name.Name == "main" || ast.IsGenerated(f.syntax) {
			continue
		}
		for _, d := range f.syntax.Decls {
			for _, name := range undocumented(d) {
				t.Errorf("%s: exported %s has no doc comment", f.at(d), name)
			}
		}
	}
	for dir, ok := range packageDoc {
		if !ok {
			t.Errorf("%s: no file has a package comment", dir)
		}
	}
}

// undocumented returns the exported names of a declaration without a comment.
// In a group, a comment on the group or at the end of the line counts.
func undocumented(d ast.Decl) []string {
	var out []string
	switch d := d.(type) {
	case *ast.FuncDecl:
		if d.Name.IsExported() && d.Doc == nil && receiverExported(d) && !conventional[d.Name.Name] {
			out = append(out, d.Name.Name)
		}
	case *ast.GenDecl:
		for _, s := range d.Specs {
			switch s := s.(type) {
			case *ast.TypeSpec:
				if s.Name.IsExported() && d.Doc == nil && s.Doc == nil && s.Comment == nil {
					out = append(out, s.Name.Name)
				}
			case *ast.ValueSpec:
				if d.Doc != nil || s.Doc != nil || s.Comment != nil || d.Tok == token.CONST && len(d.Specs) > 1 {
					continue
				}
				for _, n := range s.Names {
					if n.IsExported() {
						out = append(out, n.Name)
					}
				}
			}
		}
	}
	return out
}

// conventional are methods whose name and signature say all: those of
// interfaces of the standard library.
var conventional = map[string]bool{"Len": true, "Less": true, "Swap": true, "Unwrap": true, "String": true, "Error": true}

func receiverExported(d *ast.FuncDecl) bool {
	if d.Recv == nil || len(d.Recv.List) == 0 {
		return true
	}
	t := d.Recv.List[0].Type
	for {
		switch x := t.(type) {
		case *ast.StarExpr:
			t = x.X
		case *ast.IndexExpr:
			t = x.X
		case *ast.IndexListExpr:
			t = x.X
		case *ast.Ident:
			return x.IsExported()
		default:
			return false
		}
	}
}

// source is one parsed Go file of this module.
type source struct {
	name   string // relative to the root
	dir    string // relative to the root, "." for the root
	isTest bool
	set    *token.FileSet
	syntax *ast.File
}

func (f *source) at(n ast.Node) string {
	return fmt.Sprintf("%s:%d", f.name, f.set.Position(n.Pos()).Line)
}

// sources parses every Go file, whatever its build constraints. Directories
// with a go.mod of their own are other modules.
func sources(t *testing.T) []*source {
	t.Helper()
	root, err := filepath.Abs("../..")
	if err != nil {
		t.Fatal(err)
	}
	set := token.NewFileSet()
	var out []*source
	err = filepath.WalkDir(root, func(file string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(root, file)
		if err != nil {
			return err
		}
		rel = filepath.ToSlash(rel)
		if d.IsDir() {
			return skipDir(rel, file, d)
		}
		if path.Ext(rel) != ".go" {
			return nil
		}
		syntax, err := parser.ParseFile(set, file, nil, parser.ParseComments)
		if err != nil {
			return err
		}
		out = append(out, &source{
			name: rel, dir: path.Dir(rel), isTest: strings.HasSuffix(rel, "_test.go"), set: set, syntax: syntax,
		})
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if len(out) < 10 {
		t.Fatalf("only %d Go files under %s: looking in the wrong place", len(out), root)
	}
	return out
}

func skipDir(rel, file string, d fs.DirEntry) error {
	if rel == "." {
		return nil
	}
	if _, err := os.Stat(filepath.Join(file, "go.mod")); err == nil {
		return fs.SkipDir
	}
	if name := d.Name(); name == "testdata" || strings.HasPrefix(name, ".") || strings.HasPrefix(name, "_") {
		return fs.SkipDir
	}
	return nil
}
