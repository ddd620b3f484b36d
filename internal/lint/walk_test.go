package lint

import (
	"go/ast"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// stepsMax is how many steps a newcomer follows.
const stepsMax = 15

// TestWalk: the steps of a write and of a read in docs/architecture.md are functions
// that exist, and few.
func TestWalk(t *testing.T) {
	page, err := os.ReadFile(filepath.Join("..", "..", "docs", "architecture.md"))
	if err != nil {
		t.Fatal(err)
	}
	declared := declaredFunctions(t)
	step := regexp.MustCompile("(?m)^[0-9]+\\. `([^`]+)`")
	for _, title := range []string{"## The way of a write\n", "## The way of a read\n"} {
		_, section, found := strings.Cut(string(page), title)
		if !found {
			t.Fatalf("no section %q", title)
		}
		section, _, _ = strings.Cut(section, "\n## ")
		steps := step.FindAllStringSubmatch(section, -1)
		if len(steps) < 5 || len(steps) > stepsMax {
			t.Errorf("%q has %d steps, want 5 to %d", title, len(steps), stepsMax)
		}
		for _, s := range steps {
			if !declared[s[1]] {
				t.Errorf("%q: there is no function %s", title, s[1])
			}
		}
	}
}

// declaredFunctions returns the functions and methods of this module outside tests, as
// "package.Function" and "package.Type.Method", where a package is its directory.
func declaredFunctions(t *testing.T) map[string]bool {
	declared := make(map[string]bool)
	for _, f := range sources(t) {
		if f.isTest {
			continue
		}
		for _, d := range f.syntax.Decls {
			if fn, ok := d.(*ast.FuncDecl); ok {
				declared[f.dir+"."+receiver(fn)+fn.Name.Name] = true
			}
		}
	}
	return declared
}

// receiver returns "Type." for a method of Type or *Type, and "" for a function.
func receiver(fn *ast.FuncDecl) string {
	if fn.Recv == nil {
		return ""
	}
	typ := fn.Recv.List[0].Type
	if star, ok := typ.(*ast.StarExpr); ok {
		typ = star.X
	}
	if generic, ok := typ.(*ast.IndexExpr); ok {
		typ = generic.X
	}
	if name, ok := typ.(*ast.Ident); ok {
		return name.Name + "."
	}
	return ""
}
