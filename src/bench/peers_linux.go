package main

import (
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
)

// mailboxes is how many users the mail is spread over.
const mailboxes = 20

// peer is a server that can be measured.
type peer struct {
	name string
	// jail returns how to run it to listen on port of 127.0.0.1 and to deliver
	// to /home/bNN/Maildir, with its queue below /queue.
	jail func(dir string, port int) (*jail, error)
}

// ourUsers are those that servers run as. Never written.
var ourUsers = []string{"_smtpd", "_smtpq", "postfix", "postdrop", "opensmtpd", "opensmtpq"}

// accounts returns passwd and group files: the machine's own, the users that the
// servers need, and the mailboxes' owners.
func accounts() (passwd, group string, err error) {
	p, err := os.ReadFile("/etc/passwd")
	if err != nil {
		return "", "", err
	}
	g, err := os.ReadFile("/etc/group")
	if err != nil {
		return "", "", err
	}
	var pw, gr strings.Builder
	for line := range strings.Lines(string(p)) {
		if name, _, _ := strings.Cut(line, ":"); !slices.Contains(ourUsers, name) {
			pw.WriteString(line)
		}
	}
	for line := range strings.Lines(string(g)) {
		if name, _, _ := strings.Cut(line, ":"); !slices.Contains(ourUsers, name) {
			gr.WriteString(line)
		}
	}
	for i, name := range ourUsers {
		fmt.Fprintf(&pw, "%s:x:%d:%d::/var/empty:/usr/sbin/nologin\n", name, 7001+i, 7001+i)
		fmt.Fprintf(&gr, "%s:x:%d:\n", name, 7001+i)
	}
	for i := range mailboxes {
		fmt.Fprintf(&pw, "b%02d:x:%d:%d::/home/b%02d:/bin/sh\n", i, 7100+i, 7100+i, i)
		fmt.Fprintf(&gr, "b%02d:x:%d:\n", i, 7100+i)
	}
	return pw.String(), gr.String(), nil
}

// recipients returns the mailboxes' addresses.
func recipients() []string {
	var r []string
	for i := range mailboxes {
		r = append(r, fmt.Sprintf("b%02d@localhost", i))
	}
	return r
}

const makeHomes = `for i in $(seq -w 0 19); do mkdir -p /home/b$i; chown b$i:b$i /home/b$i; chmod 700 /home/b$i; done`

// newJail makes what every peer's jail has.
func newJail(dir string, files map[string]string, debs []string) (*jail, error) {
	passwd, group, err := accounts()
	if err != nil {
		return nil, err
	}
	files["/etc/passwd"], files["/etc/group"] = passwd, group
	j := &jail{
		Dir: dir, Debs: debs, Files: files, Prepare: []string{makeHomes},
		Binds:  map[string]string{"/home": filepath.Join(dir, "home"), "/queue": filepath.Join(dir, "queue")},
		Output: filepath.Join(dir, "output"),
	}
	for _, d := range j.Binds {
		if err := os.MkdirAll(d, 0o755); err != nil {
			return nil, err
		}
	}
	return j, nil
}

// ours is our server with a configuration; it listens on port.
func ours(bin, dir string, port int, conf string) (*jail, error) {
	conf = fmt.Sprintf("listen on 127.0.0.1 port %d\n", port) + conf
	j, err := newJail(dir, map[string]string{"/etc/mail/smtpd.conf": conf, "/etc/mail/mailname": "bench.localhost\n"}, nil)
	if err != nil {
		return nil, err
	}
	j.Binds["/opt/bench"] = bin
	// The queue must lie on the disk that is measured, where the others' lies.
	spool := filepath.Join(dir, "queue")
	j.Binds["/var/spool/smtpd"] = spool
	j.Prepare = append(j.Prepare, "chmod 0711 /var/spool/smtpd", "mkdir -p /var/empty /var/run", "chmod 0755 /var/empty")
	j.Command = []string{"/bin/sh", "-c", "exec /opt/bench/smtpd -d -f /etc/mail/smtpd.conf 2>/queue/log"}
	return j, nil
}

// opensmtpd is Debian's, with a configuration.
func opensmtpd(debs []string, dir string, port int, conf string) (*jail, error) {
	conf = fmt.Sprintf("listen on 127.0.0.1 port %d\n", port) + conf
	j, err := newJail(dir, map[string]string{"/etc/smtpd.conf": conf, "/etc/mailname": "bench.localhost\n"}, debs)
	if err != nil {
		return nil, err
	}
	j.Binds["/var/spool/smtpd"] = filepath.Join(dir, "queue")
	j.Prepare = append(j.Prepare, "chmod 0711 /var/spool/smtpd", "mkdir -p /var/lib/opensmtpd/empty /var/run",
		"chmod 0755 /var/lib/opensmtpd/empty", "chgrp opensmtpq /usr/sbin/smtpctl")
	j.Command = []string{"/bin/sh", "-c", "exec /usr/sbin/smtpd -d -f /etc/smtpd.conf 2>/queue/log"}
	return j, nil
}

