// Hello is a first program against a server of Proa.
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
	c, err := client.New(ctx, client.Config{Endpoints: os.Args[1:]})
	if err != nil {
		log.Fatal(err)
	}
	defer c.Close()

	if _, err := c.Put(ctx, []byte("hello:1"), []byte("world"), client.WithTTL(time.Hour)); err != nil {
		log.Fatal(err) // errors say whether the write may have taken effect
	}
	item, err := c.Get(ctx, []byte("hello:1"))
	switch {
	case errors.Is(err, client.ErrNotFound):
		fmt.Println("nobody there")
	case err != nil:
		log.Fatal(err)
	default:
		fmt.Printf("hello, %s (version %d)\n", item.Value, item.Version)
	}
	for item, err := range c.Scan(ctx, client.Prefix([]byte("hello:"))) {
		if err != nil {
			log.Fatal(err)
		}
		fmt.Printf("%s = %s\n", item.Key, item.Value)
	}
}
