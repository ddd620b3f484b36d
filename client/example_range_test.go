package client_test

import (
	"context"
	"fmt"
	"log"

	"github.com/proa-kv/proa/client"
)

// All keys of a user go at once, however many they are.
func ExampleClient_DeletePrefix() {
	c, stop := connect()
	defer stop()
	ctx := context.Background()
	for _, key := range []string{"user:1:name", "user:1:mail", "user:17:name"} {
		c.PutString(ctx, key, "v")
	}

	if err := c.DeletePrefix(ctx, []byte("user:1:")); err != nil {
		log.Fatal(err)
	}
	for item, err := range c.Scan(ctx, client.KeysOnly()) {
		if err != nil {
			log.Fatal(err)
		}
		fmt.Printf("%s\n", item.Key)
	}
	// Output: user:17:name
}

// What a transaction depends on is read after Watch, and has not changed when the
// transaction is carried out.
func ExampleClient_Watch() {
	c, stop := connect()
	defer stop()
	ctx := context.Background()
	account, booked := []byte("{7}account"), []byte("{7}booked")
	c.Put(ctx, account, []byte("100"))

	for {
		unchanged, err := c.Watch(ctx, booked)
		if err != nil {
			log.Fatal(err)
		}
		if exists, err := c.Exists(ctx, booked); exists || err != nil {
			log.Fatal("booked before", err)
		}
		r, err := c.Txn(ctx, client.NewTxn().If(unchanged).Then(client.OpIncr(account, -30), client.OpPut(booked, nil)))
		if err != nil {
			log.Fatal(err)
		}
		if r.Succeeded {
			fmt.Println(r.Results[0].Integer)
			break
		}
	}
	// Output: 70
}
