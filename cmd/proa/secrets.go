package main

import (
	"bytes"
	"context"
	"encoding/base32"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"runtime"
	"time"

	"github.com/spf13/cobra"

	"crypto/rand"

	"github.com/proa-kv/proa/access"
	"github.com/proa-kv/proa/command"
	"github.com/proa-kv/proa/config"
	"github.com/proa-kv/proa/raftgroup"
	"github.com/proa-kv/proa/raftgroup/peer"
)

// secretBytesMax bounds the file of any secret.
const secretBytesMax = 4 << 10

// readSecret reads a secret of one line from a file: what names it in errors. open says that
// others than the owner may read the file.
func readSecret(what, path string) (secret string, open bool, err error) {
	f, err := os.Open(path)
	if err != nil {
		return "", false, fmt.Errorf("cannot read the %s: %w", what, err)
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, secretBytesMax+1))
	if err != nil {
		return "", false, fmt.Errorf("cannot read the %s: %w", what, err)
	}
	fi, err := f.Stat()
	if err != nil {
		return "", false, fmt.Errorf("cannot read the %s: %w", what, err)
	}
	b = bytes.TrimSuffix(bytes.TrimSuffix(b, []byte("\n")), []byte("\r"))
	switch {
	case len(b) == 0:
		err = errors.New("the file is empty")
	case len(b) > secretBytesMax:
		err = fmt.Errorf("the file has more than %d bytes", secretBytesMax)
	case bytes.ContainsAny(b, "\n\r\x00"):
		err = errors.New("the file has more than one line")
	}
	if err != nil {
		return "", false, fmt.Errorf("the %s in %s: %w", what, path, err)
	}
	open = fi.Mode().IsRegular() && fi.Mode().Perm()&0o077 != 0 && runtime.GOOS != "windows" // where the mode does not tell
	return string(b), open, nil
}

// serverSecret is readSecret for a server, which warns. No path is no secret.
func serverSecret(what, path string, log *slog.Logger) (string, error) {
	if path == "" {
		return "", nil
	}
	s, open, err := readSecret(what, path)
	if open {
		log.Warn("others than its owner can read a file with a secret; change that with chmod 600", "file", path, "secret", what)
	}
	return s, err
}

// clusterSecret is what all nodes of the cluster have to know, "" if nothing.
func clusterSecret(c *config.Config, log *slog.Logger) (string, error) {
	secret := os.Getenv(config.EnvClusterSecret)
	switch {
	case c.Node.ClusterSecretFile != "" && secret != "":
		return "", fmt.Errorf("both node.cluster_secret_file and %s are set; give one of them", config.EnvClusterSecret)
	case secret == "":
		var err error
		if secret, err = serverSecret("cluster secret", c.Node.ClusterSecretFile, log); err != nil {
			return "", err
		}
	}
	if n := len(secret); n > 0 && n < peer.SecretBytesMin {
		return "", fmt.Errorf("the cluster secret has %d characters, at least %d are required; \"%s cluster secret\" makes one", n, peer.SecretBytesMin, program)
	}
	return secret, nil
}

// clusterCommand is `proa cluster`.
func clusterCommand(a *app) *cobra.Command {
	return commandGroup("cluster", newCommand("cluster secret", cobra.NoArgs, func(*cobra.Command, []string) error {
		b := make([]byte, 32)
		if _, err := rand.Read(b); err != nil {
			return err
		}
		secret := base32.StdEncoding.WithPadding(base32.NoPadding).EncodeToString(b)
		return a.Show(struct {
			Secret string `json:"secret"`
		}{secret}, "%s\n", secret)
	}))
}

// adminPassword is the password of the first administrator, "" if none is given.
func adminPassword(c *config.Config, log *slog.Logger) (string, error) {
	p, err := serverSecret("password of the first administrator", c.Access.AdminPasswordFile, log)
	if err != nil || p == "" {
		return "", err
	}
	if err := access.CheckPassword(p); err != nil {
		return "", fmt.Errorf("%s: %s (access.admin_password_file)", c.Access.AdminPasswordFile, access.Sentence(err))
	}
	return p, nil
}

// Between two attempts to add the first administrator, which fail while the meta group has
// no leader.
const firstAdminEvery = 250 * time.Millisecond

// addFirstAdmin adds the user admin with a password, unless somebody can administer already.
// It tries until ctx ends.
func addFirstAdmin(ctx context.Context, node *raftgroup.Node, password string, log *slog.Logger) {
	args, err := json.Marshal(command.UserArgs{
		UserEdit:  access.UserEdit{Name: "admin", Mode: access.First, NoPasswords: true, Disabled: new(bool), AddRoles: []string{"admin"}},
		Passwords: []string{password},
	})
	for t := time.NewTimer(0); err == nil; t.Reset(firstAdminEvery) {
		select {
		case <-ctx.Done():
			return
		case <-t.C:
		}
		if policy := node.Access(); policy.Administered() {
			return
		}
		_, err := node.Admin(ctx, command.AdminUserSet, args)
		switch {
		case err == nil:
			log.Info("the first administrator was added", "user", "admin")
			return
		case errors.Is(err, command.ErrRefused):
			log.Debug("the first administrator was not added", "error", err)
			return
		case errors.Is(err, command.ErrInvalid):
			log.Error("cannot add the first administrator", "error", err)
			return
		}
	}
}
