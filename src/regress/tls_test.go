package regress

import (
	"bufio"
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"strings"
	"testing"

	"opensmtpd/src/pki/pkitest"
	"opensmtpd/src/regress/daemon"
)

// tlsDaemon is a daemon with STARTTLS at its address and SMTPS at another one.
type tlsDaemon struct {
	*daemon.Daemon
	ca    *pkitest.Authority
	smtps string // host:port
}

// newTLS makes the daemon's certificates, of these kinds and for these names, and
// a configuration that shows them in this order. options are those of both
// listeners, global stands before them.
func newTLS(t *testing.T, global, options string, names ...string) *tlsDaemon {
	t.Helper()
	d := &tlsDaemon{Daemon: daemon.New(t, ""), ca: pkitest.New(t)}
	port := daemon.FreePort(t)
	d.smtps = "127.0.0.1:" + port
	d.write("ca.pem", d.ca.PEM)
	var conf strings.Builder
	fmt.Fprintf(&conf, "ca test cert %q\n%s\n", d.Path("ca.pem"), global)
	pkis := ""
	for _, name := range names {
		kind, host, _ := strings.Cut(name, ":")
		d.issue(kind, host)
		fmt.Fprintf(&conf, "pki %s cert %q key %q\n", host, d.Path(host+".crt"), d.Path(host+".key"))
		pkis += " pki " + host
	}
	fmt.Fprintf(&conf, "listen on 127.0.0.1 port $port tls%s%s\nlisten on 127.0.0.1 port %s smtps%s%s\n", pkis, options, port, pkis, options)
	conf.WriteString("action \"local\" maildir $box\nmatch from any for local action \"local\"\n")
	d.Configure(conf.String())
	return d
}

func (d *tlsDaemon) write(name string, text []byte) {
	d.ca.TB().Helper()
	if err := os.WriteFile(d.Path(name+".new"), text, 0o600); err != nil {
		d.ca.TB().Fatal(err)
	}
	if err := os.Rename(d.Path(name+".new"), d.Path(name)); err != nil { // nobody reads half a file
		d.ca.TB().Fatal(err)
	}
}

// append adds to the configuration.
func (d *tlsDaemon) append(conf string) {
	d.ca.TB().Helper()
	text, err := os.ReadFile(d.Path("smtpd.conf"))
	if err != nil {
		d.ca.TB().Fatal(err)
	}
	d.Configure(string(text) + conf)
}

// issue makes a new certificate and its key in place of the old ones.
func (d *tlsDaemon) issue(kind, host string) {
	cert, key := d.ca.Issue(kind, host)
	d.write(host+".crt", cert)
	d.write(host+".key", key)
}

// serial returns which certificate a client sees that asks for a name.
func (d *tlsDaemon) serial(t *testing.T, name string) string {
	t.Helper()
	nc, err := tls.Dial("tcp", d.smtps, &tls.Config{ServerName: name, InsecureSkipVerify: true})
	if err != nil {
		t.Fatal(err)
	}
	defer nc.Close()
	return nc.ConnectionState().PeerCertificates[0].SerialNumber.String()
}

// client runs a program with input, and skips the rest of a test when it is not
// installed.
func client(t *testing.T, input, program string, args ...string) string {
	t.Helper()
	path, err := exec.LookPath(program)
	if err != nil {
		t.Skipf("%s is not installed", program)
	}
	ctx, cancel := context.WithTimeout(t.Context(), daemon.Wait)
	defer cancel()
	cmd := exec.CommandContext(ctx, path, args...)
	cmd.Stdin = strings.NewReader(input)
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Errorf("%s %v: %v\n%s", program, args, err, out)
	}
	return string(out)
}

