package expand

import (
	"context"
	"fmt"

	"opensmtpd/src/conf"
	"opensmtpd/src/lookup/aliases"
	"opensmtpd/src/lookup/table"
	"opensmtpd/src/mail/addr"
	"opensmtpd/src/mailerr"
	"opensmtpd/src/privsep/msg"
	"opensmtpd/src/queue/envelope"
)

func (a *Action) forwardOnly() bool { return a.Method == conf.ForwardOnly }

// virtual expands a by the virtual table of n's action. An address without a
// domain is a name that the table itself gave.
func (t *tree) virtual(ctx context.Context, n *node, a addr.Address) (bool, error) {
	return t.lookup(ctx, n, n.action.Virtual, VirtualKeys(a, t.Delim))
}

// VirtualKeys lists what a virtual table is asked for a, in lower case: whole
// addresses before users before catch-alls, each with the sub-address first.
func VirtualKeys(a addr.Address, delim string) []string {
	user, tag, tagged := addr.SplitTag(a.Local, delim)
	tagged = tagged && tag != ""
	var keys []string
	if a.Domain != "" {
		if tagged {
			keys = append(keys, a.Local+"@"+a.Domain)
		}
		keys = append(keys, user+"@"+a.Domain)
	}
	if tagged {
		keys = append(keys, a.Local)
	}
	keys = append(keys, user)
	if a.Domain != "" {
		keys = append(keys, "@"+a.Domain, "@")
	}
	return keys
}

// AliasKeys lists what an aliases table is asked for a user.
func AliasKeys(name, delim string) []string {
	if user, _, tagged := addr.SplitTag(name, delim); tagged {
		return []string{name, user}
	}
	return []string{name}
}

// lookup expands n by the first key that the table has. It is not found either
// when the table has it but everything there is a file to include that does not
// exist.
func (t *tree) lookup(ctx context.Context, n *node, tbl table.Table, keys []string) (bool, error) {
	for _, k := range keys {
		value, found, err := tbl.Lookup(ctx, table.Alias, k)
		if err != nil {
			return false, fmt.Errorf("table %s: %w", tbl.Name(), err)
		}
		if !found {
			continue
		}
		list, err := aliases.Parse(value)
		if err != nil {
			return false, fmt.Errorf("table %s: %s: %w", tbl.Name(), k, err)
		}
		return t.growAll(ctx, n, list)
	}
	return false, nil
}

func (t *tree) growAll(ctx context.Context, n *node, list []aliases.Value) (bool, error) {
	any := false
	for _, v := range list {
		if v.Kind != aliases.Include {
			t.grow(n, n.action, v)
			any = true
			continue
		}
		found, err := t.include(ctx, n, v.Text)
		if err != nil {
			return false, err
		}
		any = any || found
	}
	return any, nil
}

func (t *tree) include(ctx context.Context, n *node, path string) (bool, error) {
	text, found, err := t.Include(ctx, path)
	if err != nil {
		return false, fmt.Errorf("include %s: %w", path, err)
	}
	if !found {
		t.Warnf("warn: failed to open include file \"%s\".", path)
		return false, nil
	}
	list, bad := aliases.ParseInclude(text)
	for _, err := range bad {
		t.Warnf("warn: %s: %v", path, err)
	}
	for _, v := range list {
		t.grow(n, n.action, v)
	}
	return true, nil
}

// user expands a name: by aliases, then by the .forward of the user who bears
// it, else it is that user's mailbox.
func (t *tree) user(ctx context.Context, n *node) *mailerr.Error {
	if !n.sameUser {
		found, err := t.aliases(ctx, n)
		if err != nil {
			return listTrouble(err)
		}
		if found {
			return nil
		}
	}
	name, subaddress, _ := addr.SplitTag(n.Text, t.Delim)
	n.Text = name
	// The .forward is left alone when the user put himself there, and when the
	// action delivers everybody's mail as one user who is not this one.
	plain := n.final || n.action.User != "" && n.action.User != name
	info, err := t.find(ctx, n.action, name, !plain)
	switch {
	case err != nil:
		return trouble(err)
	case info.Err != nil:
		return info.Err
	case !info.Found:
		return invalidRecipient()
	}
	n.realUser, n.uid = true, info.UID
	n.forwarded = !plain
	if n.forwarded && info.HasForward {
		expanded, err := t.forward(n, info.Forward)
		if expanded || err != nil {
			return err
		}
	}
	return t.mailbox(n, subaddress)
}

func (t *tree) aliases(ctx context.Context, n *node) (bool, error) {
	switch {
	case n.action.Virtual != nil:
		return t.virtual(ctx, n, addr.Address{Local: n.Text})
	case n.action.Alias != nil:
		return t.lookup(ctx, n, n.action.Alias, AliasKeys(n.Text, t.Delim))
	}
	return false, nil
}

// forward expands a user by what his .forward says; an empty one says nothing.
func (t *tree) forward(n *node, text []byte) (expanded bool, _ *mailerr.Error) {
	list, err := aliases.ParseForward(text)
	if err != nil {
		return false, listTrouble(fmt.Errorf("forward file of user %s: %w", n.Text, err))
	}
	for _, v := range list {
		t.grow(n, n.action, v)
	}
	return len(list) > 0, nil
}

// mailbox delivers to the user himself where the action lets it.
func (t *tree) mailbox(n *node, subaddress string) *mailerr.Error {
	switch n.action.Method {
	case conf.ForwardOnly:
		return listTrouble(fmt.Errorf("no .forward for user %s on a forward-only rule", n.Text))
	case conf.ExpandOnly:
		return listProblem(fmt.Errorf("no .forward for user %s and no default action on the rule", n.Text))
	}
	before := len(t.out)
	t.deliver(n, Delivery{Type: envelope.MDA, User: n.Text, Subaddress: subaddress})
	if n.uid == 0 && n.action.User == "" && n.action.Method != conf.MBOX && !t.RootLikeOthers {
		t.vain += len(t.out) - before
	}
	return nil
}

// userKey names a user of a userbase.
type userKey struct {
	base table.Table
	name string
}

// find asks for a user, once in an expansion.
func (t *tree) find(ctx context.Context, a *Action, name string, forward bool) (*msg.UserInfoReply, error) {
	k := userKey{a.UserBase, name}
	if known := t.users[k]; known != nil {
		return known, nil
	}
	q := &msg.UserInfo{Name: name, Forward: forward}
	if a.UserBase != nil {
		u, found, err := baseUser(ctx, a.UserBase, name)
		if err != nil || !found {
			return &msg.UserInfoReply{}, err
		}
		q.Virtual, q.UID, q.GID, q.Home = true, u.UID, u.GID, u.Home
		if !forward {
			return &msg.UserInfoReply{Found: true, Name: name, UID: u.UID, GID: u.GID, Home: u.Home}, nil
		}
	}
	info, err := t.User(ctx, q)
	if err != nil {
		return nil, err
	}
	if q.Virtual {
		info.Found, info.UID = true, q.UID
	}
	if forward {
		t.users[k] = info
	}
	return info, nil
}

func baseUser(ctx context.Context, base table.Table, name string) (table.User, bool, error) {
	value, found, err := base.Lookup(ctx, table.UserInfo, name)
	if err != nil || !found {
		return table.User{}, false, err
	}
	u, err := table.ParseUser(name, value)
	if err != nil {
		return table.User{}, false, fmt.Errorf("table %s: %s: %w", base.Name(), name, err)
	}
	return u, true, nil
}
