package regress

import (
	"fmt"
	"os"
	"strings"
	"testing"

	"opensmtpd/src/crypt"
)

// withSubmission starts a daemon with STARTTLS and SMTPS whose user is bob, with
// the password "b b:b", hashed by scheme.
func withSubmission(t *testing.T, scheme string) *tlsDaemon {
	t.Helper()
	hash, err := crypt.Make(scheme, "b b:b")
	if err != nil {
		t.Fatal(err)
	}
	d := newTLS(t, fmt.Sprintf("table users { bob = %q }", hash), " auth <users> received-auth", "ecdsa:mail.example.org")
	d.Start()
	return d
}

// TestAuthClients has programs that others wrote hand in mail with a password, by
// STARTTLS and by SMTPS, and be refused with a wrong one.
func TestAuthClients(t *testing.T) {
	t.Parallel()
	d := withSubmission(t, "yescrypt")
	to := me(t) + "@localhost"
	mail := 0
	t.Run("swaks", func(t *testing.T) {
		for _, mechanism := range []string{"PLAIN", "LOGIN"} {
			for _, how := range [][]string{{"--server", d.Addr, "--tls"}, {"--server", d.smtps, "--tls-on-connect"}} {
				args := append(how, "--to", to, "--from", "bob@example.org", "--auth", mechanism, "--auth-user", "bob", "--auth-password", "b b:b")
				out := client(t, "", "swaks", args...)
				if !strings.Contains(out, "235 2.0.0 Authentication succeeded") {
					t.Fatalf("%v\n%s", args, out)
				}
				mail++
			}
		}
		d.AwaitMail(mail)
	})
	t.Run("msmtp", func(t *testing.T) {
		for _, how := range []struct{ addr, starttls string }{{d.Addr, "on"}, {d.smtps, "off"}} {
			for _, method := range []string{"plain", "login", "on"} {
				msmtp(t, d, how.addr, how.starttls, method, to)
				mail++
			}
		}
		d.AwaitMail(mail)
	})
	t.Run("python", func(t *testing.T) {
		client(t, "", "python3", "-c", `
import smtplib, ssl, sys
c = ssl._create_unverified_context()
for password in ("b b:b", "wrong"):
    for s in smtplib.SMTP(*sys.argv[1].split(":")), smtplib.SMTP_SSL(*sys.argv[2].split(":"), context=c):
        if not isinstance(s, smtplib.SMTP_SSL):
            s.ehlo()
            assert "auth" not in s.esmtp_features, "AUTH is offered in clear"
            assert s.docmd("AUTH PLAIN AGJvYgBiIGI6Yg==")[0] == 503
            assert s.mail("bob@example.org")[0] == 530
            s.starttls(context=c)
        try:
            s.login("bob", password)
        except smtplib.SMTPAuthenticationError as e:
            assert e.smtp_code == 535 and password == "wrong", e
            continue
        assert password != "wrong"
        s.sendmail("bob@example.org", [sys.argv[3]], "Subject: hi\n\nx\n")
        s.quit()
`, d.Addr, d.smtps, to)
		mail += 2
		d.AwaitMail(mail)
	})
	for _, text := range d.Mail(d.Path("Maildir")) {
		if !strings.Contains(text, "with ESMTPSA id ") || !strings.Contains(text, ":NO) auth=yes user=bob") {
			t.Errorf("kept:\n%.600s", text)
		}
	}
	for _, secret := range []string{"AGJvYgBiIGI6Yg", "YiBiOmI", "b b:b"} {
		if strings.Contains(d.Log(), secret) {
			t.Errorf("%q is in the log", secret)
		}
	}
}

// TestScramClient: msmtp proves that it knows the password, without saying it.
func TestScramClient(t *testing.T) {
	t.Parallel()
	d := withSubmission(t, "scram-sha-256")
	to := me(t) + "@localhost"
	msmtp(t, d, d.smtps, "off", "scram-sha-256", to)
	msmtp(t, d, d.Addr, "on", "plain", to)
	d.AwaitMail(2)
	d.AwaitLog(`smtp authentication user=bob result=ok`)
}

// msmtp hands a message in.
func msmtp(t *testing.T, d *tlsDaemon, addr, starttls, method, to string) {
	t.Helper()
	host, port, _ := strings.Cut(addr, ":")
	rc := fmt.Sprintf("account default\nhost %s\nport %s\nfrom bob@example.org\nuser bob\npassword \"b b:b\"\nauth %s\ntls on\ntls_starttls %s\ntls_trust_file %s\ntls_host_override mail.example.org\n",
		host, port, method, starttls, d.Path("ca.pem"))
	path := d.Path("msmtprc")
	if err := os.WriteFile(path, []byte(rc), 0o600); err != nil {
		t.Fatal(err)
	}
	client(t, "Subject: "+method+"\n\nx\n", "msmtp", "-C", path, to)
}
