// Package paths says where things are: in the system's places, or, in
// unprivileged mode, below one state directory.
package paths

import (
	"os"
	"path/filepath"
)

// The users that the roles become.
const (
	User      = "_smtpd" // dispatcher, lookup, control, crypto
	QueueUser = "_smtpq" // queue
	// Operators is the group whose members may do what root may, by smtpctl.
	Operators = "operators"
)

// StateEnv is the environment variable that does for smtpctl, sendmail, mailq,
// makemap and newaliases what -S does for smtpd.
const StateEnv = "SMTPD_STATE"

// Set is one arrangement of places.
type Set struct {
	State   string // the state directory; "" for the system's places
	Conf    string // smtpd.conf
	Spool   string // the queue and its company
	Socket  string // the control socket
	PidFile string
	Chroot  string // where roles without files lock themselves in; "" for nowhere
}

// System returns the places of a daemon that root started.
func System() Set {
	return Set{
		Conf:    "/etc/mail/smtpd.conf",
		Spool:   "/var/spool/smtpd",
		Socket:  "/var/run/smtpd.sock",
		PidFile: "/var/run/smtpd.pid",
		Chroot:  "/var/empty",
	}
}

// In returns the places below the state directory dir, which becomes absolute.
func In(dir string) (Set, error) {
	dir, err := filepath.Abs(dir)
	if err != nil {
		return Set{}, err
	}
	return Set{
		State:   dir,
		Conf:    filepath.Join(dir, "smtpd.conf"),
		Spool:   filepath.Join(dir, "spool"),
		Socket:  filepath.Join(dir, "smtpd.sock"),
		PidFile: filepath.Join(dir, "smtpd.pid"),
	}, nil
}

// Resolve returns the places that a program is to use: below dir, the argument
// of its -S, if that is not empty, else below what the environment names, else
// the system's. A program that runs set-id ignores the environment, and -S with
// it: its rights are not for directories that the caller chose.
func Resolve(dir string, getenv func(string) string, setID bool) (Set, error) {
	if setID {
		return System(), nil
	}
	if dir == "" {
		dir = getenv(StateEnv)
	}
	if dir == "" {
		return System(), nil
	}
	return In(dir)
}

// SetID tells whether this process was given rights that its user does not
// have, by a set-id bit of its file.
func SetID() bool {
	return os.Getuid() != os.Geteuid() || os.Getgid() != os.Getegid()
}

// MailDir holds the system mailboxes.
const MailDir = "/var/mail"

// LibExec returns the directory of mail.maildir and its like, given the path of
// the running smtpd: its own directory in a built tree, else
// ../libexec/opensmtpd as installed.
func LibExec(executable string) string {
	dir := filepath.Dir(executable)
	if _, err := os.Stat(filepath.Join(dir, "mail.maildir")); err == nil {
		return dir
	}
	return filepath.Join(dir, "..", "libexec", "opensmtpd")
}

// LibExecs lists the directories of filter and table programs, given the path of
// the running smtpd: ours, and those into which systems put programs that were
// made for OpenSMTPD.
func LibExecs(executable string) []string {
	return []string{
		LibExec(executable),
		"/usr/libexec/opensmtpd", "/usr/local/libexec/opensmtpd", // Debian, FreeBSD
		"/usr/libexec/smtpd", "/usr/local/libexec/smtpd", // OpenBSD
		"/usr/lib/opensmtpd", // Alpine, Arch
	}
}
