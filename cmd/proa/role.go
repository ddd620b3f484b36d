package main

import (
	"fmt"
	"slices"
	"strconv"

	"github.com/spf13/cobra"

	"github.com/proa-kv/proa/access"
	"github.com/proa-kv/proa/command"
	"github.com/proa-kv/proa/internal/render"
)

func roleCommand(a *app) *cobra.Command {
	named := []*cobra.Command{roleShowCommand(a), roleSetCommand(a, "role change", access.Only), roleRemoveCommand(a)}
	for _, c := range named {
		c.ValidArgsFunction = a.completeFirst(roleNames)
	}
	return commandGroup("role", append(named, roleListCommand(a), roleSetCommand(a, "role add", access.Add))...)
}

// roleRow is a role in JSON output.
type roleRow struct {
	Name    string   `json:"name"`
	BuiltIn bool     `json:"builtin"`
	Users   []string `json:"users"` // that have it
	holdings
}

func roleRowOf(l *command.UserList, r *access.Role) roleRow {
	row := roleRow{Name: r.Name, BuiltIn: r.Built, Users: []string{}, holdings: holdingsOf(*r, nil)}
	for _, u := range l.Users {
		if slices.Contains(u.Roles, r.Name) {
			row.Users = append(row.Users, u.Name)
		}
	}
	return row
}

func roleListCommand(a *app) *cobra.Command {
	return newCommand("role list", cobra.NoArgs, func(cmd *cobra.Command, _ []string) error {
		l, err := a.userList(cmd.Context())
		if err != nil {
			return err
		}
		list := a.Results("NAME", "USERS", "RIGHTS", "KEYS")
		for i := range l.Roles {
			row := roleRowOf(l, &l.Roles[i])
			if err := list.Add(&row, row.Name+"\n", row.Name, strconv.Itoa(len(row.Users)), row.clusterText(false), row.keysText()); err != nil {
				return err
			}
		}
		return list.End()
	})
}

func roleShowCommand(a *app) *cobra.Command {
	return newCommand("role show", cobra.ExactArgs(1), func(cmd *cobra.Command, args []string) error {
		l, err := a.userList(cmd.Context())
		if err != nil {
			return err
		}
		i := slices.IndexFunc(l.Roles, func(r access.Role) bool { return r.Name == args[0] })
		if i < 0 {
			return &statusError{exitFailed, fmt.Errorf("there is no role %q; \"proa role list\" shows all", args[0])}
		}
		row := roleRowOf(l, &l.Roles[i])
		if a.Form != render.AsTable {
			return a.ShowForms(&row, row.Name+"\n", "")
		}
		return showRole(a, &row)
	})
}

func showRole(a *app, r *roleRow) error {
	headline := "role " + r.Name
	if r.BuiltIn {
		headline += ", built in"
	}
	users, cluster := some(r.Users), r.clusterText(false)
	for _, text := range []*string{&users, &cluster} {
		if *text == "" {
			*text = noRights
		}
	}
	if err := a.Printf("%s\nusers   %s\nrights  %s\n\n", render.OneLine(headline), render.OneLine(users), cluster); err != nil {
		return err
	}
	if len(r.Keys) == 0 {
		return a.Printf("no keys can be read or written\n")
	}
	t := a.Table("KEYS", "RIGHTS")
	for _, k := range r.Keys {
		t.Row(prefixName(k.Prefix), k.rights())
	}
	return t.Flush()
}

// roleSetCommand adds a role, or changes one, as mode says.
func roleSetCommand(a *app, name string, mode access.Mode) *cobra.Command {
	var f rightsFlags
	exists := mode == access.Only
	cmd := newCommand(name, cobra.ExactArgs(1), func(cmd *cobra.Command, args []string) error {
		e := access.RoleEdit{Name: args[0], Mode: mode}
		if err := access.CheckName("role", e.Name); err != nil {
			return &usageError{sentence(err)}
		}
		var err error
		if e.Grants, err = f.grants(a, exists); err != nil {
			return err
		}
		if e.Rights, err = f.rights(exists); err != nil {
			return err
		}
		if e.Grants == nil && e.Rights == nil {
			return usagef("say what rights it has, such as --read PREFIX or --right monitor")
		}
		return requestChange(cmd.Context(), a, change{verb: command.AdminRoleSet, args: &e})
	})
	f.add(cmd, exists)
	return cmd
}

func roleRemoveCommand(a *app) *cobra.Command {
	return newCommand("role remove", cobra.ExactArgs(1), func(cmd *cobra.Command, args []string) error {
		return requestChange(cmd.Context(), a, change{verb: command.AdminRoleRemove, args: command.NameArgs{Name: args[0]}})
	})
}
