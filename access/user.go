package access

import (
	"errors"
	"fmt"
	"slices"
	"strings"
)

// Limits of what is stored.
const (
	// NameBytesMax bounds the names of users and roles.
	NameBytesMax = 64
	// PasswordBytesMin and PasswordBytesMax bound passwords. The protocol has no room for
	// longer ones.
	PasswordBytesMin, PasswordBytesMax = 8, 256
	// PasswordsMax is how many passwords a user may have: a second one, so that the
	// services that use it can change over one after the other.
	PasswordsMax = 2
	// PrefixBytesMax is the longest key there is.
	PrefixBytesMax = 8 << 10
	// GrantsMax bounds the grants of one role, and RolesOfUserMax the roles of one user.
	GrantsMax, RolesOfUserMax = 256, 64
	// UsersMax and RolesMax bound what a cluster has of them: each node reads all of them
	// whenever the map of the cluster changes.
	UsersMax, RolesMax = 1000, 1000
)

// Rights is a set of rights.
type Rights uint8

const (
	// Read and Write hold for keys.
	Read Rights = 1 << iota
	Write
	// Monitor is to see how nodes and the cluster are: STATUS, metrics. Admin is to change
	// them: all administrative requests, users, profiles. Admin includes Monitor, and gives no
	// access to any key.
	Monitor
	Admin

	// ReadWrite is to read and write.
	ReadWrite = Read | Write
)

var rightNames = [...]string{"read", "write", "monitor", "admin"}

// String returns the names of r, with commas between them; "none" if there are none.
func (r Rights) String() string {
	var names []string
	for i, name := range rightNames {
		if r&(1<<i) != 0 {
			names = append(names, name)
		}
	}
	if names == nil {
		return "none"
	}
	return strings.Join(names, ",")
}

// ParseRights reads what String writes, in any order.
func ParseRights(s string) (r Rights, err error) {
	for name := range strings.SplitSeq(s, ",") {
		i := slices.Index(rightNames[:], strings.TrimSpace(name))
		if i < 0 {
			return 0, fmt.Errorf("%w: there is no right %q; the rights are read, write, monitor and admin", ErrInvalid, name)
		}
		r |= 1 << i
	}
	return r, nil
}

// MarshalText and UnmarshalText are for JSON.
func (r Rights) MarshalText() ([]byte, error) {
	if r == 0 {
		return nil, nil
	}
	return []byte(r.String()), nil
}

// UnmarshalText reads what MarshalText has written.
func (r *Rights) UnmarshalText(b []byte) (err error) {
	*r = 0
	if len(b) > 0 {
		*r, err = ParseRights(string(b))
	}
	return err
}

// Grant gives rights on all keys that begin with a prefix; the empty one stands for all keys.
type Grant struct {
	Prefix []byte `json:"prefix"`
	Rights Rights `json:"rights"` // of Read and Write, at least one
}

// Role is a row of the cluster's map.
type Role struct {
	Name   string  `json:"name"`
	Grants []Grant `json:"grants,omitempty"`  // each prefix once, in order
	Rights Rights  `json:"rights,omitempty"`  // of Monitor and Admin
	Built  bool    `json:"builtin,omitempty"` // is always there, and is no row
}

// User is a row of the cluster's map.
type User struct {
	Name        string   `json:"name"`
	Passwords   []string `json:"passwords,omitempty"`   // hashes; see Hash
	Certificate bool     `json:"certificate,omitempty"` // a client certificate with this common name is enough
	Roles       []string `json:"roles,omitempty"`       // in order
	Grants      []Grant  `json:"grants,omitempty"`      // beside those of the roles; each prefix once, in order
	Rights      Rights   `json:"rights,omitempty"`      // of Monitor and Admin, likewise
	Disabled    bool     `json:"disabled,omitempty"`
}

// Errors of this package wrap one of these.
var (
	// ErrInvalid is something that can never be.
	ErrInvalid = errors.New("invalid")
	// ErrRefused is something that cannot be now.
	ErrRefused = errors.New("refused")
)

// BuiltIn are the roles that are always there and cannot be changed.
var BuiltIn = []Role{
	{Name: "admin", Grants: []Grant{{Rights: ReadWrite}}, Rights: Monitor | Admin, Built: true},
	{Name: "monitor", Rights: Monitor, Built: true},
	{Name: "readonly", Grants: []Grant{{Rights: Read}}, Built: true},
	{Name: "readwrite", Grants: []Grant{{Rights: ReadWrite}}, Built: true},
}

func builtIn(name string) (Role, bool) {
	i := slices.IndexFunc(BuiltIn, func(r Role) bool { return r.Name == name })
	if i < 0 {
		return Role{}, false
	}
	return BuiltIn[i], true
}

