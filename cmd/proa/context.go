package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"

	"github.com/spf13/cobra"

	"github.com/proa-kv/proa/client"
	"github.com/proa-kv/proa/config"
	"github.com/proa-kv/proa/internal/contexts"
	"github.com/proa-kv/proa/internal/render"
)

func contextCommand(a *app) *cobra.Command {
	commands := []*cobra.Command{contextUseCommand(a), contextShowCommand(a), contextRemoveCommand(a)}
	for _, c := range commands {
		c.ValidArgsFunction = completeContextName
	}
	return commandGroup("context", append(commands, contextAddCommand(a), contextListCommand(a))...)
}

func contextAddCommand(a *app) *cobra.Command {
	var replace, use bool
	cmd := newCommand("context add", cobra.MinimumNArgs(1), func(cmd *cobra.Command, args []string) error {
		if err := contexts.CheckName(args[0]); err != nil {
			return &usageError{err}
		}
		t := &target{source: byFlag, endpoints: a.endpoints}
		for _, word := range args[1:] {
			t.endpoints = append(t.endpoints, strings.Split(word, ",")...)
		}
		if e := os.Getenv(config.EnvEndpoints); t.endpoints == nil && e != "" {
			t.endpoints = strings.Split(e, ",")
		}
		if t.endpoints == nil {
			return usagef("the endpoints of the cluster are missing, such as n1:7400 n2:7400 n3:7400")
		}
		if err := checkEndpoints("ENDPOINT", t.endpoints); err != nil {
			return err
		}
		return addContext(cmd.Context(), a, args[0], t, replace, use)
	})
	cmd.Flags().BoolVar(&replace, "replace", false, "replace the context if it exists, with the cluster that answers now")
	cmd.Flags().BoolVar(&use, "use", false, "make it the current context")
	return cmd
}

func addContext(ctx context.Context, a *app, name string, t *target, replace, use bool) error {
	set, err := loadContexts()
	if err != nil {
		return err
	}
	before, exists := set.Contexts[name]
	taken := func() error {
		return &statusError{exitFailed, fmt.Errorf("context %s exists: %s; --replace replaces it", name, strings.Join(before.Endpoints, ","))}
	}
	if exists && !replace {
		return taken()
	}
	if t.security, err = kept(before.Security, a.given); err != nil {
		return err
	}
	t.source, t.context, a.link.target = byContext, name, t
	added := contexts.Context{Endpoints: t.endpoints, Security: t.security}
	if added.Cluster, err = reachCluster(ctx, a); err != nil {
		return err
	}
	err = updateContexts(func(s *contexts.Set) error {
		if before, exists = s.Contexts[name]; exists && !replace {
			return taken()
		}
		added.Cluster = cmp.Or(added.Cluster, before.Cluster)
		if len(s.Contexts) == 0 || use {
			s.Current = name
		}
		s.Contexts[name] = added
		use = s.Current == name
		return nil
	})
	if err != nil {
		return err
	}
	if before.Cluster != 0 && before.Cluster != added.Cluster {
		a.Note("context %s was of cluster %v", name, before.Cluster)
	}
	return showContext(a, contextRowOf(name, added, use))
}

// reachCluster returns the id of the cluster that answers now, 0 if none does. It notes
// why, if that is for the user to change.
func reachCluster(ctx context.Context, a *app) (contexts.ClusterID, error) {
	cfg, err := a.clientConfig(ctx)
	if errors.Is(err, errNoPassword) {
		a.Note("the cluster was not asked who it is: %v", err)
		return 0, nil
	}
	if err != nil {
		return 0, err
	}
	ctx, cancel := context.WithTimeout(ctx, a.timeout)
	defer cancel()
	c, err := client.New(ctx, cfg)
	switch {
	case err == nil:
		info, _ := c.Server()
		return contexts.ClusterID(info.Cluster), c.Close()
	case isAny(err, client.ErrUnauthenticated, client.ErrTLS):
		a.Note("the cluster was not asked who it is: %s", strings.TrimPrefix(describe(err, a), "proa: "))
	case asClientError(err) == nil: // an endpoint is not one
		return 0, &usageError{err}
	case !errors.Is(err, client.ErrUnavailable) && !errors.Is(err, context.DeadlineExceeded):
		return 0, err
	}
	return 0, nil
}

func contextUseCommand(a *app) *cobra.Command {
	return newCommand("context use", cobra.ExactArgs(1), func(_ *cobra.Command, args []string) error {
		var row contextRow
		err := updateContext(args[0], func(s *contexts.Set, c contexts.Context) {
			s.Current = args[0]
			row = contextRowOf(args[0], c, true)
		})
		if err != nil {
			return err
		}
		for _, variable := range []string{config.EnvEndpoints, config.EnvContext} {
			if os.Getenv(variable) != "" {
				a.Note("%s is set and has priority over the current context", variable)
			}
		}
		return showContext(a, row)
	})
}

