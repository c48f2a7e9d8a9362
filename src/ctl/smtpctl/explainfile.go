package smtpctl

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/user"
	"path/filepath"
	"strconv"

	"opensmtpd/src/conf/diag"
	"opensmtpd/src/conf/load"
	"opensmtpd/src/conf/project"
	"opensmtpd/src/lookup/expand"
	"opensmtpd/src/lookup/ruleset"
	"opensmtpd/src/lookup/table"
	"opensmtpd/src/mail/addr"
	"opensmtpd/src/mail/srs"
	"opensmtpd/src/paths"
	"opensmtpd/src/privsep/msg"
)

// explainFile answers with the rules of a file, as far as who asks may read what
// they need.
func (s *session) explainFile(name string, subject *ruleset.Subject) ([]expand.Row, error) {
	m := load.System()
	m.Values = table.Words(m.Values)
	l, diags := load.File(s.ctx, m, name, nil)
	if diags.HasErrors() {
		if err := diags.Write(s.call.Stderr, diag.Error); err != nil {
			return nil, err
		}
		return nil, exit(1)
	}
	p := project.Lookup(l)
	tables := make(map[string]table.Table)
	for i := range p.Tables {
		t, err := openTable(&p.Tables[i], p.SubAddrDelim)
		if err != nil {
			return nil, fmt.Errorf("table %s: %w", p.Tables[i].Name, err)
		}
		tables[p.Tables[i].Name] = t
	}
	c, err := expand.NewConfig(p, tables, "", paths.User)
	if err != nil {
		return nil, err
	}
	if p.SRSKey != "" {
		rewriter := srs.Rewriter{Key: p.SRSKey, Backup: p.SRSKeyBackup, TTL: p.SRSTTL}
		c.Reverse = func(a addr.Address) (addr.Address, error) { return rewriter.Reverse(a, s.call.Clock.Now()) }
	}
	return expand.Explain(s.ctx, &c, offline{s}, subject), nil
}

func openTable(t *project.Table, delim string) (table.Table, error) {
	switch t.Backend {
	case "static":
		entries := make([]table.Entry, len(t.Entries))
		for i, e := range t.Entries {
			entries[i] = table.Entry{Key: e.Key, Value: e.Value}
		}
		return table.NewStatic(t.Name, t.Kind, entries, delim), nil
	case "getpwnam":
		return table.NewSystem(t.Name, func(_ context.Context, name string) (table.User, bool, error) {
			u, err := systemUser(name)
			if err != nil || !u.Found {
				return table.User{}, false, err
			}
			return table.User{Name: u.Name, UID: u.UID, GID: u.GID, Home: u.Home}, true, nil
		}), nil
	case "file", "db":
		f, err := os.Open(t.Config)
		if err != nil {
			return nil, err
		}
		defer f.Close()
		if t.Backend == "db" {
			return table.NewDB(t.Name, t.Config, f, delim)
		}
		return table.NewFile(t.Name, t.Config, f, delim)
	}
	return nil, fmt.Errorf("the program of back end %s answers the running daemon alone: leave out -f", t.Backend)
}

// offline is what an expansion asks outside of the daemon.
type offline struct{ s *session }

// User implements expand.World. A .forward that may not be read is said, and
// taken for none.
func (o offline) User(_ context.Context, q *msg.UserInfo) (*msg.UserInfoReply, error) {
	u := &msg.UserInfoReply{Found: true, Name: q.Name, UID: q.UID, GID: q.GID, Home: q.Home}
	if !q.Virtual {
		var err error
		if u, err = systemUser(q.Name); err != nil || !u.Found {
			return u, err
		}
	}
	if !q.Forward {
		return u, nil
	}
	name := filepath.Join(u.Home, ".forward")
	text, found, err := small(name)
	switch {
	case err != nil:
		o.Warnf("%v: taken for none", err)
	case found:
		u.HasForward, u.Forward = true, text
	}
	return u, nil
}

// Include implements expand.World.
func (o offline) Include(_ context.Context, path string) ([]byte, bool, error) { return small(path) }

// small reads a file that may not be there.
func small(name string) ([]byte, bool, error) {
	f, err := os.Open(name)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, false, nil
	}
	if err != nil {
		return nil, false, err
	}
	defer f.Close()
	st, err := f.Stat()
	if err == nil && (!st.Mode().IsRegular() || st.Size() > msg.MaxInclude) {
		err = fmt.Errorf("%s: not a regular file, or too large", name)
	}
	if err != nil {
		return nil, false, err
	}
	text, err := io.ReadAll(io.LimitReader(f, msg.MaxInclude))
	return text, err == nil, err
}

func systemUser(name string) (*msg.UserInfoReply, error) {
	u, err := user.Lookup(name)
	var unknown user.UnknownUserError
	if errors.As(err, &unknown) {
		return &msg.UserInfoReply{}, nil
	}
	if err != nil {
		return nil, err
	}
	uid, err1 := strconv.ParseUint(u.Uid, 10, 32)
	gid, err2 := strconv.ParseUint(u.Gid, 10, 32)
	if err := errors.Join(err1, err2); err != nil {
		return nil, err
	}
	return &msg.UserInfoReply{Found: true, Name: u.Username, UID: uint32(uid), GID: uint32(gid), Home: u.HomeDir}, nil
}

// Warnf implements expand.World.
func (o offline) Warnf(format string, args ...any) { o.s.call.Errorf(format, args...) }

// Tracing implements expand.World.
func (offline) Tracing() bool { return false }

// Tracef implements expand.World.
func (offline) Tracef(string, ...any) {}
