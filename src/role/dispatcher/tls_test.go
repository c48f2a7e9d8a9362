package dispatcher

import (
	"bufio"
	"context"
	"crypto/tls"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"opensmtpd/src/conf"
	"opensmtpd/src/conf/project"
	"opensmtpd/src/mail"
	"opensmtpd/src/pki/pkitest"
	"opensmtpd/src/privsep/proc"
)

// open writes a file and returns it as parent hands it over.
func open(t *testing.T, id string, text []byte) proc.File {
	t.Helper()
	name := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(name, text, 0o600); err != nil {
		t.Fatal(err)
	}
	f, err := os.Open(name)
	if err != nil {
		t.Fatal(err)
	}
	return proc.File{Identity: id, File: f}
}

// secured is a configuration with a listener "a" of SMTPS, changed as a test
// likes.
func secured(t *testing.T, gen mail.Gen, cert []byte, change func(*project.DispatcherConf), files ...proc.File) proc.Conf {
	t.Helper()
	p := project.DispatcherConf{
		ServerName: "mx.example.com", MaxMessageSize: 1 << 20, MaxMails: 100, MaxRcpt: 1000,
		PKIs: []project.PKI{{Name: "mx", Identity: "cert:mx"}},
		CAs:  []project.CA{{Name: "office", Identity: "ca:office"}},
		Listeners: []project.Listener{{
			Identity: "a", Hostname: "mx.example.com", Addr: netip.MustParseAddrPort("127.0.0.1:465"),
			TLS: conf.SMTPS, PKIs: []string{"mx"},
		}},
	}
	if change != nil {
		change(&p)
	}
	b, err := project.Encode(&p)
	if err != nil {
		t.Fatal(err)
	}
	return proc.Conf{Gen: gen, Projection: b, Files: append(files, open(t, "cert:mx", cert))}
}

// TestCertificateExpires holds that the log tells of a certificate that expires in
// use, once.
func TestCertificateExpires(t *testing.T) {
	r, _ := newRig(t)
	ca := pkitest.New(t)
	cert, _ := ca.IssueAt(r.clk.Now(), pkitest.ECDSA, "mx.example.com")
	if err := r.Prepare(t.Context(), secured(t, 2, cert, nil)); err != nil {
		t.Fatal(err)
	}
	r.Commit(2)
	told := func() int {
		return strings.Count(r.log.String(), "warn: pki mx: the certificate has expired on 2026-03-05")
	}
	if told() != 0 {
		t.Errorf("log: %v", r.log)
	}
	for told() == 0 {
		r.clk.BlockUntil(1)
		r.clk.Advance(datesEvery)
	}
	for range 5 {
		r.clk.BlockUntil(1)
		r.clk.Advance(datesEvery)
	}
	if r.stop(); told() != 1 {
		t.Errorf("told %d times", told())
	}
}

// TestCertificates holds that a configuration's certificates are shown once it is
// in force, that they change without a new generation, and that one that is of no
// use changes nothing.
func TestCertificates(t *testing.T) {
	r, at := newRig(t)
	ca := pkitest.New(t)
	r.w.sign = ca.Sign
	first, _ := ca.Issue(pkitest.ECDSA, "mx.example.com")
	second, _ := ca.Issue(pkitest.ECDSA, "mx.example.com")
	serial := func() string {
		t.Helper()
		nc, err := tls.Dial("tcp", at, ca.Client("mx.example.com"))
		if err != nil {
			t.Fatal(err)
		}
		defer nc.Close()
		if line, err := bufio.NewReader(nc).ReadString('\n'); err != nil || !strings.HasPrefix(line, "220 ") {
			t.Errorf("%q, %v", line, err)
		}
		return nc.ConnectionState().PeerCertificates[0].SerialNumber.String()
	}
	take := func(c proc.Conf) {
		t.Helper()
		if err := r.Prepare(context.Background(), c); err != nil {
			t.Fatal(err)
		}
		r.Commit(c.Gen)
	}
	take(secured(t, 2, first, nil))
	old := serial()
	for want, c := range map[string]proc.Conf{
		"pki mx: holds no certificate": secured(t, 2, []byte("nothing\n"), nil),
		"there is no pki other":        secured(t, 2, second, func(p *project.DispatcherConf) { p.Listeners[0].PKIs = []string{"other"} }),
		"ca office: its file was not given": secured(t, 2, second, func(p *project.DispatcherConf) {
			p.Listeners[0].TLSVerify, p.Listeners[0].CA = true, "office"
		}),
		"ca office: holds no certificate": secured(t, 2, second, func(p *project.DispatcherConf) {
			p.Listeners[0].TLSVerify, p.Listeners[0].CA = true, "office"
		}, open(t, "ca:office", []byte("nothing\n"))),
		"holds no certificate":    secured(t, 2, second, func(p *project.DispatcherConf) { p.Listeners[0].TLSVerify = true }),
		`ciphers: "HIHG" is unkn`: secured(t, 2, second, func(p *project.DispatcherConf) { p.Ciphers = "HIHG" }),
		`protocols: SSLv3 is not`: secured(t, 2, second, func(p *project.DispatcherConf) { p.Listeners[0].Protocols = "SSLv3" }),
	} {
		err := r.Prepare(context.Background(), c)
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v, want %q", err, want)
		}
		for _, f := range c.Files {
			if _, err := f.File.Stat(); err == nil {
				t.Errorf("%s: %s is open still", want, f.Identity)
			}
		}
	}
	if serial() != old {
		t.Error("a configuration that was refused is in force")
	}
	take(secured(t, 2, second, nil))
	if serial() == old {
		t.Error("the old certificate is shown")
	}
}
