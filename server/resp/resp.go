// Package resp is the pure part of the Redis protocol, RESP2 and RESP3: a
// parser of requests, appenders of replies, glob patterns, the texts of errors
// and the table of the commands Proa understands. It does no I/O, starts no
// goroutine and knows nothing of what a command does.
//
// What clients can see of Redis, they see here byte for byte as in Redis 7.0:
// which malformed requests are errors and with what text, what a pattern
// matches, what COMMAND INFO tells. Where this package departs from it the
// comment at that place says so and why.
package resp
