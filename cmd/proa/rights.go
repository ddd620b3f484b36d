package main

import (
	"bytes"
	"cmp"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/proa-kv/proa/access"
	"github.com/proa-kv/proa/command"
	"github.com/proa-kv/proa/internal/render"
)

// rightsFlags are the flags that give rights to a user or a role.
type rightsFlags struct {
	read, write, readWrite, revoke []string // prefixes
	allKeys                        string
	cluster                        []string // rights of the cluster
}

// noRights is what a flag that chooses rights calls none of them.
const noRights = "none"

// keyRights are the rights on keys as --all-keys names them.
var keyRights = map[string]access.Rights{"read": access.Read, "write": access.Write, "read-write": access.ReadWrite, noRights: 0}

// add adds the flags to cmd, which makes a user or a role, or changes one.
func (f *rightsFlags) add(cmd *cobra.Command, change bool) {
	set := cmd.Flags()
	set.StringArrayVar(&f.read, "read", nil, "allow to read the keys with this `prefix`")
	set.StringArrayVar(&f.write, "write", nil, "allow to write the keys with this `prefix`")
	set.StringArrayVar(&f.readWrite, "read-write", nil, "allow to read and write the keys with this `prefix`")
	onKeys, onCluster, none := []string{"read", "write", "read-write"}, []string{"admin", "monitor"}, ""
	if change {
		set.StringArrayVar(&f.revoke, "revoke", nil, "take the rights that were given on this `prefix`")
		onKeys, onCluster, none = append(onKeys, noRights), append(onCluster, noRights), " or none"
	}
	set.StringVar(&f.allKeys, "all-keys", "", "`rights` on all keys: read, write, read-write"+none)
	set.StringSliceVar(&f.cluster, "right", nil, "`right` of the whole cluster: admin, monitor"+none)
	completeFlag(cmd, "all-keys", onKeys...)
	completeFlag(cmd, "right", onCluster...)
}

// grants are the rights on keys that the flags give: for each prefix what holds from now on,
// no rights to take those that it has.
func (f *rightsFlags) grants(a *app, change bool) (grants []access.Grant, err error) {
	set := func(flag string, prefix []byte, rights access.Rights) error {
		i := slices.IndexFunc(grants, func(g access.Grant) bool { return bytes.Equal(g.Prefix, prefix) })
		switch {
		case i < 0:
			grants = append(grants, access.Grant{Prefix: prefix, Rights: rights})
		case (grants[i].Rights == 0) != (rights == 0):
			return usagef("--%s %s: another flag takes what this one gives", flag, render.Escape(prefix))
		default:
			grants[i].Rights |= rights
		}
		return nil
	}
	for _, x := range []struct {
		flag     string
		prefixes []string
	}{{"read", f.read}, {"write", f.write}, {"read-write", f.readWrite}, {"revoke", f.revoke}} {
		for _, text := range x.prefixes {
			prefix, err := a.bytes(text)
			if err != nil {
				return nil, err
			}
			if len(prefix) == 0 {
				// A variable that is not set must not give rights on everything.
				return nil, usagef("--%s: the prefix is empty; all keys are meant by: --all-keys %s", x.flag, cmp.Or(strings.TrimPrefix(x.flag, "revoke"), noRights))
			}
			if err := set(x.flag, prefix, keyRights[x.flag]); err != nil {
				return nil, err
			}
		}
	}
	if f.allKeys != "" {
		rights, ok := keyRights[f.allKeys]
		if !ok || rights == 0 && !change {
			return nil, usagef("--all-keys %s: choose read, write or read-write", f.allKeys)
		}
		return grants, set("all-keys", nil, rights)
	}
	return grants, nil
}

// rights are those of the cluster that the flags give, nil if they do not say.
func (f *rightsFlags) rights(change bool) (*access.Rights, error) {
	if f.cluster == nil {
		return nil, nil
	}
	var rights access.Rights
	for _, name := range f.cluster {
		switch r, err := access.ParseRights(name); {
		case name == noRights && change && len(f.cluster) == 1:
		case name == noRights:
			return nil, usagef("--right none: goes with no other right, and where rights are changed")
		case err != nil:
			return nil, usagef("--right %s: choose admin or monitor", name)
		case r&access.ReadWrite != 0:
			return nil, usagef("--right %s: this is a right on keys: --read, --write, --read-write PREFIX, or --all-keys", name)
		default:
			rights |= r
		}
	}
	return &rights, nil
}

