package server_test

import (
	"github.com/proa-kv/proa/server"
	"github.com/proa-kv/proa/server/redis"
)

// The tests of package server serve the Redis protocol too, which its own test
// files cannot import.
func init() {
	server.NewRedis = func(s *server.Server, redirect bool) server.Protocol {
		return redis.New(s, redis.Config{Redirect: redirect})
	}
}
