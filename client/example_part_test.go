package client_test

import (
	"context"
	"fmt"
	"log"
	"time"

	"github.com/proa-kv/proa/client"
)

// Keys and values that are text need no conversions.
func ExampleClient_PutString() {
	c, stop := connect()
	defer stop()
	ctx := context.Background()

	c.PutString(ctx, "greeting", "hello")
	s, err := c.GetString(ctx, "greeting")
	fmt.Println(s, err)
	// Output: hello <nil>
}

// A value grows, and a part of it is replaced and read.
func ExampleClient_Append() {
	c, stop := connect()
	defer stop()
	ctx := context.Background()
	key := []byte("log")

	c.Append(ctx, key, []byte("one,"))
	n, _ := c.Append(ctx, key, []byte("two,"))
	c.SetRange(ctx, key, 0, []byte("ONE"))
	part, length, err := c.GetRange(ctx, key, 0, 2)
	if err != nil {
		log.Fatal(err)
	}
	fmt.Printf("%d %s %d\n", n, part.Value, length)
	// Output: 8 ONE 8
}

// Amounts with a fraction.
func ExampleClient_IncrFloat() {
	c, stop := connect()
	defer stop()
	ctx := context.Background()

	c.IncrFloat(ctx, []byte("balance"), 10.5)
	sum, err := c.IncrFloat(ctx, []byte("balance"), -0.25)
	fmt.Println(sum, err)
	// Output: 10.25 <nil>
}

// A lease that is only ever prolonged.
func ExampleClient_SetExpiry() {
	c, stop := connect()
	defer stop()
	ctx := context.Background()
	key := []byte("lease")
	noon := time.Date(2096, 1, 1, 12, 0, 0, 0, time.UTC)
	c.Put(ctx, key, nil, client.WithExpiryAt(noon))

	for _, t := range []time.Time{noon.Add(-time.Hour), noon.Add(time.Hour)} {
		if _, err := c.SetExpiry(ctx, key, client.WithExpiryAt(t), client.IfLater()); err != nil {
			fmt.Println(err)
		}
	}
	at, err := c.Expiry(ctx, key)
	fmt.Println(at.UTC(), err)
	// Output:
	// proa: SETEXPIRY: condition failed (the key has version 1)
	// 2096-01-01 13:00:00 +0000 UTC <nil>
}

// A draft takes the place of what is published, in one step.
func ExampleClient_Rename() {
	c, stop := connect()
	defer stop()
	ctx := context.Background()
	c.PutString(ctx, "{page}draft", "new text")
	c.PutString(ctx, "{page}published", "old text")

	if _, err := c.Rename(ctx, []byte("{page}draft"), []byte("{page}published")); err != nil {
		log.Fatal(err)
	}
	s, err := c.GetString(ctx, "{page}published")
	fmt.Println(s, err)
	// Output: new text <nil>
}
