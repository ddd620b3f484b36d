package access

import (
	"bytes"
	"fmt"
	"slices"
)

// Mode says whether what is edited must be there.
type Mode string

const (
	// AddOrChange edits what is there, or adds it.
	AddOrChange Mode = ""
	// Add refuses what is there already.
	Add Mode = "add"
	// Only edits what is there.
	Only Mode = "change"
	// First adds the first administrator: it is refused where somebody can administer.
	First Mode = "first"
)

// UserEdit says what an administrator wants to change of a user. What it does not name stays
// as it is. It is carried out in the order of the fields.
type UserEdit struct {
	Name string `json:"name"`
	Mode Mode   `json:"mode,omitempty"`

	Reset       bool      `json:"reset,omitempty"`        // the user has nothing at first
	NoPasswords bool      `json:"no_passwords,omitempty"` // all are removed
	DropHashes  []string  `json:"drop_hashes,omitempty"`  // passwords to remove
	Hashes      []string  `json:"hashes,omitempty"`       // passwords to add
	Newest      bool      `json:"newest,omitempty"`       // of all passwords only the last stays
	Certificate *bool     `json:"certificate,omitempty"`
	Disabled    *bool     `json:"disabled,omitempty"`
	Roles       *[]string `json:"roles,omitempty"` // instead of all there are
	AddRoles    []string  `json:"add_roles,omitempty"`
	DropRoles   []string  `json:"drop_roles,omitempty"`
	NoGrants    bool      `json:"no_grants,omitempty"` // all are removed
	Grants      []Grant   `json:"grants,omitempty"`    // what holds for these prefixes from now on; no rights: they are removed
	Rights      *Rights   `json:"rights,omitempty"`
}

// RoleEdit is what UserEdit is, of a role.
type RoleEdit struct {
	Name string `json:"name"`
	Mode Mode   `json:"mode,omitempty"`

	NoGrants bool    `json:"no_grants,omitempty"`
	Grants   []Grant `json:"grants,omitempty"`
	Rights   *Rights `json:"rights,omitempty"`
}

func (m Mode) check(kind, name string, found bool) error {
	switch {
	case m == Add && found:
		return fmt.Errorf("%w: there is a %s %s already; change it with: proa %s change %s", ErrRefused, kind, name, kind, name)
	case m == Only && !found && kind == "user":
		return NoUser(name)
	case m == Only && !found:
		return fmt.Errorf("%w: there is no %s %q; \"proa %s list\" shows all", ErrRefused, kind, name, kind)
	case m != AddOrChange && m != Add && m != Only && m != First:
		return fmt.Errorf("%w: there is no mode %q", ErrInvalid, m)
	}
	return nil
}

// EditUser returns the change that carries an edit out.
func (d *Directory) EditUser(e *UserEdit) (Change, error) {
	u, found := d.User(e.Name)
	if err := CheckName("user", e.Name); err != nil {
		return Change{}, err
	}
	if err := e.Mode.check("user", e.Name, found); err != nil {
		return Change{}, err
	}
	if e.Mode == First && d.Administered() {
		return Change{}, fmt.Errorf("%w: there is an administrator already", ErrRefused)
	}
	if e.Reset {
		u = User{}
	}
	u.Name = e.Name
	u.Passwords, u.Roles = slices.Clone(u.Passwords), slices.Clone(u.Roles)
	if e.NoPasswords {
		u.Passwords = nil
	}
	for _, h := range e.DropHashes {
		u.Passwords = slices.DeleteFunc(u.Passwords, func(x string) bool { return x == h })
	}
	u.Passwords = append(u.Passwords, e.Hashes...)
	if n := len(u.Passwords); e.Newest && n > 0 {
		u.Passwords = u.Passwords[n-1:]
	}
	if n := len(u.Passwords); n > PasswordsMax {
		return Change{}, fmt.Errorf("%w: the user would have %d passwords; at most %d are allowed: end the change-over first with: proa user passwd %s --drop-old", ErrRefused, n, PasswordsMax, e.Name)
	}
	set(&u.Certificate, e.Certificate)
	set(&u.Disabled, e.Disabled)
	set(&u.Roles, e.Roles)
	for _, role := range e.DropRoles {
		if !slices.Contains(u.Roles, role) {
			return Change{}, fmt.Errorf("%w: the user %s does not have the role %q", ErrRefused, e.Name, role)
		}
		u.Roles = slices.DeleteFunc(u.Roles, func(r string) bool { return r == role })
	}
	u.Roles = append(u.Roles, e.AddRoles...)
	u.Grants = editGrants(u.Grants, e.NoGrants, e.Grants)
	set(&u.Rights, e.Rights)
	return Change{User: &u}, nil
}

// EditRole returns the change that carries an edit out.
func (d *Directory) EditRole(e *RoleEdit) (Change, error) {
	r, found := d.Role(e.Name)
	if err := e.Mode.check("role", e.Name, found); err != nil {
		return Change{}, err
	}
	r.Name = e.Name
	r.Grants = editGrants(r.Grants, e.NoGrants, e.Grants)
	set(&r.Rights, e.Rights)
	return Change{Role: &r}, nil
}

func set[T any](to *T, from *T) {
	if from != nil {
		*to = *from
	}
}

// editGrants returns grants with edits. Each has memory of its own.
func editGrants(grants []Grant, none bool, edits []Grant) (edited []Grant) {
	if !none {
		for _, g := range grants {
			if !slices.ContainsFunc(edits, func(e Grant) bool { return bytes.Equal(e.Prefix, g.Prefix) }) {
				edited = append(edited, g.clone())
			}
		}
	}
	for _, e := range edits {
		if e.Rights != 0 {
			edited = append(edited, e.clone())
		}
	}
	return edited
}
