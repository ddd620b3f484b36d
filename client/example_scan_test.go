package client_test

import (
	"context"
	"fmt"
	"log"

	"github.com/proa-kv/proa/client"
)

// Keys come in bytewise order, whatever their shards.
func ExampleClient_Scan() {
	c, stop := connect()
	defer stop()
	ctx := context.Background()
	for _, k := range []string{"user/3", "user/1", "group/1", "user/2"} {
		c.PutString(ctx, k, "value of "+k)
	}

	for item, err := range c.Scan(ctx, client.Prefix([]byte("user/"))) {
		if err != nil {
			log.Fatal(err)
		}
		fmt.Printf("%s: %s\n", item.Key, item.Value)
	}
	for item, err := range c.Scan(ctx, client.Reverse(), client.KeysOnly(), client.Limit(2)) {
		if err != nil {
			log.Fatal(err)
		}
		fmt.Printf("%s\n", item.Key)
	}
	// Output:
	// user/1: value of user/1
	// user/2: value of user/2
	// user/3: value of user/3
	// user/3
	// user/2
}

// A cursor lets a scan go on later, in another process too.
func ExampleScanner_Cursor() {
	c, stop := connect()
	defer stop()
	ctx := context.Background()
	for i := range 5 {
		c.Put(ctx, fmt.Appendf(nil, "k%d", i), nil)
	}

	var cursor []byte
	for {
		s := c.NewScanner(client.Limit(2), client.FromCursor(cursor))
		for item, err := range s.All(ctx) {
			if err != nil {
				log.Fatal(err)
			}
			fmt.Printf("%s\n", item.Key)
		}
		if cursor = s.Cursor(); cursor == nil {
			break
		}
		fmt.Println("-- later --")
	}
	// Output:
	// k0
	// k1
	// -- later --
	// k2
	// k3
	// -- later --
	// k4
}
