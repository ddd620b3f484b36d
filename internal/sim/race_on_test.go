//go:build race

package sim

// raceEnabled says whether the race detector is on: it makes runs ten times as
// slow.
const raceEnabled = true
