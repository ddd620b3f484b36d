//go:build race || proadebug

package server

// instrumented says that the program allocates for its own observation.
const instrumented = true
