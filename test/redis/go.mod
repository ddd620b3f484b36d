module github.com/proa-kv/proa/test/redis

go 1.26.8

replace github.com/proa-kv/proa => ../..

require (
	github.com/proa-kv/proa v0.0.0-00010101000000-000000000000
	github.com/redis/go-redis/v9 v9.21.0
	github.com/redis/rueidis v1.0.79
)

require (
	github.com/cespare/xxhash/v2 v2.3.0 // indirect
	go.uber.org/atomic v1.11.0 // indirect
	golang.org/x/crypto v0.57.0 // indirect
	golang.org/x/sys v0.49.0 // indirect
)
