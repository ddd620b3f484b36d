package main

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/proa-kv/proa/access"
	"github.com/proa-kv/proa/command"
	"github.com/proa-kv/proa/internal/render"
)

func userCommand(a *app) *cobra.Command {
	switches := []*cobra.Command{userSwitchCommand(a, "user disable", true), userSwitchCommand(a, "user enable", false)}
	named := append(switches, userShowCommand(a), userChangeCommand(a), userPasswdCommand(a), userRemoveCommand(a))
	for _, c := range named {
		c.ValidArgsFunction = a.completeFirst(userNames)
	}
	return commandGroup("user", append(named, userAddCommand(a), userListCommand(a), userWhoAmICommand(a))...)
}

// userList asks for all users and roles.
func (a *app) userList(ctx context.Context) (*command.UserList, error) {
	l := new(command.UserList)
	return l, a.administer(ctx, command.AdminUserList, nil, l)
}

func findUser(l *command.UserList, name string) (*command.UserInfo, error) {
	i := slices.IndexFunc(l.Users, func(u command.UserInfo) bool { return u.Name == name })
	if i < 0 {
		return nil, &statusError{exitFailed, fmt.Errorf("there is no user %q; \"proa user list\" shows all", name)}
	}
	return &l.Users[i], nil
}

// setUser edits a user and returns what was done.
func (a *app) setUser(ctx context.Context, args *command.UserArgs) (*command.Done, error) {
	d := new(command.Done)
	return d, a.administer(ctx, command.AdminUserSet, args, d)
}

// userRow is a user in JSON output.
type userRow struct {
	Name        string   `json:"name"`
	Disabled    bool     `json:"disabled"`
	Passwords   int      `json:"passwords"`
	Certificate bool     `json:"certificate"`
	Roles       []string `json:"roles"`
	holdings
}

// userRowOf describes a user who has roles.
func userRowOf(u *command.UserInfo, roles []access.Role) userRow {
	own := access.Role{Grants: u.Grants, Rights: u.Rights}
	return userRow{
		Name: u.Name, Disabled: u.Disabled, Passwords: u.Passwords, Certificate: u.Certificate,
		Roles: append([]string{}, u.Roles...), holdings: holdingsOf(own, roles),
	}
}

// login says how the user can log in.
func (r *userRow) login() string {
	var ways []string
	switch r.Passwords {
	case 0:
	case 1:
		ways = append(ways, "password")
	default:
		ways = append(ways, fmt.Sprintf("%d passwords", r.Passwords))
	}
	if r.Certificate {
		ways = append(ways, "certificate")
	}
	switch {
	case r.Disabled:
		return "disabled"
	case ways == nil:
		return noRights
	}
	return strings.Join(ways, ", ")
}

func userListCommand(a *app) *cobra.Command {
	return newCommand("user list", cobra.NoArgs, func(cmd *cobra.Command, _ []string) error {
		l, err := a.userList(cmd.Context())
		if err != nil {
			return err
		}
		list := a.Results("NAME", "LOGIN", "ROLES", "RIGHTS", "KEYS")
		for i := range l.Users {
			row := userRowOf(&l.Users[i], rolesNamed(l, l.Users[i].Roles))
			if err := list.Add(&row, row.Name+"\n", row.Name, row.login(), strings.Join(row.Roles, ", "), row.clusterText(false), row.keysText()); err != nil {
				return err
			}
		}
		return list.End()
	})
}

func userShowCommand(a *app) *cobra.Command {
	return newCommand("user show", cobra.ExactArgs(1), func(cmd *cobra.Command, args []string) error {
		l, err := a.userList(cmd.Context())
		if err != nil {
			return err
		}
		u, err := findUser(l, args[0])
		if err != nil {
			return err
		}
		row := userRowOf(u, rolesNamed(l, u.Roles))
		return showUser(a, &row, &row, "user "+row.Name)
	})
}

