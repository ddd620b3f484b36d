package access

import (
	"fmt"
	"slices"
	"strings"
)

// Change is one change of a Directory. One of its fields is set.
type Change struct {
	User       *User // is added, or replaces the one of that name
	Role       *Role
	RemoveUser string
	RemoveRole string
}

// With returns d with a change, or why the change cannot be made. d stays as it is.
func (d *Directory) With(c Change) (*Directory, error) {
	n := &Directory{slices.Clone(d.Users), slices.Clone(d.Roles)}
	var err error
	switch {
	case c.User != nil:
		err = n.putUser(c.User)
	case c.Role != nil:
		err = n.putRole(c.Role)
	case c.RemoveUser != "":
		err = n.removeUser(c.RemoveUser)
	case c.RemoveRole != "":
		err = n.removeRole(c.RemoveRole)
	}
	if err != nil {
		return nil, err
	}
	if d.administrators() > 0 && n.administrators() == 0 {
		return nil, fmt.Errorf("%w: nobody would be left who can log in and has the right admin; make another user an administrator first", ErrRefused)
	}
	return n, nil
}

// administrators counts the users that can log in and administer.
func (d *Directory) administrators() (n int) {
	for i := range d.Users {
		u := &d.Users[i]
		if !u.Disabled && (len(u.Passwords) > 0 || u.Certificate) && d.permit(u).Can(Admin) {
			n++
		}
	}
	return n
}

// Administered reports whether somebody can log in and administer.
func (d *Directory) Administered() bool { return d.administrators() > 0 }

func (d *Directory) putUser(u *User) error {
	if err := u.Check(); err != nil {
		return err
	}
	for _, name := range u.Roles {
		if _, ok := d.Role(name); !ok {
			return fmt.Errorf("%w: there is no role %s; the roles are: %s", ErrRefused, name, d.roleNames())
		}
	}
	i, found := slices.BinarySearchFunc(d.Users, u.Name, func(u User, name string) int { return strings.Compare(u.Name, name) })
	switch {
	case found:
		d.Users[i] = *u
	case len(d.Users) >= UsersMax:
		return fmt.Errorf("%w: there are %d users, which is as many as there can be; remove one first", ErrRefused, len(d.Users))
	default:
		d.Users = slices.Insert(d.Users, i, *u)
	}
	return nil
}

func (d *Directory) roleNames() string {
	var names []string
	for _, r := range slices.Concat(BuiltIn, d.Roles) {
		names = append(names, r.Name)
	}
	slices.Sort(names)
	const shown = 20
	if n := len(names); n > shown {
		return strings.Join(names[:shown], ", ") + fmt.Sprintf(" and %d more", n-shown)
	}
	return strings.Join(names, ", ")
}

func (d *Directory) putRole(r *Role) error {
	if err := r.Check(); err != nil {
		return err
	}
	i, found := slices.BinarySearchFunc(d.Roles, r.Name, func(r Role, name string) int { return strings.Compare(r.Name, name) })
	switch {
	case found:
		d.Roles[i] = *r
	case len(d.Roles) >= RolesMax:
		return fmt.Errorf("%w: there are %d roles, which is as many as there can be; remove one first", ErrRefused, len(d.Roles))
	default:
		d.Roles = slices.Insert(d.Roles, i, *r)
	}
	return nil
}

func (d *Directory) removeUser(name string) error {
	n := len(d.Users)
	if d.Users = slices.DeleteFunc(d.Users, func(u User) bool { return u.Name == name }); len(d.Users) == n {
		return NoUser(name)
	}
	return nil
}

// NoUser is the error where there is no user of that name.
func NoUser(name string) error {
	return fmt.Errorf("%w: there is no user %q; \"proa user list\" shows all", ErrRefused, name)
}

func (d *Directory) removeRole(name string) error {
	if _, is := builtIn(name); is {
		return fmt.Errorf("%w: the role %s is built in and cannot be removed", ErrRefused, name)
	}
	var users []string
	for _, u := range d.Users {
		if slices.Contains(u.Roles, name) {
			users = append(users, u.Name)
		}
	}
	if len(users) > 0 {
		return fmt.Errorf("%w: the role %s is that of %s; take it from them first", ErrRefused, name, strings.Join(users, ", "))
	}
	n := len(d.Roles)
	if d.Roles = slices.DeleteFunc(d.Roles, func(r Role) bool { return r.Name == name }); len(d.Roles) == n {
		return fmt.Errorf("%w: there is no role %q; \"proa role list\" shows all", ErrRefused, name)
	}
	return nil
}
