//go:build !proadebug

package testcluster

// debugEnabled says whether the tests run with buffer checks.
const debugEnabled = false