// sClient runs openssl s_client, which sees the greeting and then quits, and
// returns what it has written.
func sClient(t *testing.T, args ...string) string {
	t.Helper()
	path, err := exec.LookPath("openssl")
	if err != nil {
		t.Skip("openssl is not installed")
	}
	ctx, cancel := context.WithTimeout(t.Context(), daemon.Wait)
	defer cancel()
	cmd := exec.CommandContext(ctx, path, args...)
	stdin, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	cmd.Stderr = cmd.Stdout
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	var all strings.Builder
	in := bufio.NewReader(stdout)
	for err == nil {
		var line string
		line, err = in.ReadString('\n')
		all.WriteString(line)
		// The greeting, or, behind STARTTLS, the end of the offers.
		if strings.HasPrefix(line, "220 ") || strings.HasPrefix(line, "250 HELP") {
			_, _ = io.WriteString(stdin, "QUIT\n") // what it answers tells
		}
	}
	if err := cmd.Wait(); err != nil {
		t.Errorf("openssl %v: %v", args, err)
	}
	return all.String()
}

// TestTLSClients has programs that others wrote hand in mail by STARTTLS and by
// SMTPS, with every kind of key.
func TestTLSClients(t *testing.T) {
	t.Parallel()
	kinds := []string{pkitest.RSA, pkitest.RSA4096, pkitest.ECDSA, pkitest.P384, pkitest.P521, pkitest.Ed25519}
	var names []string
	for _, kind := range kinds {
		names = append(names, kind+":"+kind+".example.org")
	}
	d := newTLS(t, "", "", names...)
	d.Start()
	ca := d.Path("ca.pem")
	user := me(t)
	mail := 0
	t.Run("openssl", func(t *testing.T) {
		for _, kind := range kinds {
			name := kind + ".example.org"
			for _, version := range []string{"-tls1_2", "-tls1_3"} {
				for _, how := range [][]string{{"-connect", d.smtps}, {"-connect", d.Addr, "-starttls", "smtp"}} {
					args := append([]string{"s_client", "-servername", name, "-verify_hostname", name, "-CAfile", ca,
						"-verify_return_error", "-crlf", "-ign_eof", version}, how...)
					out := sClient(t, args...)
					if !strings.Contains(out, "Verify return code: 0 (ok)") || !strings.Contains(out, "221 2.0.0") {
						t.Errorf("%v:\n%s", args, out)
					}
				}
			}
		}
		// Who asks for no name, or for what is none, sees the first certificate.
		for _, name := range []string{"-noservername", "-servername=127.0.0.1", "-servername=other.example.org"} {
			out := sClient(t, "s_client", name, "-verify_hostname", "rsa.example.org", "-CAfile", ca, "-verify_return_error",
				"-crlf", "-ign_eof", "-connect", d.smtps)
			if !strings.Contains(out, "Verify return code: 0 (ok)") {
				t.Errorf("%s:\n%s", name, out)
			}
		}
	})
	t.Run("python", func(t *testing.T) {
		client(t, "", "python3", "-c", `
import smtplib, ssl, sys
c = ssl.create_default_context(cafile=sys.argv[1])
class Named(smtplib.SMTP_SSL):
    def _get_socket(self, host, port, timeout):
        return c.wrap_socket(smtplib.SMTP._get_socket(self, host, port, timeout), server_hostname="ecdsa.example.org")
s = Named(*sys.argv[2].split(":"), context=c)
s.sendmail("a@example.org", [sys.argv[4] + "@localhost"], "Subject: smtps\n\nbody\n")
s.quit()
s = smtplib.SMTP(*sys.argv[3].split(":"))
s._host = "rsa.example.org"
s.starttls(context=c)
s.sendmail("a@example.org", [sys.argv[4] + "@localhost"], "Subject: starttls\n\n" + "line\n" * 100000)
s.quit()
`, ca, d.smtps, d.Addr, user)
		mail += 2
		d.AwaitMail(mail)
	})
	t.Run("swaks", func(t *testing.T) {
		for _, how := range [][]string{{"--server", d.Addr, "--tls"}, {"--server", d.smtps, "--tls-on-connect"}} {
			out := client(t, "", "swaks", append(how, "--to", user+"@localhost", "--from", "a@example.org", "--hide-all")...)
			mail++
			if d.AwaitMail(mail); t.Failed() {
				t.Log(out)
			}
		}
	})
	t.Run("msmtp", func(t *testing.T) {
		for _, how := range [][]string{{d.Addr, "--tls-starttls=on"}, {d.smtps, "--tls-starttls=off"}} {
			host, port, _ := net.SplitHostPort(how[0])
			client(t, "Subject: msmtp\n\nbody\n", "msmtp", "--host="+host, "--port="+port, how[1], "--tls=on",
				"--tls-certcheck=off", "--from=a@example.org", user+"@localhost")
			mail++
			d.AwaitMail(mail)
		}
	})
	for _, text := range d.Mail(d.Path("Maildir")) {
		if !strings.Contains(text, "with ESMTPS id ") || !strings.Contains(text, "(TLSv1.3:TLS_") {
			t.Errorf("kept:\n%.600s", text)
		}
	}
}

