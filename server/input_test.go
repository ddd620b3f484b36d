package server

import (
	"reflect"
	"testing"
)

// What a thread has decoded of a large request must not keep its buffer: of every
// field that is decoded from requests nothing is left.
func TestForgetLeavesNoViews(t *testing.T) {
	p := &processor{}
	v := reflect.ValueOf(p).Elem()
	decoded := func(f reflect.StructField) bool {
		switch f.Type.PkgPath() {
		case reflect.TypeOf(p.put).PkgPath(), reflect.TypeOf(p.cmd).PkgPath():
			return true
		}
		return f.Name == "Scratch" || f.Name == "split"
	}
	n := 0
	fields := reflect.VisibleFields(v.Type()) // those of embedded parts as well
	for _, f := range fields {
		if decoded(f) {
			n++
			reflect.NewAt(f.Type, v.FieldByIndex(f.Index).Addr().UnsafePointer()).Elem().Set(filled(f.Type))
		}
	}
	p.Scratch = n
	if p.put.Value == nil || n < 15 {
		t.Fatalf("only %d fields were found and filled", n)
	}
	p.Forget()
	for _, f := range fields {
		if x := v.FieldByIndex(f.Index); decoded(f) && !x.IsZero() {
			t.Errorf("%s is kept: %+v", f.Name, x)
		}
	}
}

// filled is a value of a type with one element in each of its slices.
func filled(t reflect.Type) reflect.Value {
	v := reflect.New(t).Elem()
	switch t.Kind() {
	case reflect.Slice:
		v.Set(reflect.MakeSlice(t, 1, 1))
	case reflect.Struct:
		for i := range t.NumField() {
			f := v.Field(i)
			reflect.NewAt(f.Type(), f.Addr().UnsafePointer()).Elem().Set(filled(f.Type()))
		}
	}
	return v
}
