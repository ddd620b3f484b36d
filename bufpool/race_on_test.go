//go:build race && !proadebug

package bufpool

const raceEnabled = true
