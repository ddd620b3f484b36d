package demo

import (
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"time"

	"github.com/proa-kv/proa/client"
	"github.com/proa-kv/proa/command"
	"github.com/proa-kv/proa/internal/ledger"
)

// clientStore is a client of the cluster.
type clientStore struct {
	*client.Client
	endpoints []string // of the nodes, from the first on
	log       *slog.Logger
}

// connectTimeout bounds one attempt to connect.
const connectTimeout = 2 * time.Second

func connect(ctx context.Context, endpoints []string, log *slog.Logger) (store, error) {
	ctx, cancel := context.WithTimeout(ctx, connectTimeout)
	defer cancel()
	c, err := client.New(ctx, client.Config{
		Endpoints: endpoints, DialTimeout: connectTimeout, RequestTimeout: callTimeout,
		// A write whose connection breaks is repeated, and takes effect once.
		ExactlyOnce: true,
		// The servers are near, and one will be gone for a moment only.
		BackoffMin: 20 * time.Millisecond, BackoffMax: 200 * time.Millisecond,
		Name: "proa-demo", Logger: log,
	})
	if err != nil {
		return nil, err
	}
	return clientStore{c, endpoints, log}, nil
}

func (s clientStore) put(ctx context.Context, key, value []byte) error {
	_, err := s.Put(ctx, key, value)
	return err
}

func (s clientStore) get(ctx context.Context, key []byte) (value []byte, found bool, err error) {
	item, err := s.Get(ctx, key)
	if errors.Is(err, client.ErrNotFound) {
		return nil, false, nil
	}
	return item.Value, true, err
}

// own asks one node for its status, over a connection of its own: what it says
// of itself is not older than the answer.
func (s clientStore) own(ctx context.Context, node int) (*command.ClusterStatus, error) {
	ctx, cancel := context.WithTimeout(ctx, connectTimeout)
	defer cancel()
	c, err := client.New(ctx, client.Config{
		Endpoints: s.endpoints[node-1 : node], ForwardOnly: true, DialTimeout: connectTimeout, RequestTimeout: connectTimeout, Name: "proa-demo", Logger: s.log,
	})
	if err != nil {
		return nil, err
	}
	defer func() { _ = c.Close() }()
	return clientStore{Client: c}.status(ctx)
}

func (s clientStore) administer(ctx context.Context, verb string, args, answer any) error {
	var arguments []byte
	if args != nil {
		var err error
		if arguments, err = json.Marshal(args); err != nil {
			return err
		}
	}
	raw, err := s.Admin(ctx, verb, arguments)
	if err != nil {
		return err
	}
	return json.Unmarshal(raw, answer)
}

func (s clientStore) status(ctx context.Context) (*command.ClusterStatus, error) {
	ctx, cancel := context.WithTimeout(ctx, connectTimeout)
	defer cancel()
	c := new(command.ClusterStatus)
	return c, s.administer(ctx, command.AdminStatus, nil, c)
}

func (s clientStore) checksum(ctx context.Context, shard int) (*command.ShardChecksum, error) {
	ctx, cancel := context.WithTimeout(ctx, verifyTimeout)
	defer cancel()
	sum := new(command.ShardChecksum)
	return sum, s.administer(ctx, command.AdminChecksum, command.ShardArgs{Shard: shard}, sum)
}

func (s clientStore) tags(ctx context.Context) (map[uint16]string, error) {
	routes, err := s.Routes(ctx)
	if err != nil {
		return nil, err
	}
	return ledger.Tags(routes.Shards)
}

func (s clientStore) close() { _ = s.Close() }