// showUser shows a user below a headline; v is its JSON.
func showUser(a *app, r *userRow, v any, headline string) error {
	if a.Form != render.AsTable {
		return a.ShowForms(v, r.Name+"\n", "")
	}
	roles, cluster := strings.Join(r.Roles, ", "), r.clusterText(true)
	for _, text := range []*string{&roles, &cluster} {
		if *text == "" {
			*text = noRights
		}
	}
	if err := a.Printf("%s\nlogin   %s\nroles   %s\nrights  %s\n\n", render.OneLine(headline), r.login(), render.OneLine(roles), render.OneLine(cluster)); err != nil {
		return err
	}
	if len(r.Keys) == 0 {
		return a.Printf("no keys can be read or written\n")
	}
	return r.showKeys(&a.Output)
}

func userAddCommand(a *app) *cobra.Command {
	var f rightsFlags
	var p passwordFlags
	var roles []string
	var certificate, noPassword bool
	cmd := newCommand("user add", cobra.ExactArgs(1), func(cmd *cobra.Command, args []string) error {
		e := command.UserArgs{UserEdit: access.UserEdit{Name: args[0], Mode: access.Add, AddRoles: roles}}
		if err := access.CheckName("user", e.Name); err != nil {
			return &usageError{sentence(err)}
		}
		var err error
		if e.Grants, err = f.grants(a, false); err != nil {
			return err
		}
		if e.Rights, err = f.rights(false); err != nil {
			return err
		}
		if certificate {
			e.Certificate = &certificate
		}
		if noPassword && (p.generate || p.file != "") {
			return usagef("--no-password, --generate and --new-password-file cannot be used together")
		}
		if !noPassword {
			password, err := p.password(cmd.Context(), a, e.Name, "; --no-password adds a user without one")
			if err != nil {
				return err
			}
			e.Passwords = []string{password}
		}
		done, err := a.setUser(cmd.Context(), &e)
		if err != nil {
			return err
		}
		if err := p.show(a, done.Message, e.Passwords); err != nil {
			return err
		}
		switch {
		case noPassword && !certificate:
			a.Note("user %s cannot log in yet: give it a password (proa user passwd %[1]s) or accept its certificates (proa user change %[1]s --certificate)", e.Name)
		case roles == nil && e.Grants == nil && e.Rights == nil:
			a.Note("user %s may do nothing yet: give it a role (proa user change %[1]s --add-role ROLE) or rights on keys (--read PREFIX, --read-write PREFIX)", e.Name)
		}
		return nil
	})
	set := cmd.Flags()
	set.StringSliceVar(&roles, "role", nil, "`role` that it has, see proa role list")
	f.add(cmd, false)
	set.BoolVar(&certificate, "certificate", false, "let it log in by a client certificate with its name")
	p.add(set)
	set.BoolVar(&noPassword, "no-password", false, "it gets no password")
	a.completeFlagFrom(cmd, "role", roleNames)
	return cmd
}

func userChangeCommand(a *app) *cobra.Command {
	var f rightsFlags
	var addRoles, removeRoles []string
	var certificate bool
	cmd := newCommand("user change", cobra.ExactArgs(1), func(cmd *cobra.Command, args []string) error {
		e := command.UserArgs{UserEdit: access.UserEdit{Name: args[0], Mode: access.Only, AddRoles: addRoles, DropRoles: removeRoles}}
		var err error
		if e.Grants, err = f.grants(a, true); err != nil {
			return err
		}
		if e.Rights, err = f.rights(true); err != nil {
			return err
		}
		if cmd.Flags().Changed("certificate") {
			e.Certificate = &certificate
		}
		for _, role := range addRoles {
			if slices.Contains(removeRoles, role) {
				return usagef("--add-role and --remove-role name the same role: %s", role)
			}
		}
		if addRoles == nil && removeRoles == nil && e.Grants == nil && e.Rights == nil && e.Certificate == nil {
			return usagef("say what to change, such as --add-role ROLE or --read PREFIX")
		}
		done, err := a.setUser(cmd.Context(), &e)
		if err != nil {
			return err
		}
		return showDone(a, done)
	})
	set := cmd.Flags()
	set.StringSliceVar(&addRoles, "add-role", nil, "`role` that it gets")
	set.StringSliceVar(&removeRoles, "remove-role", nil, "`role` that it loses")
	f.add(cmd, true)
	set.BoolVar(&certificate, "certificate", false, "let it log in by a client certificate with its name; --certificate=false ends that")
	a.completeFlagFrom(cmd, "add-role", roleNames)
	a.completeFlagFrom(cmd, "remove-role", roleNames)
	return cmd
}

