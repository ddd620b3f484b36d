package client_test

import (
	"context"
	"fmt"
	"log"
	"sync"

	"github.com/proa-kv/proa/client"
)

// One goroutine keeps many requests under way.
func ExampleClient_PutAsync() {
	c, stop := connect()
	defer stop()
	ctx := context.Background()

	var pending []*client.Future[client.WriteResult]
	for i := range 100 {
		pending = append(pending, c.PutAsync(fmt.Appendf(nil, "k%02d", i), []byte("v")))
	}
	for _, f := range pending {
		if _, err := f.Wait(ctx); err != nil {
			log.Fatal(err)
		}
	}
	item, err := c.GetAsync([]byte("k42")).Wait(ctx)
	fmt.Printf("%s %v\n", item.Value, err)
	// Output: v <nil>
}

// The way with the least overhead: a handler for each answer.
func ExampleClient_Do() {
	c, stop := connect()
	defer stop()

	var done sync.WaitGroup
	done.Add(2)
	show := client.HandlerFunc(func(r *client.Result) {
		if r.Err == nil {
			fmt.Println("version", r.Version)
		}
		done.Done()
	})
	if err := c.Do(client.OpPut([]byte("k"), []byte("v")), client.HandlerFunc(func(r *client.Result) {
		show(r)
		if err := c.Do(client.OpGet([]byte("k")), show); err != nil {
			log.Fatal(err)
		}
	})); err != nil {
		log.Fatal(err)
	}
	done.Wait()
	// Output:
	// version 1
	// version 1
}
