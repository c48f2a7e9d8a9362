package parent

import (
	"context"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"strings"
	"syscall"
	"time"

	"opensmtpd/src/conf"
	"opensmtpd/src/conf/diag"
	"opensmtpd/src/conf/load"
	"opensmtpd/src/conf/project"
	"opensmtpd/src/privsep/proc"
	"opensmtpd/src/safefile"
)

// What others may not do with a certificate, and with a key.
const (
	certForbids = 0o022
	keyForbids  = 0o037
)

// openCerts opens the files of certificates for dispatcher, of keys with their
// certificates for crypto, and of authorities for dispatcher. Nothing of them is
// read here.
func openCerts(pl *plan, diags *diag.List) {
	open := func(role proc.Role, id, path string, forbids fs.FileMode, pos conf.Pos) {
		if slices.ContainsFunc(pl.files[role], func(f proc.File) bool { return f.Identity == id }) {
			return
		}
		f, err := openCert(path, forbids)
		if err != nil {
			diags.Errorf(pos, "%s: %s", path, reason(err))
			return
		}
		pl.files[role] = append(pl.files[role], proc.File{Identity: id, File: f})
	}
	for _, k := range pl.loaded.PKIs {
		for _, role := range []proc.Role{proc.Dispatcher, proc.Crypto} {
			open(role, project.CertIdentity(k.Cert), k.Cert, certForbids, k.Place("cert"))
		}
		open(proc.Crypto, project.KeyIdentity(k.Key), k.Key, keyForbids, k.Place("key"))
	}
	for _, c := range pl.loaded.CAs {
		open(proc.Dispatcher, project.CAIdentity(c.Cert), c.Cert, certForbids, c.Place("cert"))
	}
}

// openCert opens a file and looks once more, now that it is open, whether others
// can change or read it: the configuration was checked by name.
func openCert(path string, forbids fs.FileMode) (*os.File, error) {
	f, err := safefile.Open(path)
	if err != nil {
		return nil, err
	}
	fi, err := f.Stat()
	if err == nil && fi.Mode().Perm()&forbids != 0 {
		err = fmt.Errorf("insecure permissions %04o", fi.Mode().Perm())
	}
	if err != nil {
		f.Close()
		return nil, err
	}
	return f, nil
}

// renewEvery is how often the files of certificates are looked at: some calls of
// stat(2), which cost nothing, for a new certificate that is shown when whoever
// renewed it looks.
const renewEvery = 10 * time.Second

// certState tells what the files of certificates are like; it is another one when
// a file was written or replaced.
func certState(l *load.Loaded) string {
	var b strings.Builder
	add := func(path string) {
		fi, err := os.Stat(path)
		if err != nil {
			fmt.Fprintf(&b, "%s: %v\n", path, reason(err))
			return
		}
		fmt.Fprintf(&b, "%s %d %d", path, fi.ModTime().UnixNano(), fi.Size())
		if st, ok := fi.Sys().(*syscall.Stat_t); ok {
			fmt.Fprintf(&b, " %d", st.Ino)
		}
		b.WriteByte('\n')
	}
	for _, k := range l.PKIs {
		add(k.Cert)
		add(k.Key)
	}
	for _, c := range l.CAs {
		add(c.Cert)
	}
	return b.String()
}

// keepCerts takes renewed certificates until ctx ends.
func (p *Parent) keepCerts(ctx context.Context) {
	for {
		due, cancel := p.clock.After(renewEvery)
		select {
		case <-due:
			p.renewCerts(ctx)
		case <-ctx.Done():
			cancel()
			return
		}
	}
}

// renewCerts has crypto and dispatcher take the files of certificates if they
// have changed: both, or neither. The generation stays, for nothing else of the
// configuration changes. Of files that cannot be used it is said once; certificate
// and key are replaced one after the other, so that the next look may find all
// well.
func (p *Parent) renewCerts(ctx context.Context) {
	p.reloading.Lock()
	defer p.reloading.Unlock()
	p.mu.Lock()
	l := p.confs.confs[p.gen]
	p.mu.Unlock()
	if l == nil {
		return
	}
	state := certState(l)
	if state == p.certs {
		return
	}
	p.certs = state
	if err := p.takeCerts(ctx, l); err != nil {
		p.log.CertsNotRenewed(err)
		return
	}
	p.log.CertsRenewed()
}

// certRoles are those that certificates are for, the one that is asked first.
func certRoles() []proc.Role { return []proc.Role{proc.Crypto, proc.Dispatcher} }

func (p *Parent) takeCerts(ctx context.Context, l *load.Loaded) error {
	ctx, cancel := context.WithTimeout(ctx, prepareTime)
	defer cancel()
	var diags diag.List
	pl := &plan{gen: p.gen, loaded: l, files: make(map[proc.Role][]proc.File)}
	defer pl.close()
	openCerts(pl, &diags)
	if err := inOneLine(&diags); err != nil {
		return err
	}
	for _, role := range certRoles() {
		b, err := projection(role, l)
		if err == nil {
			files := pl.files[role]
			delete(pl.files, role) // from here on they are the child's
			_, err = p.child(role).Prepare(ctx, pl.gen, b, files)
		}
		if err != nil {
			for _, role := range certRoles() {
				_ = p.child(role).Abort(context.Background(), pl.gen)
			}
			return err
		}
	}
	for _, role := range certRoles() {
		if err := p.child(role).Commit(ctx, pl.gen); err != nil {
			return err // a role is gone: the daemon stops
		}
	}
	return nil
}
