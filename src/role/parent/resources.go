package parent

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"opensmtpd/src/conf"
	"opensmtpd/src/conf/load"
	"opensmtpd/src/mlog"
	"opensmtpd/src/privsep/msg"
	"opensmtpd/src/privsep/proc"
)

// caBundles are the files in which systems keep the certificates that they
// trust, most specific first.
func caBundles() []string {
	return []string{
		"/etc/ssl/certs/ca-certificates.crt", // Debian, Alpine, Arch
		"/etc/pki/tls/certs/ca-bundle.crt",   // Fedora, RHEL
		"/etc/ssl/ca-bundle.pem",             // openSUSE
		"/etc/ssl/cert.pem",                  // OpenBSD, FreeBSD, macOS, Alpine
		"/usr/local/share/certs/ca-root-nss.crt",
	}
}

// resources reads what a role cannot see from its root directory.
func (p *Parent) resources(row role, l *load.Loaded) (map[string]string, error) {
	r := make(map[string]string)
	if row.dns {
		// Without these files the answers are those of an empty one.
		resolv, _ := os.ReadFile("/etc/resolv.conf")
		hosts, _ := os.ReadFile("/etc/hosts")
		r[msg.ResourceResolvConf], r[msg.ResourceHosts] = string(resolv), string(hosts)
	}
	if row.users {
		r[msg.ResourceUIDs] = fmt.Sprintf("root=0\n%s=%d\n%s=%d\n",
			p.who.daemon.Name, p.who.daemon.UID, p.who.queue.Name, p.who.queue.UID)
		var ops strings.Builder
		for _, uid := range p.who.operators {
			fmt.Fprintln(&ops, uid)
		}
		r[msg.ResourceOperators] = ops.String()
	}
	if row.certs && (relays(l) || asksClients(l)) {
		bundle, err := caBundle(verifies(l))
		if err != nil {
			return nil, err
		}
		r[msg.ResourceCABundle] = bundle
	}
	return r, nil
}

// relays tells whether mail goes to other servers, so that certificates matter.
func relays(l *load.Loaded) bool {
	for _, a := range l.Actions {
		if a.Method == conf.Relay {
			return true
		}
	}
	return false
}

// verifies tells whether some action insists on a certificate that is trusted.
func verifies(l *load.Loaded) bool {
	for _, a := range l.Actions {
		if a.Method == conf.Relay && a.TLS && !a.NoVerify && a.CA == "" {
			return true
		}
	}
	return asksClients(l)
}

// asksClients tells whether some listener wants certificates of clients, and
// trusts whom the system trusts.
func asksClients(l *load.Loaded) bool {
	return slices.ContainsFunc(l.Listens, func(l *conf.Listen) bool { return l.TLSVerify && l.CA == "" })
}

// caBundle returns the certificates that this system trusts. To have none is an
// error where they are needed: in a chroot it would look like a failure of
// every peer.
func caBundle(needed bool) (string, error) {
	names := caBundles()
	if name := os.Getenv("SSL_CERT_FILE"); name != "" {
		names = []string{name}
	}
	for _, name := range names {
		b, err := os.ReadFile(name)
		if err == nil && bytes.Contains(b, []byte("-----BEGIN CERTIFICATE-----")) {
			return string(b), nil
		}
	}
	if needed {
		return "", errors.New("an action or a listener wants verified TLS, but this system has no file of trusted certificates (package ca-certificates)")
	}
	return "", nil
}

// giveResources hands over what changed since the last time.
func (p *Parent) giveResources(ctx context.Context, c *proc.Child, row role, l *load.Loaded) error {
	r, err := p.resources(row, l)
	if err != nil {
		return err
	}
	p.mu.Lock()
	before := p.given[c.Role]
	p.given[c.Role] = r
	p.mu.Unlock()
	for name, data := range r {
		if old, ok := before[name]; ok && old == data {
			continue
		}
		if err := c.Give(ctx, name, []byte(data)); err != nil {
			return err
		}
	}
	return nil
}

// giveSyslog hands every role a socket to syslogd, made before it has no /dev
// any more. Without syslogd lines are lost, and counted, until a reload.
func (p *Parent) giveSyslog(ctx context.Context) error {
	if p.syslog == nil {
		return nil
	}
	if f, err := mlog.DialSyslog(); err == nil {
		p.syslog.Replace(f)
	}
	return p.each(func(_ int, c *proc.Child) error {
		f, err := mlog.DialSyslog()
		if err != nil {
			return nil
		}
		return c.GiveFile(ctx, msg.ResourceSyslog, f)
	})
}

// zoneName returns the name of the local time zone, "" when only its rules are
// known.
func zoneName() string {
	if tz, ok := os.LookupEnv("TZ"); ok {
		return strings.TrimPrefix(tz, ":")
	}
	target, err := filepath.EvalSymlinks("/etc/localtime")
	if err != nil {
		return ""
	}
	_, name, _ := strings.Cut(target, "/zoneinfo/")
	return name
}

// environment is what the processes of the daemon get of ours: nothing that
// whoever started it could use to steer them.
func environment() []string {
	env := []string{"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"}
	if tz, ok := os.LookupEnv("TZ"); ok {
		env = append(env, "TZ="+tz)
	}
	return env
}
