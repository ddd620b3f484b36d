// Package test holds the tests that run whole servers as processes and look at
// them from outside: through the client library, through raw sockets, and
// through what is left on disk after SIGKILL.
package test