// TestTLSStalled shows that mail flows while strangers keep 200 handshakes from
// going on (CVE-2013-2125), in clear behind STARTTLS and in SMTPS.
func TestTLSStalled(t *testing.T) {
	t.Parallel()
	const host = "mx.example.org"
	d := newTLS(t, "", "", "rsa:"+host)
	d.Start()
	for i := range 200 {
		addr, begin := d.smtps, "\x16\x03\x01\x02\x00\x01"[:i%7]
		if i%2 == 0 {
			addr, begin = d.Addr, "EHLO x\r\nSTARTTLS\r\n"
		}
		nc, err := net.Dial("tcp", addr)
		if err != nil {
			t.Fatal(err)
		}
		defer nc.Close()
		if addr == d.Addr {
			if _, err := nc.Read(make([]byte, 512)); err != nil { // the greeting
				t.Fatal(err)
			}
		}
		if _, err := io.WriteString(nc, begin); err != nil {
			t.Fatal(err)
		}
	}
	nc, err := tls.Dial("tcp", d.smtps, d.ca.Client(host))
	if err != nil {
		t.Fatal(err)
	}
	defer nc.Close()
	in := bufio.NewReader(nc)
	for _, say := range []string{"", "HELO x\r\n", "MAIL FROM:<a@example.org>\r\n", "RCPT TO:<" + me(t) + "@localhost>\r\n", "DATA\r\n", "\r\nbody\r\n.\r\n"} {
		if _, err := io.WriteString(nc, say); err != nil {
			t.Fatal(err)
		}
		if line, err := in.ReadString('\n'); err != nil || line[0] != '2' && line[0] != '3' {
			t.Fatalf("%q: %q, %v", say, line, err)
		}
	}
	d.AwaitMail(1)
}

// TestTLSRelay sends mail from one daemon to another that wants to know it: both
// certificates are verified, both signed for by crypto. Without one of its own the
// mail stays.
func TestTLSRelay(t *testing.T) {
	t.Parallel()
	to := newTLS(t, "", "", "rsa:localhost")
	text, err := os.ReadFile(to.Path("smtpd.conf"))
	if err != nil {
		t.Fatal(err)
	}
	to.Configure(strings.Replace(string(text), " tls pki", " tls-require verify ca test pki", 1))
	to.Start()
	cert, key := to.ca.Issue(pkitest.ECDSA, "client.example.org")
	to.write("client.crt", cert)
	to.write("client.key", key)
	relay := func(options string) *daemon.Daemon {
		from := daemon.New(t, fmt.Sprintf(`ca test cert %q
pki client cert %q key %q
listen on 127.0.0.1 port $port
action "out" relay host smtp+tls://localhost:%s ca test %s
match from any for any action "out"
`, to.Path("ca.pem"), to.Path("client.crt"), to.Path("client.key"), to.Port(), options))
		from.Start()
		send(t, from, "over TLS", me(t)+"@localhost")
		return from
	}
	from := relay("pki client protocols TLSv1.3")
	to.AwaitMail(1)
	to.AwaitLog(`smtp cert-check result="verified" fingerprint="SHA256:`)
	from.AwaitLog(`mta cert-check result="valid" fingerprint="SHA256:`)
	from.AwaitLog(`mta delivery .* result="Ok"`)
	relay("").AwaitLog(`mta delivery .* result="TempFail"`)
	to.AwaitLog(`TLS handshake failed: tls: client didn't provide a certificate`)
}