// source is what gives a right.
type source struct {
	Roles []string `json:"roles,omitempty"`
	Own   bool     `json:"own,omitempty"` // the user's own; or the role that is shown
}

func (s *source) addRole(name string) {
	if !slices.Contains(s.Roles, name) {
		s.Roles = append(s.Roles, name)
	}
}

// text names the source in words.
func (s *source) text() string {
	var parts []string
	if s.Own {
		parts = append(parts, "its own")
	}
	for _, name := range s.Roles {
		parts = append(parts, "role "+name)
	}
	return strings.Join(parts, ", ")
}

// keyRow is what may be done with the keys of a prefix.
type keyRow struct {
	Prefix render.Text `json:"prefix"`
	Read   bool        `json:"read"`
	Write  bool        `json:"write"`
	source
}

func (k *keyRow) add(r access.Rights) {
	k.Read, k.Write = k.Read || r&access.Read != 0, k.Write || r&access.Write != 0
}

func (k *keyRow) rights() string {
	switch {
	case k.Read && k.Write:
		return "read-write"
	case k.Write:
		return "write"
	}
	return "read"
}

// prefixName names the keys of a prefix.
func prefixName(prefix []byte) string {
	if len(prefix) == 0 {
		return "(all keys)"
	}
	return render.Escape(prefix)
}

// clusterRow is a right of the cluster.
type clusterRow struct {
	Right string `json:"right"`
	source
}

// holdings are the rights that somebody has, by own grants and by those of roles.
type holdings struct {
	Rights []clusterRow `json:"rights"`
	Keys   []keyRow     `json:"keys"` // in order of the prefixes, each with what holds for shorter ones too
}

func holdingsOf(own access.Role, roles []access.Role) holdings {
	h := holdings{Rights: []clusterRow{}, Keys: []keyRow{}}
	all := append([]access.Role{own}, roles...)
	var prefixes [][]byte
	for _, r := range all {
		for _, g := range r.Grants {
			prefixes = append(prefixes, g.Prefix)
		}
	}
	slices.SortFunc(prefixes, bytes.Compare)
	for _, prefix := range slices.CompactFunc(prefixes, bytes.Equal) {
		row := keyRow{Prefix: present(prefix)}
		for i, r := range all {
			for _, g := range r.Grants {
				if !bytes.HasPrefix(prefix, g.Prefix) {
					continue
				}
				if row.add(g.Rights); i == 0 {
					row.Own = true
				} else {
					row.addRole(r.Name)
				}
			}
		}
		h.Keys = append(h.Keys, row)
	}
	for _, right := range []access.Rights{access.Admin, access.Monitor} {
		row := clusterRow{Right: right.String()}
		for i, r := range all {
			if r.Rights&right == 0 && r.Rights&access.Admin == 0 { // which includes monitor
				continue
			}
			if i == 0 {
				row.Own = true
			} else {
				row.addRole(r.Name)
			}
		}
		if row.Own || row.Roles != nil {
			h.Rights = append(h.Rights, row)
		}
	}
	return h
}

// clusterText names the rights of the cluster, with what gives them where that is asked for.
func (h *holdings) clusterText(sources bool) string {
	var parts []string
	for _, r := range h.Rights {
		text := r.Right
		if sources {
			text += " (" + r.text() + ")"
		}
		parts = append(parts, text)
	}
	return strings.Join(parts, ", ")
}

// keysText names the rights on keys on one line.
func (h *holdings) keysText() string {
	var parts []string
	for _, k := range h.Keys {
		parts = append(parts, prefixName(k.Prefix)+" "+k.rights())
	}
	return strings.Join(parts, ", ")
}

// showKeys shows the rights on keys as a table.
func (h *holdings) showKeys(o *render.Output) error {
	t := o.Table("KEYS", "RIGHTS", "FROM")
	for _, k := range h.Keys {
		t.Row(prefixName(k.Prefix), k.rights(), k.text())
	}
	return t.Flush()
}

// rolesNamed returns the roles of a list that have these names.
func rolesNamed(l *command.UserList, names []string) (roles []access.Role) {
	for _, r := range l.Roles {
		if slices.Contains(names, r.Name) {
			roles = append(roles, r)
		}
	}
	return roles
}
