package regress

import (
	"net/smtp"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"opensmtpd/src/regress/daemon"
)

// authConf has a listener for users of a table of its own. It is of this machine,
// so that they may say who they are in clear.
const authConf = `table users file:USERS
table staff { bob }
table own { bob = "bob@example.org", carol = "@example.net" }
listen on 127.0.0.1 port $port auth <users> senders <own> masquerade received-auth
action "local" maildir $box
match auth <staff> for any action "local"
match from any for local reject
`

// withUsers starts a daemon whose users are bob (password "b b:b") and carol
// ("c"), whose hashes smtpctl makes, and dave, who is locked out.
func withUsers(t *testing.T) *daemon.Daemon {
	t.Helper()
	d := daemon.New(t, "")
	hash := func(password string, options ...string) string {
		out, errs, status := d.Run(password+"\n", "smtpctl", append([]string{"encrypt"}, options...)...)
		if status != 0 {
			t.Fatalf("smtpctl encrypt: %d, %s", status, errs)
		}
		return strings.TrimSpace(out)
	}
	users := "bob\t" + hash("b b:b") + "\ncarol\tcarol:" + hash("c") + "\ndave\t*\n"
	if err := os.WriteFile(d.Path("users"), []byte(users), 0o600); err != nil {
		t.Fatal(err)
	}
	d.Configure(strings.Replace(authConf, "USERS", d.Path("users"), 1))
	return d.Start()
}

// submitAs hands a message in as net/smtp does.
func submitAs(t *testing.T, d *daemon.Daemon, user, password, from string) error {
	return submitTo(d, user, password, from, me(t)+"@example.org")
}

func submitTo(d *daemon.Daemon, user, password, from, to string) error {
	return smtp.SendMail(d.Addr, smtp.PlainAuth("", user, password, "127.0.0.1"), from, []string{to},
		[]byte("From: Me <root@localhost>\r\nSubject: hi\r\n\r\nhi\r\n"))
}

// TestSubmission: who may hand in mail, under whose name, and what the log says.
func TestSubmission(t *testing.T) {
	t.Parallel()
	d := withUsers(t)
	for _, tc := range []struct{ user, password, from, err string }{
		{"bob", "b b:b", "bob@example.org", ""},
		{"bob", "wrong", "bob@example.org", "535"},
		{"dave", "*", "dave@example.org", "535"},
		{"nobody", "x", "nobody@example.org", "535"},
		{"bob", "b b:b", "carol@example.org", `550 "5.7.1 Sender rejected`},
		{"carol", "c", "any@example.net", "550"}, // no staff
	} {
		err := submitAs(t, d, tc.user, tc.password, tc.from)
		if (err == nil) != (tc.err == "") || err != nil && !strings.HasPrefix(err.Error(), tc.err) {
			t.Errorf("%+v: %v", tc, err)
		}
	}
	for _, body := range d.AwaitMail(1) {
		for _, want := range []string{`with (ESMTP|UTF8SMTP)A id [0-9a-f]{8} auth=yes user=bob\n`, `(?m)^From: Me <bob@example\.org>$`, `(?m)^Message-ID: <`, `(?m)^Date: `} {
			if !regexp.MustCompile(want).MatchString(body) {
				t.Errorf("no %s in\n%s", want, body)
			}
		}
	}
	for _, want := range []string{
		`smtp authentication user=bob result=ok`, `smtp authentication user=bob result=permfail`,
		`smtp authentication user=dave result=permfail`, `smtp authentication user=nobody result=permfail`,
		`failed-command command="AUTH PLAIN \(\.\.\.\)" result="535 Authentication failed"`,
	} {
		d.AwaitLog(want)
	}
	checkFail2ban(t, d.Log())
}

// checkFail2ban holds that the filter in pkg understands our lines: three
// failures, each of a session whose address it knows.
func checkFail2ban(t *testing.T, log string) {
	t.Helper()
	text, err := os.ReadFile("../../pkg/fail2ban/opensmtpd.conf")
	if err != nil {
		t.Fatal(err)
	}
	regex := func(s string) *regexp.Regexp {
		s = strings.NewReplacer("%(__prefix_line)s", `(?:\S+ )*`, "<ADDR>", `(?P<ADDR>[0-9a-fA-F:.]+)`).Replace(s)
		s = regexp.MustCompile(`<F-([A-Z]+)>`).ReplaceAllString(s, "(?P<$1>")
		return regexp.MustCompile(regexp.MustCompile(`</F-[A-Z]+>`).ReplaceAllString(s, ")"))
	}
	conf := string(text)
	prefix := regex(regexp.MustCompile(`(?m)^prefregex = (.*)$`).FindStringSubmatch(conf)[1])
	_, after, _ := strings.Cut(conf, "failregex = ")
	block, _, _ := strings.Cut(after, "\n\n")
	var fails []*regexp.Regexp
	for line := range strings.Lines(block) {
		fails = append(fails, regex(strings.TrimSpace(line)))
	}
	address, failures := map[string]string{}, 0
	for line := range strings.Lines(log) {
		m := prefix.FindStringSubmatch(strings.TrimSpace(line))
		if m == nil {
			continue
		}
		id, content := m[prefix.SubexpIndex("MLFID")], m[prefix.SubexpIndex("CONTENT")]
		for i, f := range fails {
			got := f.FindStringSubmatch(content)
			switch {
			case got == nil:
			case i == 0:
				address[id] = got[f.SubexpIndex("ADDR")]
			case i == 1:
				failures++
				if address[id] != "127.0.0.1" {
					t.Errorf("%s: address %q", line, address[id])
				}
			}
		}
	}
	if failures != 3 {
		t.Errorf("the filter finds %d failures, want 3", failures)
	}
}

// TestSubmissionByPython: a client that others wrote.
func TestSubmissionByPython(t *testing.T) {
	t.Parallel()
	python, err := exec.LookPath("python3")
	if err != nil {
		t.Skip("python3 is not installed")
	}
	d := withUsers(t)
	const script = `
import smtplib, sys
host, port = sys.argv[1].split(":")
for method in ("auth_plain", "auth_login"):
    with smtplib.SMTP(host, int(port)) as s:
        s.ehlo()
        s.user, s.password = "bob", "b b:b"
        mechanism = method[5:].upper()
        assert s.auth(mechanism, getattr(s, method))[0] == 235
        s.sendmail("bob@example.org", [sys.argv[2]], "Subject: " + mechanism + "\n\nx\n")
    with smtplib.SMTP(host, int(port)) as s:
        s.user, s.password = "bob", "wrong"
        s.ehlo()
        try:
            s.auth(mechanism, getattr(s, method))
        except smtplib.SMTPAuthenticationError as e:
            assert e.smtp_code == 535, e
        else:
            raise SystemExit("a wrong password is taken")
`
	path := filepath.Join(t.TempDir(), "client.py")
	if err := os.WriteFile(path, []byte(script), 0o600); err != nil {
		t.Fatal(err)
	}
	if out, err := exec.Command(python, path, d.Addr, me(t)+"@example.org").CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	d.AwaitMail(2)
}

// TestAuthWithoutTable: smtpd -S cannot read the system's passwords, and says so
// before anybody relies on it.
func TestAuthWithoutTable(t *testing.T) {
	t.Parallel()
	d := daemon.New(t, "listen on 127.0.0.1 port $port auth\nmatch for any reject\n")
	_, errs, status := d.Run("", "smtpd", d.Args("-d")...)
	if status == 0 || !strings.Contains(errs, "smtpd.conf:1:") || !strings.Contains(errs, "give auth a table") {
		t.Errorf("status %d: %s", status, errs)
	}
}
