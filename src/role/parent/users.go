package parent

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"opensmtpd/src/clock"
)

// User is whom mail can be delivered to.
type User struct {
	Name     string
	UID, GID uint32
	Home     string
}

const (
	// How long an answer of getent holds. /etc/passwd is looked at every time.
	knownFor   = 30 * time.Second
	unknownFor = 10 * time.Second
	// maxAnswers bounds what is remembered: strangers choose the names.
	maxAnswers = 4096
	// getents is how many getent run at a time, for the same reason.
	getents = 4
	// getentTime is how long one may take: LDAP and the like are behind it.
	getentTime = 10 * time.Second
)

// Users finds system users: in /etc/passwd, else by getent(1), so that LDAP and
// its like work without being linked in.
type Users struct {
	clock  clock.Clock
	passwd string
	getent func(ctx context.Context, name string) (line string, found bool, err error)
	only   *User // in unprivileged mode, the running user
	tokens chan struct{}

	mu      sync.Mutex
	stamp   fileStamp
	byName  map[string]User
	answers map[string]answer
}

// answer is one of getent.
type answer struct {
	user  User
	found bool
	until time.Duration
}

// fileStamp tells one state of a file from another.
type fileStamp struct {
	mtime time.Time
	size  int64
	inode uint64
}

// NewUsers returns the users of this machine.
func NewUsers(c clock.Clock) *Users {
	return &Users{clock: c, passwd: "/etc/passwd", getent: getent, tokens: make(chan struct{}, getents)}
}

// OnlyUser returns Users that know u alone: in unprivileged mode nobody else can
// be delivered to.
func OnlyUser(u User) *Users { return &Users{only: &u} }

// Lookup returns a user by his exact name. An error means that it is not known
// whether there is one.
func (u *Users) Lookup(ctx context.Context, name string) (User, bool, error) {
	if u.only != nil {
		return *u.only, name == u.only.Name, nil
	}
	if name == "" || len(name) > 255 || strings.HasPrefix(name, "-") || strings.ContainsAny(name, ":/\n\x00") {
		return User{}, false, nil
	}
	found, ok, err := u.local(name)
	if ok || err != nil {
		return found, ok, err
	}
	return u.ask(ctx, name)
}

// local looks into the passwd file, which is read again when it has changed.
func (u *Users) local(name string) (User, bool, error) {
	fi, err := os.Stat(u.passwd)
	if err != nil {
		return User{}, false, err
	}
	stamp := fileStamp{mtime: fi.ModTime(), size: fi.Size()}
	if st, ok := fi.Sys().(*syscall.Stat_t); ok {
		stamp.inode = uint64(st.Ino)
	}
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.byName == nil || stamp != u.stamp {
		data, err := os.ReadFile(u.passwd)
		if err != nil {
			return User{}, false, err
		}
		u.byName, u.stamp = parsePasswd(data), stamp
	}
	found, ok := u.byName[name]
	return found, ok, nil
}

// parsePasswd reads passwd(5); lines that are not of its form, NIS's "+" among
// them, are left out. Of two lines for a name the first holds.
func parsePasswd(data []byte) map[string]User {
	all := make(map[string]User)
	for line := range bytes.Lines(data) {
		if user, ok := parseLine(string(line)); ok {
			if _, twice := all[user.Name]; !twice {
				all[user.Name] = user
			}
		}
	}
	return all
}

func parseLine(line string) (User, bool) {
	f := strings.Split(strings.TrimSuffix(line, "\n"), ":")
	if len(f) != 7 || f[0] == "" || f[0][0] == '+' || f[0][0] == '-' || f[0][0] == '#' {
		return User{}, false
	}
	uid, err := strconv.ParseUint(f[2], 10, 32)
	gid, err2 := strconv.ParseUint(f[3], 10, 32)
	if err != nil || err2 != nil {
		return User{}, false
	}
	return User{Name: f[0], UID: uint32(uid), GID: uint32(gid), Home: f[5]}, true
}

// ask asks getent, or remembers what it said.
func (u *Users) ask(ctx context.Context, name string) (User, bool, error) {
	if strings.Trim(name, "0123456789") == "" {
		return User{}, false, nil // getent would take it for a uid
	}
	u.mu.Lock()
	a, ok := u.answers[name]
	u.mu.Unlock()
	if ok && u.clock.Mono() < a.until {
		return a.user, a.found, nil
	}
	select {
	case u.tokens <- struct{}{}:
	case <-ctx.Done():
		return User{}, false, ctx.Err()
	}
	line, found, err := u.getent(ctx, name)
	<-u.tokens
	if err != nil {
		return User{}, false, err
	}
	a = answer{until: u.clock.Mono() + unknownFor}
	if found {
		a.user, a.found = parseLine(line)
		a.found = a.found && a.user.Name == name
		a.until = u.clock.Mono() + knownFor
	}
	u.mu.Lock()
	if u.answers == nil || len(u.answers) >= maxAnswers {
		u.answers = make(map[string]answer)
	}
	u.answers[name] = a
	u.mu.Unlock()
	return a.user, a.found, nil
}

// getent runs getent(1), unless the machine has no other source of users than
// its files.
func getent(ctx context.Context, name string) (line string, found bool, err error) {
	if conf, err := os.ReadFile("/etc/nsswitch.conf"); err == nil && onlyFiles(conf) {
		return "", false, nil
	}
	program := "/usr/bin/getent"
	if _, err := os.Stat(program); err != nil {
		return "", false, nil
	}
	ctx, cancel := context.WithTimeout(ctx, getentTime)
	defer cancel()
	c := exec.CommandContext(ctx, program, "passwd", name)
	c.Env = []string{"PATH=/usr/bin:/bin", "LC_ALL=C"}
	out, err := c.Output()
	var exit *exec.ExitError
	switch {
	case err == nil:
		return string(out), true, nil
	case errors.As(err, &exit) && exit.ExitCode() == 2: // getent(1): not found
		return "", false, nil
	}
	return "", false, fmt.Errorf("getent passwd %s: %w", name, err)
}

// onlyFiles tells whether nsswitch.conf(5) has no source of users but files.
func onlyFiles(conf []byte) bool {
	for line := range bytes.Lines(conf) {
		text, _, _ := strings.Cut(string(line), "#")
		db, sources, ok := strings.Cut(text, ":")
		if !ok || strings.TrimSpace(db) != "passwd" {
			continue
		}
		for source := range strings.FieldsSeq(sources) {
			if source != "files" {
				return false
			}
		}
		return true
	}
	return false
}
