package client_test

import (
	"context"
	"errors"
	"fmt"
	"log"

	"github.com/proa-kv/proa/client"
)

// Read, change, write back, and begin again if somebody was faster.
func ExampleIfVersion() {
	c, stop := connect()
	defer stop()
	ctx := context.Background()
	key := []byte("config")
	c.Put(ctx, key, []byte("a"))

	for {
		item, err := c.Get(ctx, key)
		if err != nil {
			log.Fatal(err)
		}
		changed := append(item.Value, 'b')
		_, err = c.Put(ctx, key, changed, client.IfVersion(item.Version))
		if errors.Is(err, client.ErrConditionFailed) {
			continue
		}
		if err != nil {
			log.Fatal(err)
		}
		fmt.Printf("%s\n", changed)
		break
	}
	// Output: ab
}

// Whoever creates the key first has the lock.
func ExampleIfAbsent() {
	c, stop := connect()
	defer stop()
	ctx := context.Background()

	for _, owner := range []string{"alice", "bob"} {
		r, err := c.Put(ctx, []byte("lock"), []byte(owner), client.IfAbsent(), client.ReturnPrevious())
		switch {
		case err == nil:
			fmt.Println(owner, "has the lock")
		case errors.Is(err, client.ErrConditionFailed):
			fmt.Printf("%s must wait for %s\n", owner, r.Previous.Value)
		default:
			log.Fatal(err)
		}
	}
	// Output:
	// alice has the lock
	// bob must wait for alice
}

// Keys with the same {tag} share a shard, so one transaction can change them.
func ExampleClient_Txn() {
	c, stop := connect()
	defer stop()
	ctx := context.Background()
	from, to := []byte("{acc}ann"), []byte("{acc}ben")
	c.Put(ctx, from, []byte("100"))
	state, _ := c.Get(ctx, from)

	r, err := c.Txn(ctx, client.NewTxn().
		If(client.Version(from, client.Equal, state.Version), client.Absent([]byte("{acc}frozen"))).
		Then(client.OpIncr(from, -30), client.OpIncr(to, 30)).
		Else(client.OpGet(from)))
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(r.Succeeded, r.Results[0].Integer, r.Results[1].Integer)
	// Output: true 70 30
}

// Several writes in one request, each with its own result.
func ExampleClient_Batch() {
	c, stop := connect()
	defer stop()
	ctx := context.Background()

	results, err := c.Batch(ctx, client.NewBatch().
		Put([]byte("a"), []byte("1")).
		Put([]byte("a"), []byte("2"), client.IfAbsent()).
		Delete([]byte("gone")).
		NonAtomic()) // the keys may lie in several shards
	if err != nil {
		log.Fatal(err)
	}
	for _, r := range results {
		switch {
		case r.Err == nil:
			fmt.Println("done")
		case errors.Is(r.Err, client.ErrConditionFailed):
			fmt.Println("condition failed")
		case errors.Is(r.Err, client.ErrNotFound):
			fmt.Println("not found")
		}
	}
	// Output:
	// done
	// condition failed
	// not found
}
