package raftgroup

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/proa-kv/proa/access"
	"github.com/proa-kv/proa/command"
	"github.com/proa-kv/proa/raftgroup/placement"
)

// Access returns the users and what they may do, as this node knows them at the moment: it
// changes with the rows of the meta group, of which each node has a replica. nil before the
// first.
func (ms *members) Access() *access.Policy { return ms.policy.Load() }

// hashPasswords replaces the passwords in the arguments of a user.set by their hashes.
func (ad *admin) hashPasswords(args []byte) ([]byte, error) {
	var a command.UserArgs
	if err := parseArgs(args, &a); err != nil {
		return nil, err
	}
	if len(a.Passwords) > access.PasswordsMax || len(a.DropPasswords) > access.PasswordsMax {
		return nil, fmt.Errorf("%w: a user has at most %d passwords", command.ErrInvalid, access.PasswordsMax)
	}
	if len(a.Hashes) > 0 || len(a.DropHashes) > 0 {
		return nil, fmt.Errorf("%w: passwords are given as they are, and hashed by the server", command.ErrInvalid)
	}
	u := access.User{}
	if m := ad.node.cmap.Load(); m.Begun() {
		u, _ = m.Access.User(a.Name)
	}
	for _, p := range a.Passwords {
		if err := access.CheckPassword(p); err != nil {
			return nil, accessError(err)
		}
		a.Hashes = append(a.Hashes, access.Hash(p))
	}
	for _, p := range a.DropPasswords {
		h, ok := u.HashOf(p)
		if !ok {
			return nil, fmt.Errorf("%w: the user %q does not have this password", command.ErrInvalid, a.Name)
		}
		a.DropHashes = append(a.DropHashes, h)
	}
	a.Passwords, a.DropPasswords = nil, nil
	return json.Marshal(a.UserEdit)
}

// accessError is an error of package access as one of an administrative request.
func accessError(err error) error {
	for from, to := range map[error]error{access.ErrInvalid: command.ErrInvalid, access.ErrRefused: command.ErrRefused} {
		if errors.Is(err, from) {
			return fmt.Errorf("%w: %s", to, access.Sentence(err))
		}
	}
	return err
}

// adminAccess carries out a request about users or roles.
func (ad *admin) adminAccess(ctx context.Context, verb string, args []byte) (any, error) {
	var edit func(d *access.Directory) (c access.Change, done string, err error)
	switch verb {
	case command.AdminUserList:
		return ad.userList()
	case command.AdminUserSet:
		var e access.UserEdit
		if err := parseArgs(args, &e); err != nil {
			return nil, err
		}
		edit = func(d *access.Directory) (access.Change, string, error) {
			_, found := d.User(e.Name)
			c, err := d.EditUser(&e)
			return c, addedOrChanged("user", e.Name, found), err
		}
	case command.AdminRoleSet:
		var e access.RoleEdit
		if err := parseArgs(args, &e); err != nil {
			return nil, err
		}
		edit = func(d *access.Directory) (access.Change, string, error) {
			_, found := d.Role(e.Name)
			c, err := d.EditRole(&e)
			return c, addedOrChanged("role", e.Name, found), err
		}
	default:
		var a command.NameArgs
		if err := parseArgs(args, &a); err != nil {
			return nil, err
		}
		edit = func(*access.Directory) (access.Change, string, error) {
			if verb == command.AdminUserRemove {
				return access.Change{RemoveUser: a.Name}, fmt.Sprintf("user %s removed; its connections are closed", a.Name), access.CheckName("user", a.Name)
			}
			return access.Change{RemoveRole: a.Name}, fmt.Sprintf("role %s removed", a.Name), access.CheckName("role", a.Name)
		}
	}
	message := ""
	err := ad.node.changeRows(ctx, func(m *placement.Map) ([]placement.Change, error) {
		c, done, err := edit(&m.Access)
		if err != nil {
			return nil, accessError(err)
		}
		message = done
		rows, err := placement.ChangeAccess(m, c)
		return rows, accessError(err)
	})
	if err != nil {
		return nil, err
	}
	return command.Done{Message: message}, nil
}

func addedOrChanged(kind, name string, found bool) string {
	if found {
		return fmt.Sprintf("%s %s changed", kind, name)
	}
	return fmt.Sprintf("%s %s added", kind, name)
}

func (ad *admin) userList() (any, error) {
	m := ad.node.cmap.Load()
	if !m.Begun() {
		return nil, errNotBegun
	}
	list := command.UserList{Users: []command.UserInfo{}, Roles: slices.Concat(access.BuiltIn, m.Access.Roles)}
	policy := m.Access.Policy()
	for _, u := range m.Access.Users {
		var permit *access.Permit
		if a := policy.Account(u.Name); a != nil {
			permit = a.Permit
		}
		list.Users = append(list.Users, command.InfoOf(u, permit))
	}
	slices.SortFunc(list.Roles, func(a, b access.Role) int { return strings.Compare(a.Name, b.Name) })
	return list, nil
}
