package lint

import (
	"go/ast"
	"testing"
)

// Bounds of a type outside tests: beyond them it does more than one thing.
const (
	fieldsMax  = 40
	methodsMax = 50
)

// TestSizes: no type outside tests has more fields or methods than a reader can hold.
func TestSizes(t *testing.T) {
	fields, methods := make(map[string]int), make(map[string]int)
	for _, f := range sources(t) {
		if f.isTest {
			continue
		}
		for _, d := range f.syntax.Decls {
			switch d := d.(type) {
			case *ast.FuncDecl:
				if r := receiver(d); r != "" {
					methods[f.dir+"."+r[:len(r)-1]]++
				}
			case *ast.GenDecl:
				for _, spec := range d.Specs {
					countFields(fields, f.dir, spec)
				}
			}
		}
	}
	for name, n := range fields {
		if n > fieldsMax {
			t.Errorf("%s has %d fields, want %d at most", name, n, fieldsMax)
		}
	}
	for name, n := range methods {
		if n > methodsMax {
			t.Errorf("%s has %d methods, want %d at most", name, n, methodsMax)
		}
	}
}

// countFields adds the fields of a struct type, each name and each embedded type one.
func countFields(fields map[string]int, dir string, spec ast.Spec) {
	typ, ok := spec.(*ast.TypeSpec)
	if !ok {
		return
	}
	str, ok := typ.Type.(*ast.StructType)
	if !ok {
		return
	}
	for _, field := range str.Fields.List {
		fields[dir+"."+typ.Name.Name] += max(1, len(field.Names))
	}
}
