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
	for i := range v.NumField() {
		f := v.Type().Field(i)
		if !decoded(f) {
			continue
		}
		n++
		reflect.NewAt(f.Type, v.Field(i).Addr().UnsafePointer()).Elem().Set(filled(f.Type))
	}
	p.Scratch = n
	if p.put.Value == nil || n < 15 {
		t.Fatalf("only %d fields were found and filled", n)
	}
	p.Forget()
	for i := range v.NumField() {
		if f := v.Type().Field(i); decoded(f) && !v.Field(i).IsZero() {
			t.Errorf("%s is kept: %+v", f.Name, v.Field(i))
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
