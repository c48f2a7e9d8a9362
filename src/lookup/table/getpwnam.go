package table

import "context"

// FindUser asks for a system user.
type FindUser func(ctx context.Context, name string) (u User, found bool, err error)

// System is the table of system users, back end getpwnam: it serves userinfo.
type System struct {
	name string
	find FindUser
}

// NewSystem returns the table of the users that find knows.
func NewSystem(name string, find FindUser) *System { return &System{name, find} }

// Name implements Table.
func (t *System) Name() string { return t.name }

// Match implements Table.
func (t *System) Match(ctx context.Context, s Service, key string) (bool, error) {
	_, found, err := t.Lookup(ctx, s, key)
	return found, err
}

// Lookup implements Table.
func (t *System) Lookup(ctx context.Context, s Service, key string) (string, bool, error) {
	if s != UserInfo {
		return "", false, ErrService
	}
	u, found, err := t.find(ctx, key)
	if err != nil || !found {
		return "", false, err
	}
	return u.String(), true, nil
}

// Fetch implements Table; system users are never enumerated.
func (t *System) Fetch(context.Context, Service) (string, bool, error) {
	return "", false, ErrService
}
