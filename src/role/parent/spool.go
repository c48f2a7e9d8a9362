package parent

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"os/user"
	"path/filepath"
	"strconv"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"opensmtpd/src/paths"
	"opensmtpd/src/queue"
	"opensmtpd/src/safefile"
)

// probeTime is how long another smtpd may take to accept on the socket.
const probeTime = 2 * time.Second

// orphanTime is how long the roles of a daemon whose parent died are waited for.
// Another daemon that lives has answered at its socket before.
const orphanTime = 3 * time.Second

// spoolDir is a directory that must be there before queue starts.
type spoolDir struct {
	path  string
	perm  fs.FileMode
	owner User
	group uint32
}

// spoolDirs lists the spool and its directories with the owners that
// OpenSMTPD gives them; in unprivileged mode all are ours.
func (p *Parent) spoolDirs() []spoolDir {
	root := p.opt.Paths.Spool
	q, top := p.who.queue, User{Name: "root"}
	dirs := []spoolDir{{root, 0o711, top, 0}}
	if p.who.unprivileged {
		dirs[0] = spoolDir{root, 0o700, q, q.GID}
	}
	for _, name := range append(queue.Dirs(), "temporary", "purge") {
		dirs = append(dirs, spoolDir{filepath.Join(root, name), 0o700, q, q.GID})
	}
	// sendmail leaves mail here, by the set-gid bit of smtpctl, while no
	// smtpd runs.
	offline := spoolDir{filepath.Join(root, "offline"), 0o770, top, q.GID}
	if p.who.unprivileged {
		offline = spoolDir{filepath.Join(root, "offline"), 0o700, q, q.GID}
	}
	return append(dirs, offline)
}

// prepareSpool makes the directories that are missing, refuses those that are
// not as they must be, and takes the lock.
func (p *Parent) prepareSpool() error {
	var errs []error
	for _, d := range p.spoolDirs() {
		if err := d.ensure(!p.who.unprivileged); err != nil {
			errs = append(errs, err)
		}
	}
	if len(errs) > 0 {
		return errors.Join(errs...)
	}
	return p.takeLock()
}

// ensure makes the directory, or checks it.
func (d spoolDir) ensure(give bool) error {
	fi, err := os.Lstat(d.path)
	if errors.Is(err, fs.ErrNotExist) {
		return d.make(give)
	}
	if err != nil {
		return fmt.Errorf("spool: %w", err)
	}
	uid, gid := ownerOf(fi)
	switch bad := fi.Mode().Perm() &^ d.perm; {
	case !fi.IsDir():
		return fmt.Errorf("spool: %s is not a directory", d.path)
	case uid != d.owner.UID:
		return fmt.Errorf("spool: %s belongs to %s, must belong to %s", d.path, userName(uid), d.owner.Name)
	case d.perm&0o070 == 0o070 && gid != d.group:
		return fmt.Errorf("spool: %s has group %s, must have group %s", d.path, groupName(gid), groupName(d.group))
	case bad != 0:
		return fmt.Errorf("spool: %s has mode %04o, must not be more than %04o", d.path, fi.Mode().Perm(), d.perm)
	}
	return nil
}

func (d spoolDir) make(give bool) error {
	if err := os.MkdirAll(d.path, 0o700); err != nil {
		return fmt.Errorf("spool: %w", err)
	}
	if give {
		if err := os.Lchown(d.path, int(d.owner.UID), int(d.group)); err != nil {
			return fmt.Errorf("spool: %w", err)
		}
	}
	if err := os.Chmod(d.path, d.perm); err != nil { // whatever the umask is
		return fmt.Errorf("spool: %w", err)
	}
	return nil
}

func ownerOf(fi fs.FileInfo) (uid, gid uint32) {
	if st, ok := fi.Sys().(*syscall.Stat_t); ok {
		return st.Uid, st.Gid
	}
	return 0, 0
}

func userName(uid uint32) string {
	if u, err := user.LookupId(strconv.FormatUint(uint64(uid), 10)); err == nil {
		return u.Username
	}
	return fmt.Sprintf("uid %d", uid)
}

func groupName(gid uint32) string {
	number := strconv.FormatUint(uint64(gid), 10)
	if g, err := user.LookupGroupId(number); err == nil {
		return g.Name
	}
	return number
}

// errRunning is what a second instance is told.
func errRunning(where string) error {
	return fmt.Errorf("smtpd is already running: %s is in use", where)
}

// takeLock locks the spool for as long as we or queue live: queue holds the
// same open file, so that nobody can start while an orphaned queue still writes.
// Such a one ends soon, and a service manager that starts us again at once would
// give up before, so it is waited for.
func (p *Parent) takeLock() error {
	f, err := os.Open(p.opt.Paths.Spool)
	if err != nil {
		return fmt.Errorf("spool: %w", err)
	}
	err = p.flock(f)
	if err != nil {
		f.Close()
		if errors.Is(err, unix.EWOULDBLOCK) {
			return errRunning(p.opt.Paths.Spool)
		}
		return fmt.Errorf("spool: lock: %w", err)
	}
	p.lock = f
	return nil
}

// flock tries to lock a file until orphanTime has passed.
func (p *Parent) flock(f *os.File) error {
	for end := p.clock.Mono() + orphanTime; ; {
		err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
		if !errors.Is(err, unix.EWOULDBLOCK) || p.clock.Mono() >= end {
			return err
		}
		again, _ := p.clock.After(orphanTime / 100)
		<-again
	}
}

// alone asks at the control socket whether another smtpd answers there.
func (p *Parent) alone() error {
	d := net.Dialer{Timeout: probeTime}
	c, err := d.DialContext(context.Background(), "unix", p.opt.Paths.Socket)
	if err == nil {
		c.Close()
		return errRunning(p.opt.Paths.Socket)
	}
	return nil
}

// listenControl makes the control socket, in place of one that a daemon which
// died has left.
func (p *Parent) listenControl() (*os.File, error) {
	path := p.opt.Paths.Socket
	if fi, err := os.Lstat(path); err == nil {
		if fi.Mode()&fs.ModeSocket == 0 {
			return nil, fmt.Errorf("%s is in the way of the control socket: it is not a socket", path)
		}
		if err := os.Remove(path); err != nil {
			return nil, fmt.Errorf("control socket: %w", err)
		}
	}
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		return nil, fmt.Errorf("control socket: %w", err)
	}
	defer l.Close()
	l.SetUnlinkOnClose(false)
	// Everybody may connect; who may do what is control's business.
	if err := os.Chmod(path, 0o666); err != nil {
		return nil, fmt.Errorf("control socket: %w", err)
	}
	return l.File()
}

// writePid says under which number the daemon can be found.
func (p *Parent) writePid() error {
	return safefile.Replace(p.opt.Paths.PidFile, fmt.Appendf(nil, "%d\n", os.Getpid()), 0o644)
}

// removeNames takes away what the daemon put into the file system for its
// time; only who holds the lock has.
func (p *Parent) removeNames() {
	if !p.named {
		return
	}
	_ = os.Remove(p.opt.Paths.Socket)
	_ = os.Remove(p.opt.Paths.PidFile)
}

// executable returns where our program lies, for what is installed beside it.
func executable() string {
	exe, err := os.Executable()
	if err != nil {
		return "/usr/sbin/smtpd"
	}
	return exe
}

func libExec() string { return paths.LibExec(executable()) }
