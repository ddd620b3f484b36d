package client_test

import (
	"context"
	"fmt"
	"log"
	"time"

	"github.com/proa-kv/proa/client"
)

// connect returns a client of a server that the caller must stop.
func connect() (c *client.Client, stop func()) {
	address, stopServer := client.StartExampleServer()
	c, err := client.New(context.Background(), client.Config{Endpoints: []string{address}})
	if err != nil {
		log.Fatal(err)
	}
	return c, func() { c.Close(); stopServer() }
}

// Connect, store a value and read it.
func Example() {
	address, stop := client.StartExampleServer() // or: proa serve
	defer stop()
	ctx := context.Background()

	c, err := client.New(ctx, client.Config{Endpoints: []string{address}})
	if err != nil {
		log.Fatal(err)
	}
	defer c.Close()

	if _, err := c.PutString(ctx, "greeting", "hello"); err != nil {
		log.Fatal(err)
	}
	item, err := c.Get(ctx, []byte("greeting"))
	if err != nil {
		log.Fatal(err)
	}
	fmt.Printf("%s = %s (version %d)\n", item.Key, item.Value, item.Version)
	// Output: greeting = hello (version 1)
}

// A value that disappears by itself, and one that is kept after all.
func ExampleWithTTL() {
	c, stop := connect()
	defer stop()
	ctx := context.Background()

	c.PutString(ctx, "ticket", "open", client.WithTTL(10*time.Minute))
	item, _ := c.Get(ctx, []byte("ticket"))
	fmt.Println("expires in", item.TTL)

	c.PutString(ctx, "ticket", "closed", client.KeepTTL())
	c.Persist(ctx, []byte("ticket"))
	item, _ = c.Stat(ctx, []byte("ticket"))
	fmt.Println("expires:", item.TTL != 0)
	// Output:
	// expires in 10m0s
	// expires: false
}

// Counters need no read before the write.
func ExampleClient_Incr() {
	c, stop := connect()
	defer stop()
	ctx := context.Background()

	for range 3 {
		n, err := c.Incr(ctx, []byte("visits"), 1)
		if err != nil {
			log.Fatal(err)
		}
		fmt.Println(n)
	}
	// Output:
	// 1
	// 2
	// 3
}

// Many keys in one request.
func ExampleClient_MGet() {
	c, stop := connect()
	defer stop()
	ctx := context.Background()

	c.PutString(ctx, "a", "1")
	c.PutString(ctx, "c", "3")
	found, err := c.MGet(ctx, client.Keys("a", "b", "c"))
	if err != nil {
		log.Fatal(err)
	}
	for _, l := range found {
		fmt.Printf("%s %v %q\n", l.Key, l.Found, l.Value)
	}
	// Output:
	// a true "1"
	// b false ""
	// c true "3"
}

// A read that need not be the newest may be answered by any replica.
func ExampleWithConsistency() {
	c, stop := connect()
	defer stop()
	ctx := context.Background()

	c.PutString(ctx, "k", "v")
	item, err := c.Get(ctx, []byte("k"), client.WithConsistency(client.Stale))
	if err != nil {
		log.Fatal(err)
	}
	fmt.Printf("%s, at most %v old\n", item.Value, item.Age)
	// Output: v, at most 7ms old
}