// TestTLSChosen holds that the names inside the certificates decide.
func TestTLSChosen(t *testing.T) {
	t.Parallel()
	d := newTLS(t, "", "", "ecdsa:first.example.org", "rsa:second.example.org")
	d.Start()
	first, second := d.serial(t, ""), d.serial(t, "second.example.org")
	if first == second || d.serial(t, "other.example.org") != first || d.serial(t, "first.example.org") != first {
		t.Errorf("certificates %s, %s, %s, %s", first, second, d.serial(t, "other.example.org"), d.serial(t, "first.example.org"))
	}
}

// TestTLSReload holds that a reload takes new certificates, refuses broken ones
// as a whole, and leaves sessions alone.
func TestTLSReload(t *testing.T) {
	t.Parallel()
	const host = "mx.example.org"
	d := newTLS(t, "", "", "ecdsa:"+host)
	d.Start()
	before := d.serial(t, host)
	open, err := tls.Dial("tcp", d.smtps, d.ca.Client(host))
	if err != nil {
		t.Fatal(err)
	}
	defer open.Close()
	d.Await("one session in TLS", func() bool { // the one of before may be counted still
		got := d.Ctl("show", "stats")
		return strings.Contains(got, "smtp.smtps=1\n") && strings.Contains(got, "smtp.tls=0\n")
	})
	cert, _ := d.ca.Issue(pkitest.RSA, host)
	d.write(host+".crt", cert) // its key is not there yet
	out, _, status := d.Run("", "smtpctl", "reload")
	if status != 1 || !strings.Contains(out, "pki "+host+": key "+d.Path(host+".key")) || !strings.Contains(out, "the key is not that of the certificate") {
		t.Errorf("status %d: %s", status, out)
	}
	if now := d.serial(t, host); now != before {
		t.Errorf("certificate %s, before %s", now, before)
	}
	d.issue(pkitest.Ed25519, host)
	d.Ctl("reload")
	if now := d.serial(t, host); now == before {
		t.Error("the old certificate is shown")
	}
	if _, err := io.WriteString(open, "QUIT\r\n"); err != nil {
		t.Fatal(err)
	}
	if text, err := io.ReadAll(open); err != nil || !strings.Contains(string(text), "221 2.0.0 Bye") {
		t.Errorf("the session of before: %q, %v", text, err)
	}
}

// TestTLSRenewal holds that changed files are taken without being asked, that
// certificate and key may be replaced one after the other, and that the old ones
// stay while the new are of no use.
func TestTLSRenewal(t *testing.T) {
	t.Parallel()
	const host = "mx.example.org"
	d := newTLS(t, "", "", "ecdsa:"+host)
	d.Start()
	before := d.serial(t, host)
	cert, key := d.ca.Issue(pkitest.RSA, host)
	d.write(host+".crt", cert)
	d.AwaitLog(`warn: certificates not renewed, the old ones stay: .*the key is not that of the certificate`)
	if now := d.serial(t, host); now != before {
		t.Errorf("certificate %s, before %s", now, before)
	}
	d.write(host+".key", key)
	d.AwaitLog(`info: certificates renewed`)
	if now := d.serial(t, host); now == before {
		t.Error("the old certificate is shown")
	}
	d.Ctl("reload")
}

