//go:build race

package testcluster

// raceEnabled says whether the tests run with the race detector.
const raceEnabled = true