func contextListCommand(a *app) *cobra.Command {
	return newCommand("context list", cobra.NoArgs, func(*cobra.Command, []string) error {
		s, err := loadContexts()
		if err != nil {
			return err
		}
		list := a.Results("CURRENT", "NAME", "CLUSTER", "ENDPOINTS", "USER", "TLS")
		for _, name := range s.Names() {
			row, mark := contextRowOf(name, s.Contexts[name], name == s.Current), ""
			if row.Current {
				mark = "*"
			}
			if err := list.Add(row, name+"\n", mark, name, row.clusterText(), strings.Join(row.Endpoints, ","), cmp.Or(row.User, "-"), row.tlsText()); err != nil {
				return err
			}
		}
		return list.End()
	})
}

func contextShowCommand(a *app) *cobra.Command {
	return newCommand("context show", cobra.MaximumNArgs(1), func(_ *cobra.Command, args []string) error {
		s, err := loadContexts()
		if err != nil {
			return err
		}
		name := cmp.Or(a.context, os.Getenv(config.EnvContext), s.Current)
		if len(args) == 1 {
			name = args[0]
		}
		if name == "" {
			return &statusError{exitFailed, errors.New("there is no current context; proa context use NAME chooses one, proa context list lists them")}
		}
		c, ok := s.Contexts[name]
		if !ok {
			return &statusError{exitFailed, noContext(name, s)}
		}
		return showContext(a, contextRowOf(name, c, name == s.Current))
	})
}

func contextRemoveCommand(a *app) *cobra.Command {
	return newCommand("context remove", cobra.ExactArgs(1), func(_ *cobra.Command, args []string) error {
		wasCurrent := false
		err := updateContext(args[0], func(s *contexts.Set, _ contexts.Context) {
			delete(s.Contexts, args[0])
			if wasCurrent = s.Current == args[0]; wasCurrent {
				s.Current = ""
			}
		})
		if err != nil {
			return err
		}
		if wasCurrent {
			a.Note("there is no current context now; proa context use NAME chooses one")
		}
		return a.Show(map[string]string{"removed": args[0]}, "removed context %s\n", args[0])
	})
}

// contextRow is a context in JSON output.
type contextRow struct {
	Name      string             `json:"name"`
	Current   bool               `json:"current"`
	Cluster   contexts.ClusterID `json:"cluster,omitzero"`
	Endpoints []string           `json:"endpoints"`
	contexts.Security
}

func contextRowOf(name string, c contexts.Context, current bool) contextRow {
	return contextRow{Name: name, Current: current, Cluster: c.Cluster, Endpoints: c.Endpoints, Security: c.Security}
}

func (r *contextRow) tlsText() string {
	if r.TLS == nil {
		return "off"
	}
	return "on"
}

func (r *contextRow) clusterText() string {
	if r.Cluster == 0 {
		return "not known yet"
	}
	return r.Cluster.String()
}

func showContext(a *app, r contextRow) error {
	current, cluster := "", "cluster "+r.Cluster.String()
	if r.Current {
		current = ", the current one"
	}
	if r.Cluster == 0 {
		cluster = "cluster not known yet: stored at the first connection"
	}
	lines := []string{"context " + r.Name + current, "endpoints " + strings.Join(r.Endpoints, ","), cluster}
	add := func(what, value string) {
		if value != "" {
			lines = append(lines, what+" "+value)
		}
	}
	add("user", r.User)
	add("password file", r.PasswordFile)
	if t := r.TLS; t != nil {
		add("TLS, authorities", cmp.Or(t.CA, "of the system"))
		add("TLS, certificate", t.Cert)
		add("TLS, key", t.Key)
		add("TLS, server name", t.ServerName)
	}
	for i, line := range lines {
		lines[i] = render.OneLine(line)
	}
	return a.ShowForms(r, r.Name+"\n", strings.Join(lines, "\n")+"\n")
}

// updateContexts changes the user's contexts.
func updateContexts(change func(*contexts.Set) error) error {
	path, err := contexts.Path()
	if err != nil {
		return notDonef("there is no place for contexts: %w", err)
	}
	err = contexts.Update(path, change)
	if _, unread := errors.AsType[*fs.PathError](err); unread || errors.Is(err, contexts.ErrDamaged) {
		return notDonef("%w", err)
	}
	return err
}

// updateContext changes the contexts where there is one of a name.
func updateContext(name string, change func(*contexts.Set, contexts.Context)) error {
	return updateContexts(func(s *contexts.Set) error {
		c, ok := s.Contexts[name]
		if !ok {
			return &statusError{exitFailed, noContext(name, s)}
		}
		change(s, c)
		return nil
	})
}

func completeContexts(_ *cobra.Command, _ []string, _ string) ([]string, cobra.ShellCompDirective) {
	s, err := loadContexts()
	if err != nil {
		return nil, cobra.ShellCompDirectiveError
	}
	return s.Names(), cobra.ShellCompDirectiveNoFileComp
}

func completeContextName(cmd *cobra.Command, args []string, typed string) ([]string, cobra.ShellCompDirective) {
	if len(args) > 0 {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	return completeContexts(cmd, args, typed)
}