// TestTLSBadFiles holds that a daemon does not start with certificates that are
// of no use, and that -n says the same.
func TestTLSBadFiles(t *testing.T) {
	t.Parallel()
	const host = "mx.example.org"
	for name, tt := range map[string]struct {
		spoil func(d *tlsDaemon)
		want  string
	}{
		"no certificate": {func(d *tlsDaemon) { d.write(host+".crt", []byte("hello\n")) }, "holds no certificate in PEM form"},
		"another key":    {func(d *tlsDaemon) { _, key := d.ca.Issue("rsa", host); d.write(host+".key", key) }, "the key is not that of the certificate"},
		"no key":         {func(d *tlsDaemon) { d.write(host+".key", []byte("hello\n")) }, "holds no private key in PEM form"},
		"key for all": {func(d *tlsDaemon) {
			if err := os.Chmod(d.Path(host+".key"), 0o644); err != nil {
				t.Error(err)
			}
		}, "insecure permissions 0644"},
		"chain before the certificate": {func(d *tlsDaemon) {
			cert, key := d.ca.Issue("rsa", host)
			d.write(host+".crt", append(d.ca.PEM, cert...))
			d.write(host+".key", key)
		}, "that of the certificate numbered 2: it must be the first in the file"},
		"key is gone": {func(d *tlsDaemon) {
			if err := os.Remove(d.Path(host + ".key")); err != nil {
				t.Error(err)
			}
		}, "no such file or directory"},
	} {
		d := newTLS(t, "", "", "ecdsa:"+host)
		tt.spoil(d)
		for _, mode := range []string{"-n", "-d"} {
			_, errs, status := d.Run("", "smtpd", d.Args(mode)...)
			if status != 1 || !strings.Contains(errs, tt.want) || !strings.Contains(errs, "smtpd.conf:3:") {
				t.Errorf("%s, %s: status %d\n%s", name, mode, status, errs)
			}
		}
	}
}

// TestTLSClientCertificate: verify wants one from the authority.
func TestTLSClientCertificate(t *testing.T) {
	t.Parallel()
	d := newTLS(t, "", "", "ecdsa:mx.example.org")
	text, err := os.ReadFile(d.Path("smtpd.conf"))
	if err != nil {
		t.Fatal(err)
	}
	d.Configure(strings.Replace(string(text), "smtps pki", "smtps verify ca test pki", 1))
	d.Start()
	for _, shown := range []bool{true, false} {
		cfg := d.ca.Client("mx.example.org")
		if shown {
			cfg.Certificates = []tls.Certificate{d.ca.Identity("client.example")}
		}
		nc, err := tls.Dial("tcp", d.smtps, cfg)
		if err != nil {
			t.Fatal(err)
		}
		_, err = nc.Read(make([]byte, 1))
		nc.Close()
		if (err == nil) != shown {
			t.Errorf("shown %v: %v", shown, err)
		}
	}
	d.AwaitLog(`smtp cert-check result="verified" fingerprint="SHA256:[0-9a-f]{64}"`)
	d.AwaitLog(`smtp disconnected reason="io-error: TLS handshake failed: tls: client didn't provide a certificate"`)
}

// TestTLSStrength holds what `protocols` and `ciphers` say.
func TestTLSStrength(t *testing.T) {
	t.Parallel()
	d := newTLS(t, "smtp ciphers \"ECDHE+AES256\"", " protocols TLSv1.2", "rsa:mx.example.org")
	d.Start()
	for version, ok := range map[uint16]bool{tls.VersionTLS11: false, tls.VersionTLS12: true, tls.VersionTLS13: false} {
		cfg := d.ca.Client("mx.example.org")
		cfg.MinVersion, cfg.MaxVersion = version, version
		nc, err := tls.Dial("tcp", d.smtps, cfg)
		if (err == nil) != ok {
			t.Errorf("%s: %v", tls.VersionName(version), err)
		}
		if err == nil {
			if s := tls.CipherSuiteName(nc.ConnectionState().CipherSuite); !strings.Contains(s, "AES_256") {
				t.Errorf("cipher %s", s)
			}
			nc.Close()
		}
	}
	d.AwaitLog(`smtp tls ciphers=TLSv1.2:ECDHE-RSA-AES256-GCM-SHA384:256`)
}
