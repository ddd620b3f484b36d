// Package resp is the pure part of the Redis protocol, RESP2 and RESP3: a
// parser of requests, appenders of replies, glob patterns, the texts of errors
// and the table of the commands Proa understands. It does no I/O, starts no
// goroutine and knows nothing of what a command does.
//
// Everything that clients can observe is byte for byte as in Redis 7.0: which
// malformed requests are errors and with what text, what a pattern matches,
// what COMMAND INFO returns. Comments mark each difference and its reason.
package resp