// userSwitchCommand disables or enables a user.
func userSwitchCommand(a *app, name string, disabled bool) *cobra.Command {
	return newCommand(name, cobra.ExactArgs(1), func(cmd *cobra.Command, args []string) error {
		_, err := a.setUser(cmd.Context(), &command.UserArgs{UserEdit: access.UserEdit{Name: args[0], Mode: access.Only, Disabled: &disabled}})
		if err != nil {
			return err
		}
		message := "user %s can log in again"
		if disabled {
			message = "user %s is disabled; its connections are closed"
		}
		return showDone(a, &command.Done{Message: fmt.Sprintf(message, args[0])})
	})
}

func userRemoveCommand(a *app) *cobra.Command {
	return newCommand("user remove", cobra.ExactArgs(1), func(cmd *cobra.Command, args []string) error {
		return requestChange(cmd.Context(), a, change{verb: command.AdminUserRemove, args: command.NameArgs{Name: args[0]}})
	})
}

// identity asks who the server takes this program for.
func (a *app) identity(ctx context.Context) (*command.Identity, error) {
	id := new(command.Identity)
	return id, a.administer(ctx, command.AdminUserSelf, nil, id)
}

// logins say how somebody has proven to be a user.
var logins = map[string]string{access.ByPassword: "logged in by password", "certificate": "logged in by a client certificate"}

func userWhoAmICommand(a *app) *cobra.Command {
	return newCommand("user whoami", cobra.NoArgs, func(cmd *cobra.Command, _ []string) error {
		id, err := a.identity(cmd.Context())
		if err != nil {
			return err
		}
		if id.User != nil {
			row := userRowOf(id.User, id.Granted)
			return showUser(a, &row, struct {
				Login string `json:"login"`
				*userRow
			}{id.Login, &row}, "user "+row.Name+", "+logins[id.Login])
		}
		text := "no user; nothing may be done without one\n"
		switch {
		case id.Login == "local":
			text = "the operator on the server's machine, who needs no user and may do everything\n"
		case id.Everything:
			text = "no user; this server lets everybody do everything (access.authentication is off)\n"
		}
		return a.ShowForms(struct {
			Login      string `json:"login"`
			Everything bool   `json:"everything"`
		}{id.Login, id.Everything}, "", text)
	})
}

// userNames and roleNames are what completion offers.
func userNames(l *command.UserList) (names []string) {
	for _, u := range l.Users {
		names = append(names, u.Name)
	}
	return names
}

func roleNames(l *command.UserList) (names []string) {
	for _, r := range l.Roles {
		names = append(names, r.Name)
	}
	return names
}

// offered returns names of users or roles that the cluster has, none if it does not answer.
func (a *app) offered(names func(*command.UserList) []string) []string {
	ctx, cancel := context.WithTimeout(context.Background(), completionTimeout)
	defer cancel()
	a.timeout = completionTimeout
	l, err := a.userList(ctx)
	if err != nil {
		return nil
	}
	return names(l)
}

// completeFirst has command shells complete the first argument with names.
func (a *app) completeFirst(names func(*command.UserList) []string) cobra.CompletionFunc {
	return func(_ *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
		if len(args) > 0 {
			return nil, cobra.ShellCompDirectiveNoFileComp
		}
		return a.offered(names), cobra.ShellCompDirectiveNoFileComp
	}
}

// completeFlagFrom has command shells complete the value of a flag with names.
func (a *app) completeFlagFrom(cmd *cobra.Command, flag string, names func(*command.UserList) []string) {
	_ = cmd.RegisterFlagCompletionFunc(flag, func(*cobra.Command, []string, string) ([]string, cobra.ShellCompDirective) {
		return a.offered(names), cobra.ShellCompDirectiveNoFileComp
	})
}
