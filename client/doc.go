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
// any number of goroutines share them: requests are pipelined, replies come in
// any order, and requests that are ready at the same time are sent in one
// write. Most programs need no pool and no tuning: create one Client and use it
// everywhere.
//
// A lost connection is replaced in the background, immediately at first and
// then with growing, randomised pauses (Config.BackoffMin, BackoffMax).
// Meanwhile calls wait until their deadline; while calls wait, the pauses are
// only 50 to 100 ms, so that the client reconnects as soon as a server is
// available. A server that shuts down announces it; the client then finishes
// the requests in flight there and sends new ones to other servers.
//
// # Clusters
//
// The address of any one server of the cluster is enough. From it the client
// learns which node leads the shard of each key (ROUTES), connects to these
// nodes when needed, and sends each request directly to the leader. Requests
// that do not belong to one shard go to any node; MGET and a non-atomic batch
// go to the node that leads most of their keys.
//
// The client's knowledge of leaders is only a hint: any server accepts any
// request and forwards it if necessary, and its reply names the leader. A
// change of leader therefore costs one forwarded request, and a client also
// works if it reaches the cluster through a load balancer, or cannot reach the
// addresses that the nodes advertise (see Config.ForwardOnly). The client does
// not send the epoch of its slot map: that would add to every request, and
// forwarded replies announce a newer map anyway.
//
// An address can lead to another cluster than intended: it was reassigned, or a new
// server was started in place of a stopped one. With Config.Cluster set, the client
// refuses such a server when it connects, before it sends a request
// (ErrWrongCluster).
//
// A leader that fails, stops or is partitioned from the others is replaced by
// an election, which takes some hundred milliseconds. If it is safe, unanswered
// calls are retried on other nodes: when the connection is lost, when a node
// refuses the request and allows a retry, and after Config.AttemptTimeout if a
// node does not answer. With Config.ExactlyOnce this applies to writes as well
// as reads, so that callers only see a delay; without it, a write in flight to
// the lost node fails with [ErrOutcomeUnknown].
//
// # TLS and credentials
//
// Config.TLS encrypts the connections. A failed handshake is a [TLSError], inside which
// errors.As finds the error of crypto/tls or crypto/x509. Config.User and Config.Secret,
// or Config.Credentials for those that change, or a client certificate log in. While no
// server accepts them calls fail at once with [ErrUnauthenticated], and the client asks
// again with growing pauses; what the user may not do fails with [ErrPermission]. A
// server gets the credentials before it has said which cluster it belongs to: that they go
// to nobody else only TLS can tell.
//
// # Three ways to call
//
//   - Methods such as [Client.Get] and [Client.Put] wait for the answer. They
//     take and return []byte; [Client.GetString], [Client.PutString] and [Keys]
//     spare programs with text the conversions.
//   - [Client.PutAsync] and its like return a [Future] at once, for callers
//     that want many requests under way from one goroutine.
//   - [Client.Do] sends an [Operation], hands the answer to a [Handler] and
//     allocates nothing.
//
// [OpGet], [OpPut] and their like make an [Operation]: one request that is not
// sent yet. A [Batch] and a [Txn] consist of operations too.
//
// Calls in flight at the same time may take effect in any order, even those of
// one goroutine. If the order matters, wait for one before starting the next,
// or put both into a [Batch].
//
// Keys and values given to a call may be reused when it returns; those that
// it returns belong to the caller. The exception is a Handler's [Result], which
// is valid only during Complete.
//
// # Deadlines
//
// The context's deadline, or Config.RequestTimeout if it has none, limits a
// call with all its retries. The request carries the time that is left, and the server does
// not start requests whose time is over. Cancelling a call leaves its
// connection usable.
//
// # Errors and what they say about the effect
//
// Every failed call returns an [*Error], whose Outcome says what is known about
// its effect:
//
//   - NotDone: the call definitely had no effect and never will. [SafeToRetry]
//     reports this.
//   - Unknown: a write may or may not have taken effect, now or later. Such an
//     error is [ErrOutcomeUnknown]. Its cause is a lost connection, a
//     deadline or a cancellation after the request was sent.
//   - Done: the call was carried out and this is its answer, such as
//     [ErrNotFound].
//
// Compare the cause with errors.Is: ErrNotFound, ErrConditionFailed, ErrBusy,
// context.DeadlineExceeded and so on.
//
// # Retries
//
// The client retries a call by itself if that is safe and there is time: reads
// whose connection was lost or that got no answer; any call that was not sent
// completely; any call that the server refused without an effect and that may
// be retried, such as BUSY, after the delay that the server names, or else
// after a pause that grows from 5 to 250 ms. A write whose outcome is unknown
// is sent again only with Config.ExactlyOnce: then each write carries a session
// and a sequence number, by which the server recognises a repetition, and the
// client retries until the outcome is known or the time of the call is over.
// The server keeps 1,024 results per session, so the client does not send a
// write that is further ahead of the oldest unfinished one; that write waits,
// within its deadline.
//
// Sessions are off by default. They cost 26 bytes per request and, more
// importantly, one more row in the state machine for each write, kept until the
// client acknowledges it: in a short comparison with small values on one node
// the server used a fifth to a third more CPU time per write. Many programs
// send only writes that can be repeated safely, such as a PUT of a whole value,
// and can retry them themselves. Use sessions if a program counts (Incr),
// depends on conditions, or must not see failovers at all.
//
// # Consistency
//
// Reads are linearizable by default. [WithConsistency] selects a weaker mode
// for one read, Config.Consistency for all reads. Such reads are distributed
// over all nodes. With [SessionReads] the request carries the newest version this
// client has seen in the key's hash slot, and a replica that lags behind that
// version does not answer. With [Stale] any replica answers with its current
// data; Item.Age says how old that may be.
package client
