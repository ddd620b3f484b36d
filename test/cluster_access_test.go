package test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/proa-kv/proa/access"
	"github.com/proa-kv/proa/client"
	"github.com/proa-kv/proa/command"
	"github.com/proa-kv/proa/internal/testcluster"
)

const adminPassword = "the first password"

// secretFile writes a file with a secret.
func secretFile(t *testing.T, name, secret string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(path, []byte(secret+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// addUser adds or changes a user.
func addUser(c *testcluster.Cluster, e access.UserEdit, password string) {
	c.Admin(command.AdminUserSet, command.UserArgs{UserEdit: e, Passwords: []string{password}})
}

// TestClusterClosed runs a cluster in which everybody has to say who they are, from its
// first start on: clients by a user and a password, nodes by the cluster secret.
func TestClusterClosed(t *testing.T) {
	t.Parallel()
	secret := secretFile(t, "secret", strings.Repeat("s", 40))
	c := testcluster.StartCluster(t, testcluster.ClusterConfig{
		Shards: 3, User: "admin", Password: adminPassword,
		Args: []string{"--auth", "required", "--admin-password-file", secretFile(t, "admin", adminPassword), "--cluster-secret-file", secret},
	})
	ctx := context.Background()
	addUser(c, access.UserEdit{Name: "svc", Grants: []access.Grant{{Prefix: []byte("app/"), Rights: access.ReadWrite}, {Prefix: []byte("public/"), Rights: access.Read}}}, "a service's password")
	as := func(id int, user, password string) (*client.Client, error) {
		cl, err := client.New(ctx, client.Config{Endpoints: []string{c.Node(id).Address()}, ForwardOnly: true, User: user, Secret: password})
		if err == nil {
			t.Cleanup(func() { _ = cl.Close() })
		}
		return cl, err
	}
	for _, x := range []struct{ user, password string }{{"", ""}, {"svc", "a wrong password"}, {"nobody", "a service's password"}} {
		if _, err := as(1, x.user, x.password); !errors.Is(err, client.ErrUnauthenticated) {
			t.Errorf("%q with %q: %v", x.user, x.password, err)
		}
	}
	admin := connectAll(t, c, func(cfg *client.Config) { cfg.User, cfg.Secret = "admin", adminPassword })
	for i := range 30 {
		for _, prefix := range []string{"app/", "public/", "private/"} {
			if _, err := admin.Put(ctx, fmt.Appendf(nil, "%s%02d", prefix, i), []byte("v")); err != nil {
				t.Fatal(err)
			}
		}
	}
	for id := 1; id <= 3; id++ { // each leads some shards, and sends on to the others
		var svc *client.Client
		eventually(t, "the user on every node", func() (err error) { svc, err = as(id, "svc", "a service's password"); return err })
		var keys []string
		for item, err := range svc.Scan(ctx, client.KeysOnly()) {
			if err != nil {
				t.Fatal(err)
			}
			keys = append(keys, string(item.Key))
		}
		if len(keys) != 60 || keys[0] != "app/00" || keys[59] != "public/29" {
			t.Errorf("node %d shows %d keys: %q", id, len(keys), keys)
		}
		for i := range 30 {
			if _, err := svc.Put(ctx, fmt.Appendf(nil, "app/%02d", i), []byte("w")); err != nil {
				t.Errorf("node %d: %v", id, err)
			}
			if _, err := svc.Get(ctx, fmt.Appendf(nil, "public/%02d", i)); err != nil {
				t.Errorf("node %d: %v", id, err)
			}
			for what, err := range map[string]error{
				"a PUT":      func() error { _, err := svc.Put(ctx, fmt.Appendf(nil, "public/%02d", i), []byte("w")); return err }(),
				"a GET":      func() error { _, err := svc.Get(ctx, fmt.Appendf(nil, "private/%02d", i)); return err }(),
				"a deletion": svc.DeletePrefix(ctx, []byte("private/")),
				"a transfer": func() error {
					_, err := svc.Admin(ctx, command.AdminTransfer, []byte(`{"shard":0,"to":1}`))
					return err
				}(),
				"a status": func() error { _, err := svc.Admin(ctx, command.AdminStatus, nil); return err }(),
			} {
				if !errors.Is(err, client.ErrPermission) {
					t.Errorf("%s at node %d: %v", what, id, err)
				}
			}
		}
	}
	// The user changes its password, at each node: that connection goes on, others end.
	password := "a service's password"
	for id := 1; id <= 3; id++ {
		var own, other *client.Client
		for _, to := range []**client.Client{&own, &other} {
			eventually(t, "the password on every node", func() (err error) { *to, err = as(id, "svc", password); return err })
		}
		next := fmt.Sprintf("password number %d", id)
		args := fmt.Appendf(nil, `{"current":%q,"password":%q}`, password, next)
		if _, err := own.Admin(ctx, command.AdminUserPassword, args); err != nil {
			t.Fatalf("node %d: %v", id, err)
		}
		eventually(t, "the end of the other connection", func() error {
			if _, err := other.Get(ctx, []byte("app/00")); !errors.Is(err, client.ErrUnauthenticated) {
				return fmt.Errorf("a GET: %w", err)
			}
			return nil
		})
		if _, err := own.Get(ctx, []byte("app/00")); err != nil { // it knows no password with which to connect again
			t.Errorf("node %d: %v", id, err)
		}
		password = next
	}
	c.Admin(command.AdminUserRemove, command.NameArgs{Name: "svc"})
	eventually(t, "the user gone on every node", func() error {
		for id := 1; id <= 3; id++ {
			if _, err := as(id, "svc", password); !errors.Is(err, client.ErrUnauthenticated) {
				return fmt.Errorf("node %d: %w", id, err)
			}
		}
		return nil
	})
	// Another start, with another password in the file, changes nothing.
	for _, n := range c.Nodes() {
		n.Configure(func(cfg *testcluster.Config) {
			cfg.Args = append(cfg.Args, "--admin-password-file", secretFile(t, "other", "another password"))
		})
		n.Stop()
		n.Start()
	}
	if _, err := as(1, "admin", "another password"); !errors.Is(err, client.ErrUnauthenticated) {
		t.Errorf("with the password of a later start: %v", err)
	}
	// A node needs both the secret and a token.
	token := c.JoinToken()
	stranger := func(args ...string) *testcluster.Node {
		return testcluster.New(t, testcluster.Config{Peer: testcluster.FreeAddress(t), Args: append(args, "--join", c.Peer(1), "--auth", "required")})
	}
	awaitRefused(t, stranger("--join-token", token), "requires the cluster secret")
	awaitRefused(t, stranger("--join-token", token, "--cluster-secret-file", secretFile(t, "wrong", strings.Repeat("w", 40))), "requires the cluster secret")
	awaitRefused(t, stranger("--cluster-secret-file", secret), "a valid join token is required")
	c.Join()
	c.AwaitLeaders()
}

// TestClusterCloses turns an open cluster into a closed one, node by node, while clients
// work: those that have credentials notice nothing, and in the end nobody else is let in.
func TestClusterCloses(t *testing.T) {
	if testing.Short() {
		t.Skip("the servers are restarted twice")
	}
	t.Parallel()
	c := testcluster.StartCluster(t, testcluster.ClusterConfig{Shards: 4, Settings: steady})
	// First the users, and the clients get their credentials.
	addUser(c, access.UserEdit{Name: "admin", Mode: access.First, AddRoles: []string{"admin"}}, adminPassword)
	addUser(c, access.UserEdit{Name: "svc", AddRoles: []string{"readwrite"}}, "a service's password")
	clients := make([]*client.Client, 3)
	for i := range clients {
		eventually(t, "the user on every node", func() (err error) {
			clients[i], err = client.New(context.Background(), client.Config{Endpoints: c.Endpoints(), User: "svc", Secret: "a service's password"})
			return err
		})
		t.Cleanup(func() { _ = clients[i].Close() })
	}
	tr := startTraffic(t, clients, 6, 2*time.Millisecond)
	secret := secretFile(t, "secret", strings.Repeat("s", 40))
	// Then the nodes, one after the other: the secret is optional until all of them have it.
	for _, check := range []string{"optional", "required"} {
		for _, n := range c.Nodes() {
			tr.progress(100)
			n.Configure(func(cfg *testcluster.Config) {
				cfg.Args = append(cfg.Args, "--auth", "required", "--cluster-secret-file", secret, "--set", "node.cluster_secret_check="+check)
				cfg.User, cfg.Password = "admin", adminPassword
			})
			n.Stop()
			tr.progress(100)
			n.Start()
			awaitSettled(t, c)
		}
	}
	tr.check(connectAll(t, c, func(cfg *client.Config) { cfg.User, cfg.Secret = "admin", adminPassword }))
	tr.noErrors()
	for _, n := range c.Nodes() {
		if _, err := client.New(context.Background(), client.Config{Endpoints: []string{n.Address()}}); !errors.Is(err, client.ErrUnauthenticated) {
			t.Errorf("without credentials: %v", err)
		}
	}
}