// CheckName returns why a user or role, which kind says, cannot have a name.
func CheckName(kind, name string) error {
	switch {
	case name == "":
		return fmt.Errorf("%w: the name of the %s is empty", ErrInvalid, kind)
	case len(name) > NameBytesMax:
		return fmt.Errorf("%w: the name of the %s has %d bytes; at most %d are allowed", ErrInvalid, kind, len(name), NameBytesMax)
	}
	for _, c := range []byte(name) {
		switch {
		case 'a' <= c && c <= 'z', 'A' <= c && c <= 'Z', '0' <= c && c <= '9', strings.IndexByte("._-@", c) >= 0:
		default:
			return fmt.Errorf("%w: the name of the %s has the character %q; letters, digits and . _ - @ are allowed", ErrInvalid, kind, string(c))
		}
	}
	return nil
}

// CheckPassword returns why something cannot be a password.
func CheckPassword(password string) error {
	switch {
	case len(password) < PasswordBytesMin:
		return fmt.Errorf("%w: the password is shorter than %d bytes", ErrInvalid, PasswordBytesMin)
	case len(password) > PasswordBytesMax:
		return fmt.Errorf("%w: the password is longer than %d bytes", ErrInvalid, PasswordBytesMax)
	}
	return nil
}

// Check returns why r cannot be a row, and puts its grants in order.
func (r *Role) Check() error {
	if err := CheckName("role", r.Name); err != nil {
		return err
	}
	if _, is := builtIn(r.Name); is || r.Built {
		return fmt.Errorf("%w: the role %s is built in and cannot be changed", ErrRefused, r.Name)
	}
	return checkGrants("role", r.Grants, r.Rights)
}

// checkGrants returns why a role or a user cannot have these rights, and puts grants in
// order.
func checkGrants(of string, grants []Grant, rights Rights) error {
	if rights&^(Monitor|Admin) != 0 {
		return fmt.Errorf("%w: %v are rights on keys, which belong to a prefix; the empty prefix stands for all keys", ErrInvalid, rights&ReadWrite)
	}
	if len(grants) > GrantsMax {
		return fmt.Errorf("%w: the %s has %d prefixes; at most %d are allowed", ErrInvalid, of, len(grants), GrantsMax)
	}
	slices.SortFunc(grants, func(a, b Grant) int { return slices.Compare(a.Prefix, b.Prefix) })
	for i, g := range grants {
		switch {
		case g.Rights == 0 || g.Rights&^ReadWrite != 0:
			return fmt.Errorf("%w: the rights on the prefix %q are %v; they must be read, write, or both", ErrInvalid, g.Prefix, g.Rights)
		case len(g.Prefix) > PrefixBytesMax:
			return fmt.Errorf("%w: a prefix has %d bytes; keys have at most %d", ErrInvalid, len(g.Prefix), PrefixBytesMax)
		case i > 0 && slices.Equal(g.Prefix, grants[i-1].Prefix):
			return fmt.Errorf("%w: the prefix %q is named twice", ErrInvalid, g.Prefix)
		}
	}
	return nil
}

// Check returns why u cannot be a row, and puts its roles in order.
func (u *User) Check() error {
	if err := CheckName("user", u.Name); err != nil {
		return err
	}
	if len(u.Passwords) > PasswordsMax {
		return fmt.Errorf("%w: the user has %d passwords; at most %d are allowed: remove one first", ErrInvalid, len(u.Passwords), PasswordsMax)
	}
	for _, p := range u.Passwords {
		if err := checkHash(p); err != nil {
			return err
		}
	}
	if len(u.Roles) > RolesOfUserMax {
		return fmt.Errorf("%w: the user has %d roles; at most %d are allowed", ErrInvalid, len(u.Roles), RolesOfUserMax)
	}
	slices.Sort(u.Roles)
	u.Roles = slices.Compact(u.Roles)
	for _, role := range u.Roles {
		if err := CheckName("role", role); err != nil {
			return err
		}
	}
	return checkGrants("user", u.Grants, u.Rights)
}

// HashOf returns the hash of u's that a password matches. It takes as long as Hash does.
func (u *User) HashOf(password string) (text string, ok bool) {
	for _, text := range u.Passwords {
		if h, err := parseHash(text); err == nil && h.matches(password) {
			return text, true
		}
	}
	return "", false
}

// Sentence is the text of an error without the name of its class.
func Sentence(err error) string {
	text := err.Error()
	for _, class := range []error{ErrInvalid, ErrRefused} {
		text = strings.TrimPrefix(text, class.Error()+": ")
	}
	return text
}