// postfix is Debian's, with settings beside the usual ones.
func postfix(debs []string, dir string, port int, settings string) (*jail, error) {
	main := `compatibility_level = 3.6
queue_directory = /queue
data_directory = /var/lib/postfix
command_directory = /usr/sbin
daemon_directory = /usr/lib/postfix/sbin
mail_owner = postfix
setgid_group = postdrop
myhostname = bench.localhost
mynetworks = 127.0.0.0/8
inet_interfaces = 127.0.0.1
inet_protocols = ipv4
alias_maps =
alias_database =
local_recipient_maps =
smtpd_tls_security_level = none
maillog_file = /var/log/postfix.log
maillog_file_prefixes = /var
` + settings
	var master strings.Builder
	fmt.Fprintf(&master, "127.0.0.1:%d inet n - n - - smtpd\n", port)
	for _, s := range []string{
		"pickup unix n - n 60 1 pickup", "cleanup unix n - n - 0 cleanup", "qmgr unix n - n 300 1 qmgr",
		"tlsmgr unix - - n 1000? 1 tlsmgr", "rewrite unix - - n - - trivial-rewrite", "bounce unix - - n - 0 bounce",
		"defer unix - - n - 0 bounce", "trace unix - - n - 0 bounce", "verify unix - - n - 1 verify",
		"flush unix n - n 1000? 0 flush", "proxymap unix - - n - - proxymap", "smtp unix - - n - - smtp",
		"error unix - - n - - error", "retry unix - - n - - error", "discard unix - - n - - discard",
		"local unix - n n - - local", "virtual unix - n n - - virtual", "lmtp unix - - n - - lmtp",
		"anvil unix - - n - 1 anvil", "scache unix - - n - 1 scache", "postlog unix-dgram n - n - 1 postlogd",
	} {
		master.WriteString(s + "\n")
	}
	j, err := newJail(dir, map[string]string{"/etc/postfix/main.cf": main, "/etc/postfix/master.cf": master.String()}, debs)
	if err != nil {
		return nil, err
	}
	j.Prepare = append(j.Prepare,
		"mkdir -p /var/lib/postfix && chown postfix:postfix /var/lib/postfix",
		"chgrp postdrop /usr/sbin/postdrop /usr/sbin/postqueue && chmod g+s /usr/sbin/postdrop /usr/sbin/postqueue",
		"postfix check")
	j.Command = []string{"/usr/sbin/postfix", "start-fg"}
	return j, nil
}

// postfixPackages is Postfix with what it needs. Never written.
var postfixPackages = []string{"postfix", "libicu72", "libdb5.3", "libsasl2-2", "libnsl2", "libtirpc3"}

// opensmtpdPackages is OpenSMTPD with what it needs. Never written.
var opensmtpdPackages = []string{"opensmtpd", "libevent-2.1-7", "libdb5.3"}

// fetch gets Debian packages by name into the cache directory, unless they are
// there, and returns their files.
func fetch(ctx context.Context, cache string, names ...string) ([]string, error) {
	if _, err := exec.LookPath("apt-get"); err != nil {
		return nil, fmt.Errorf("no apt-get here to fetch %s with", names[0])
	}
	if err := os.MkdirAll(cache, 0o777); err != nil {
		return nil, err
	}
	if err := os.Chmod(cache, 0o777); err != nil { // apt's own user writes there
		return nil, err
	}
	var files []string
	for _, name := range names {
		pattern := filepath.Join(cache, name+"_*.deb")
		have, err := filepath.Glob(pattern)
		if err != nil {
			return nil, err
		}
		if len(have) == 0 {
			c := exec.CommandContext(ctx, "apt-get", "-qq", "download", name)
			c.Dir = cache
			if out, err := c.CombinedOutput(); err != nil {
				return nil, fmt.Errorf("apt-get download %s: %v: %s", name, err, out)
			}
			if have, err = filepath.Glob(pattern); err != nil || len(have) == 0 {
				return nil, fmt.Errorf("apt-get download %s left no package", name)
			}
		}
		files = append(files, have[0])
	}
	return files, nil
}

// freePort asks the system for a port that nobody uses.
func freePort() (int, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return 0, err
	}
	defer l.Close()
	return l.Addr().(*net.TCPAddr).Port, nil
}
