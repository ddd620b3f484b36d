// Package redis holds the proof that Proa's second listener speaks Redis's
// protocol: transcripts that are played to a real redis-server and to Proa and
// compared byte for byte, client libraries that people use, and Redis's own
// tools. It is a module of its own, so that what it depends on stays out of the
// product.
//
// # Transcripts
//
// testdata holds one transcript for each topic. It says what is sent and what
// Redis 7.0 answers:
//
//	=== GET of what SET wrote
//	> SET k "two words"
//	< +OK
//	> GET k
//	< $9
//	< two words
//
// Each case starts without keys and with new connections. A line of replies is
// what stands between two CRLF; bytes that are not printable, and backslashes,
// are escaped as in a Go string, and of a long line only the beginning, the
// length and a checksum are shown. Commands that follow each other without
// replies between them are sent in one write. What is sent:
//
//	> SET k "v"*1000       words; a Go string where it needs one; a factor
//	>> "*1\r\n$4\r\n"      these bytes; they expect no reply of their own
//	b> GET k               the same, and ">>" too, on a connection named b
//
// Before a group of such lines may stand, each on its own line:
//
//	replies 2              so many replies are expected, if not one a command
//	closed                 the server closes the connection after its replies
//	halfclose              the client closes its side when all is sent
//	bytewise               one byte at a time
//	unordered              the elements of each reply may come in any order
//	until                  ask again until the reply is the expected one
//	scan                   follow the cursors of SCAN to the end; the reply is
//	                       the keys, sorted, each once
//	differs: reason        Proa answers otherwise, for a reason that stands in
//	                       docs/redis.md in the same words
//
// Behind it stand the replies:
//
//	< text                 this line
//	<~ expression          a line that the regular expression matches
//	<...                   any further lines
//	redis< proa<           instead of "<" where they differ; also with ~ and ...
//
// With the flag -rewrite the test writes what the redis-server answers into the
// transcripts. Look at the difference: it is what changes for users.
//
// # Client libraries
//
// Those of Go are called by tests. Those of other languages have programs in
// testdata/clients, which TestOtherClients runs; .ci/run installs them:
//
//	npm ci --prefix test/redis/testdata/clients
//	apt-get install nodejs npm python3-redis php-cli php-redis ruby-redis
//
// # Redis's own tests
//
// TestSuite runs them against Proa where PROA_REDIS_SOURCE names the source of
// Redis 7.0. What it leaves out, and why, stands in docs/redis.md.
//
// # What may be missing
//
// Without a redis-server of version 7.0 Proa is compared with the transcripts
// alone, and client libraries that are not there are left out. With TESTREDIS=required in the environment, as in continuous
// integration, that is a failure.
package redis
