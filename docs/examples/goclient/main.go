// Command goclient writes and reads in Proa: goclient HOST:PORT…
package main

import (
	"context"
	"errors"
	"fmt"
	"log"
	"os"
	"time"

	"github.com/proa-kv/proa/client"
)

func main() {
	ctx := context.Background()
	c := must(client.New(ctx, client.Config{Endpoints: os.Args[1:]}))
	defer c.Close()
	must(c.PutString(ctx, "greeting", "hello", client.WithTTL(time.Hour)))
	fmt.Println(must(c.GetString(ctx, "greeting")))
	fmt.Println(must(c.Incr(ctx, []byte("visits"), 1)))
	if _, err := c.GetString(ctx, "nothing"); errors.Is(err, client.ErrNotFound) {
		fmt.Println("not found")
	}
}

func must[T any](v T, err error) T {
	if err != nil { // errors.Is(err, client.ErrOutcomeUnknown): a write may have happened
		log.Fatal(err)
	}
	return v
}
