package placement

import (
	"encoding/json"
	"slices"
	"strings"

	"github.com/proa-kv/proa/access"
)

// Users and roles are rows of the meta group too:
//
//	user/<name>   access.User
//	role/<name>   access.Role
//	access        accessRow
const (
	userKeyPrefix = "user/"
	roleKeyPrefix = "role/"
	accessKey     = "access"
)

// accessRow is written with every change of users and roles. So two changes of different
// rows never take effect as if the other had not: no two administrators remove each other.
type accessRow struct {
	Changes uint64 `json:"changes"`
}

// addAccess takes in a row about users or roles. It returns false for any other.
func (m *Map) addAccess(key string, value []byte) (known bool, err error) {
	switch {
	case key == accessKey:
		err = json.Unmarshal(value, &m.access)
	case strings.HasPrefix(key, userKeyPrefix):
		var u access.User
		if err = json.Unmarshal(value, &u); err == nil {
			at, _ := slices.BinarySearchFunc(m.Access.Users, u.Name, func(o access.User, name string) int { return strings.Compare(o.Name, name) })
			m.Access.Users = slices.Insert(m.Access.Users, at, u)
		}
	case strings.HasPrefix(key, roleKeyPrefix):
		var r access.Role
		if err = json.Unmarshal(value, &r); err == nil {
			at, _ := slices.BinarySearchFunc(m.Access.Roles, r.Name, func(o access.Role, name string) int { return strings.Compare(o.Name, name) })
			m.Access.Roles = slices.Insert(m.Access.Roles, at, r)
		}
	default:
		return false, nil
	}
	return true, err
}

// AccessVersion grows with every change of users and roles; 0: there has been none.
func (m *Map) AccessVersion() uint64 { return m.Versions[accessKey] }

// ChangeAccess returns the rows that a change of users and roles writes, or why it cannot be
// made.
func ChangeAccess(m *Map, c access.Change) ([]Change, error) {
	if _, err := m.Access.With(c); err != nil {
		return nil, err
	}
	row := Change{}
	switch {
	case c.User != nil:
		row = Change{userKeyPrefix + c.User.Name, c.User}
	case c.Role != nil:
		row = Change{roleKeyPrefix + c.Role.Name, c.Role}
	case c.RemoveUser != "":
		row = Change{Key: userKeyPrefix + c.RemoveUser}
	default:
		row = Change{Key: roleKeyPrefix + c.RemoveRole}
	}
	return []Change{{accessKey, accessRow{m.access.Changes + 1}}, row}, nil
}
