package parent

import (
	"fmt"
	"io/fs"
	"os"
	"slices"

	"opensmtpd/src/conf"
	"opensmtpd/src/conf/diag"
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
