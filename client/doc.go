// Package client is the native Go client of Proa, a replicated key-value
// server.
//
//	c, err := client.New(ctx, client.Config{Endpoints: []string{"127.0.0.1:7400"}})
//	if err != nil { … }
//	defer c.Close()
//	_, err = c.Put(ctx, []byte("k"), []byte("v"), client.WithTTL(time.Hour))
//	item, err := c.Get(ctx, []byte("k"))
//
// # Connections
//
// A [Client] keeps one or a few connections open to each server it needs, and
// any number of goroutines share them: requests are pipelined, replies come in any
// order, and whatever is ready to be sent at the same time leaves in one write.
// There is nothing to pool and nothing to tune for most programs; make one
// Client and use it everywhere.
//
// A lost connection is replaced in the background, the first time at once and
// then with growing, randomised pauses (Config.BackoffMin, BackoffMax). Calls
// wait meanwhile, until their deadline, and shorten these pauses to 50 to 100 ms,
// so that the client is back as soon as a server is. A server that is about to stop says
// so; the client then finishes what is under way there and sends the rest
// elsewhere.
//
// # Clusters
//
// Any server of the cluster is enough to begin with. From it the client learns
// which node leads the shard of each key (ROUTES), connects to these nodes as
// they are needed, and sends each request straight to the leader. Requests
// without a single shard go to any node; MGET and a non-atomic batch to the one
// that leads most of their keys.
//
// What the client knows of leaders are hints: any server takes any request and
// forwards it where that is needed, and its reply names the leader for the next
// time. So a moved leader costs one forwarded request, and a client that
// reaches the cluster through a load balancer, or cannot reach the addresses
// that the nodes advertise, works all the same (see Config.ForwardOnly). The
// client does not announce which slot map it knows: that would cost every
// request something, and forwarded replies tell of a newer one anyway.
//
// A leader that dies, stops or is cut off is replaced by an election, which
// takes some hundred milliseconds. Calls that it leaves unanswered are repeated
// at other nodes where that is safe: when the connection breaks, when a node
// refuses with the advice to try again, and after Config.AttemptTimeout where a
// node just says nothing. With Config.ExactlyOnce that holds for writes as well
// as reads, so that no caller notices more than a delay; without it, a write
// that was under way to the lost node fails with [ErrOutcomeUnknown].
//
// # Three ways to call
//
//   - Methods such as [Client.Get] and [Client.Put] wait for the answer.
//   - [Client.PutAsync] and its like return a [Future] at once, for callers
//     that want many requests under way from one goroutine.
//   - [Client.Do] hands the answer to a [Handler] and allocates nothing.
//
// Calls that are under way at the same time may take effect in any order, even
// those of one goroutine. Wait for one before beginning the next where the
// order matters, or put both into a [Batch].
//
// Keys and values given to a call may be reused when it returns; those that
// it returns belong to the caller. The exception is a Handler's [Result], which
// is valid only during Complete.
//
// # Deadlines
//
// A context's deadline, or else Config.RequestTimeout, bounds a call with all
// its retries. The server is told how much time is left and does not begin
// what would come too late. Cancelling a call leaves its connection usable.
//
// # Errors and what they say about the effect
//
// Every failed call returns an [*Error], whose Outcome says what is known:
//
//   - NotDone: the call definitely had no effect and never will. [SafeToRetry]
//     reports this.
//   - Unknown: a write may or may not have taken effect, now or later. Such an
//     error is [ErrOutcomeUnknown]. It comes from a connection that broke, a
//     deadline or a cancellation after the request was sent.
//   - Done: the call was carried out and this is its answer, such as
//     [ErrNotFound].
//
// The cause is compared with errors.Is: ErrNotFound, ErrConditionFailed,
// ErrBusy, context.DeadlineExceeded and so on.
//
// # Retries
//
// The client itself sends a call again where that is safe and there is time:
// reads whose connection broke or that got no answer; any call that never left
// as a whole; any call that the server refused without an effect and with the
// advice to come back, such as BUSY, after the delay it names, or else after a
// pause that grows from 5 to 250 ms. A write whose outcome is unknown is
// sent again only with Config.ExactlyOnce: then each write carries a session
// and a sequence number, by which the server recognises a repetition, and the
// client asks until the answer settles it or the time of the call is up. The
// server keeps 1,024 results of a session, so the client lets no write go that
// is further ahead of the oldest open one; it waits, within its deadline.
//
// Sessions are off unless they are asked for. They cost 26 bytes on the wire
// and, above all, one more row in the state machine for each write, kept until
// the client acknowledges it: in a short comparison with small values on one
// node the server spent a fifth to a third more CPU time on a write. Many programs
// write what may be written twice, such as a PUT of a whole value, and can
// repeat it themselves. Ask for sessions where a program counts (Incr), depends
// on conditions, or shall not see failovers at all.
//
// # Consistency
//
// Reads are linearizable by default. [WithConsistency] chooses a weaker mode
// for one read, Config.Consistency for all of them. Such reads go to all nodes
// in turn. With [Session] the server is told the newest version this client has
// seen in the key's hash slot, so that a replica that lags behind it does not
// answer. With [Stale] it answers whatever it has; Item.Age says how old that
// may be.
package client
