package client_test

import (
	"context"
	"errors"
	"fmt"
	"log"
	"time"

	"github.com/proa-kv/proa/client"
)

// What a failed write means, and what to do about it.
func ExampleSafeToRetry() {
	c, stop := connect()
	defer stop()

	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	_, err := c.Put(ctx, []byte("k"), []byte("v"), client.IfVersion(99))
	var failure *client.Error
	switch {
	case err == nil:
		fmt.Println("on disk on a majority of nodes")
	case errors.Is(err, client.ErrOutcomeUnknown):
		fmt.Println("may have taken effect: read before writing again")
	case errors.As(err, &failure) && errors.Is(err, client.ErrConditionFailed):
		fmt.Printf("nothing was changed, the key has version %d; safe to retry: %v\n", failure.Version, client.SafeToRetry(err))
	case client.SafeToRetry(err):
		fmt.Println("definitely had no effect")
	}
	// Output: nothing was changed, the key has version 0; safe to retry: true
}

// With a session a write takes effect once, even if connections break.
func ExampleConfig_exactlyOnce() {
	address, stop := client.StartExampleServer()
	defer stop()
	ctx := context.Background()

	c, err := client.New(ctx, client.Config{Endpoints: []string{address}, ExactlyOnce: true})
	if err != nil {
		log.Fatal(err)
	}
	defer c.Close()
	n, err := c.Incr(ctx, []byte("orders"), 1)
	fmt.Println(n, err)
	// Output: 1 <nil>
}

// When nothing listens, the error says what was tried.
func ExampleUnavailableError() {
	_, err := client.New(context.Background(), client.Config{Endpoints: []string{"unix:///nowhere/proa.sock"}})
	var u *client.UnavailableError
	if errors.As(err, &u) {
		fmt.Println(u.Endpoints[0].Endpoint)
	}
	fmt.Println(errors.Is(err, client.ErrUnavailable))
	// Output:
	// unix:///nowhere/proa.sock
	// true
}
