package access

import (
	"bytes"
	"slices"
	"strings"
)

// Permit is what somebody may do. It is immutable and safe for concurrent use.
type Permit struct {
	Reads, Writes Spans
	Rights        Rights // of Monitor and Admin
}

var (
	// Everything allows all there is.
	Everything = &Permit{Reads: Spans{{}}, Writes: Spans{{}}, Rights: Monitor | Admin}
	// Nothing allows nothing.
	Nothing = &Permit{}
)

// May reports whether a key may be read, written, or both, as need says. It allocates
// nothing.
func (p *Permit) May(key []byte, need Rights) bool {
	return p == Everything || (need&Read == 0 || p.Reads.Has(key)) && (need&Write == 0 || p.Writes.Has(key))
}

// Can reports whether p has rights of the whole cluster.
func (p *Permit) Can(need Rights) bool { return need&^p.Rights == 0 }

// compile returns the permit of some grants and rights.
func compile(grants []Grant, rights Rights) *Permit {
	if rights&Admin != 0 {
		rights |= Monitor
	}
	prefixes := func(of Rights) (some [][]byte) {
		for _, g := range grants {
			if g.Rights&of != 0 {
				some = append(some, g.Prefix)
			}
		}
		return some
	}
	return &Permit{Reads: spansOf(prefixes(Read)), Writes: spansOf(prefixes(Write)), Rights: rights}
}

// Directory is all users and roles, each in order of their names, without the built-in roles.
// The zero Directory has none.
type Directory struct {
	Users []User
	Roles []Role
}

// User returns a user.
func (d *Directory) User(name string) (User, bool) {
	i, ok := slices.BinarySearchFunc(d.Users, name, func(u User, name string) int { return strings.Compare(u.Name, name) })
	if !ok {
		return User{}, false
	}
	return d.Users[i], true
}

// Role returns a role, built-in ones included.
func (d *Directory) Role(name string) (Role, bool) {
	if r, ok := builtIn(name); ok {
		return r, true
	}
	i, ok := slices.BinarySearchFunc(d.Roles, name, func(r Role, name string) int { return strings.Compare(r.Name, name) })
	if !ok {
		return Role{}, false
	}
	return d.Roles[i], true
}

// Account is a user as the cluster knows it at one time.
type Account struct {
	User
	*Permit
	Granted []Role // that the names in Roles stand for
}

// Policy is a Directory, compiled. It is immutable. A nil Policy has no users.
type Policy struct {
	accounts     map[string]*Account
	administered bool
}

// Policy compiles d. Roles that are not there give nothing.
func (d *Directory) Policy() *Policy {
	p := &Policy{accounts: make(map[string]*Account, len(d.Users)), administered: d.Administered()}
	for _, u := range d.Users {
		p.accounts[u.Name] = &Account{u, d.permit(&u), d.rolesOf(&u)}
	}
	return p
}

func (d *Directory) permit(u *User) *Permit {
	grants, rights := slices.Clone(u.Grants), u.Rights
	for _, r := range d.rolesOf(u) {
		grants, rights = append(grants, r.Grants...), rights|r.Rights
	}
	return compile(grants, rights)
}

func (d *Directory) rolesOf(u *User) (roles []Role) {
	for _, name := range u.Roles {
		if r, ok := d.Role(name); ok {
			roles = append(roles, r)
		}
	}
	return roles
}

// Account returns that of a user, nil where there is none or it is disabled.
func (p *Policy) Account(name string) *Account {
	if p == nil {
		return nil
	}
	if a := p.accounts[name]; a != nil && !a.Disabled {
		return a
	}
	return nil
}

// Administered reports whether somebody can log in and administer.
func (p *Policy) Administered() bool { return p != nil && p.administered }

// Empty reports whether there are no users.
func (p *Policy) Empty() bool { return p == nil || len(p.accounts) == 0 }

// Login is how somebody has proven to be a user, or does not need to.
type Login struct {
	User string // "": nobody, who may do what needs no user
	hash string // of the password
	by   method
}

type method uint8

const (
	byNothing method = iota
	byPassword
	byCertificate
	byMachine
	byChange // of the password, which is under way
)

// Local is the login of who reaches the server by the machine's own means: the operator.
var Local = Login{by: byMachine}

// Method says in a word how the login came about.
func (l *Login) Method() string {
	return [...]string{"none", ByPassword, "certificate", "local", "change"}[l.by]
}

// ByPassword is the Method of who has given a password.
const ByPassword = "password"

// Changing is l while its user's password is replaced: it holds with any.
func (l Login) Changing() Login { return Login{User: l.User, by: byChange} }

// Newest reports whether a login is by the password that its user got last.
func (p *Policy) Newest(l *Login) bool {
	a := p.Account(l.User)
	return a != nil && l.by == byPassword && len(a.Passwords) > 0 && a.Passwords[len(a.Passwords)-1] == l.hash
}

// Permit returns what a login is good for now. ok is false where it does not hold any more:
// the user is gone or disabled, or the password or the right to use a certificate is.
// anonymous is what nobody may do.
func (p *Policy) Permit(l *Login, anonymous *Permit) (_ *Permit, ok bool) {
	switch l.by {
	case byNothing:
		return anonymous, true
	case byMachine:
		return Everything, true
	}
	a := p.Account(l.User)
	switch {
	case a == nil, l.by == byPassword && !slices.Contains(a.Passwords, l.hash), l.by == byCertificate && !a.Certificate:
		return Nothing, false
	}
	return a.Permit, true
}

// Certified returns the login of a client certificate's subject, where that user may log in
// so.
func (p *Policy) Certified(subject string) (Login, bool) {
	if a := p.Account(subject); a == nil || !a.Certificate {
		return Login{}, false
	}
	return Login{User: subject, by: byCertificate}, true
}

// clone returns g with a prefix of its own.
func (g Grant) clone() Grant { return Grant{bytes.Clone(g.Prefix), g.Rights} }
