package regress

import (
	"bufio"
	"context"
	"crypto/tls"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"opensmtpd/src/pki/pkitest"
	"opensmtpd/src/regress/daemon"
)

// seedInterfaces are those that the article's files name, with the addresses
// that they listen on.
var seedInterfaces = map[string][]string{
	"rl0":   {"172.20.0.12/24"},
	"rl1":   {"10.0.3.1/24"},
	"vlan1": {"10.0.0.1/22", "172.16.81.241/24"},
}

func sh(t *testing.T, name string, args ...string) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), daemon.Wait)
	defer cancel()
	out, err := exec.CommandContext(ctx, name, args...).CombinedOutput()
	if err != nil {
		t.Fatalf("%s %v: %v\n%s", name, args, err, out)
	}
	return string(out)
}

// addInterface makes an interface of a kind that the kernel has.
func addInterface(t *testing.T, name string) {
	t.Helper()
	var all string
	for _, kind := range []string{"dummy", "veth", "bridge"} {
		out, err := exec.Command("ip", "link", "add", name, "type", kind).CombinedOutput()
		if err == nil {
			return
		}
		all += string(out)
	}
	out, err := exec.Command("ip", "tuntap", "add", name, "mode", "tap").CombinedOutput()
	if err != nil {
		t.Skipf("this kernel makes no interface: %s%s", all, out)
	}
}

// seedMachine makes the gateway of the article: interfaces, maps, certificates
// of the authority that it returns.
func seedMachine(t *testing.T, bin string) *pkitest.Authority {
	t.Helper()
	for name, nets := range seedInterfaces {
		addInterface(t, name)
		t.Cleanup(func() { _ = exec.Command("ip", "link", "del", name).Run() })
		sh(t, "ip", "link", "set", name, "up")
		for _, n := range nets {
			sh(t, "ip", "addr", "add", n, "dev", name)
		}
	}
	write := func(name, text string, mode os.FileMode) {
		t.Helper()
		if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(name, []byte(text), mode); err != nil {
			t.Fatal(err)
		}
	}
	write("/etc/mail/aliases", "root: anna\nlist: anna, bert\n", 0o644)
	write("/etc/mail/secrets", "smtp.example.com user:password\nsmtp.gmail.com user:password\nsmtp.hig.no user:password\n", 0o640)
	sh(t, filepath.Join(bin, "makemap"), "-t", "aliases", "/etc/mail/aliases")
	sh(t, filepath.Join(bin, "makemap"), "/etc/mail/secrets")
	ca := pkitest.New(t)
	for _, name := range seedCerts {
		cert, key := ca.Issue(pkitest.RSA, name+".seed.example")
		write("/etc/mail/certs/"+name+".crt", string(cert), 0o644)
		write("/etc/mail/certs/"+name+".key", string(key), 0o600)
	}
	return ca
}

// seedCerts are the certificates that the article's files name, or mean by the
// name of their interface.
var seedCerts = []string{"rl0", "172.20.0.12", "home.defcon.no"}

// TestSeedTLS starts the daemon with each of the article's configurations that
// have TLS, unedited, and is shown the certificate that each listener means.
func TestSeedTLS(t *testing.T) {
	privileged(t)
	bin := daemon.Bin(t)
	ca := seedMachine(t, bin)
	for _, tt := range []struct {
		file, addr, cert string
		auth             bool
	}{
		{"04-smtps-auth.conf", "172.20.0.12:465", "rl0", true},
		{"05-smtps-without-auth.conf", "172.20.0.12:587", "rl0", true},
		{"07-one-address-of-many.conf", "172.20.0.12:587", "172.20.0.12", true},
		{"08-home-gateway.conf", "10.0.0.1:465", "home.defcon.no", false},
		{"08-home-gateway.conf", "172.16.81.241:465", "home.defcon.no", true},
	} {
		text, err := os.ReadFile("../../../shared/seed/" + tt.file)
		if err != nil {
			t.Skip("the article's configurations are not beside this repository, in ../shared/seed")
		}
		t.Run(tt.file, func(t *testing.T) {
			d := daemon.NewRoot(t, string(text))
			d.Addr = "127.0.0.1:25"
			d.Start()
			defer d.Stop()
			nc, err := tls.Dial("tcp", tt.addr, ca.Client(tt.cert+".seed.example"))
			if err != nil {
				t.Fatal(err)
			}
			defer nc.Close()
			in := bufio.NewReader(nc)
			line, err := in.ReadString('\n')
			if err != nil || !strings.HasPrefix(line, "220 ") {
				t.Errorf("%s: %q, %v", tt.addr, line, err)
			}
			if _, err := io.WriteString(nc, "EHLO client.example\r\nQUIT\r\n"); err != nil {
				t.Fatal(err)
			}
			said, err := io.ReadAll(in)
			if auth := strings.Contains(string(said), "AUTH PLAIN"); err != nil || auth != tt.auth {
				t.Errorf("%s: %v\n%s", tt.addr, err, said)
			}
		})
	}
}

// TestSeedFiles loads the article's eight configurations, unedited, on a machine
// like his; what -C conf makes of them loads without a word about their age.
func TestSeedFiles(t *testing.T) {
	privileged(t)
	files, err := filepath.Glob("../../../shared/seed/*.conf")
	if err != nil || len(files) == 0 {
		t.Skip("the article's configurations are not beside this repository, in ../shared/seed")
	}
	bin := daemon.Bin(t)
	seedMachine(t, bin)
	d := daemon.NewRoot(t, "")
	age := regexp.MustCompile(`written for OpenSMTPD 4\.6 to`)
	for _, file := range files {
		name := filepath.Base(file)
		_, errs, status := d.Run("", "smtpd", "-n", "-f", file)
		if status != 0 || !strings.HasSuffix(errs, "configuration OK\n") {
			t.Errorf("%s: status %d\n%s", name, status, errs)
			continue
		}
		if n := strings.Count(errs, "smtpd -n -C conf -f "+file+" "); n != 1 || !age.MatchString(errs) {
			t.Errorf("%s: the rewriting command is named %d times\n%s", name, n, errs)
		}
		text, errs, status := d.Run("", "smtpd", "-n", "-C", "conf", "-f", file)
		if status != 0 {
			t.Errorf("%s: -C conf: status %d\n%s", name, status, errs)
			continue
		}
		d.Configure(text)
		_, errs, status = d.Run("", "smtpd", "-n", "-f", d.Path("smtpd.conf"))
		if status != 0 || age.MatchString(errs) {
			t.Errorf("%s rewritten: status %d\n%s\n%s", name, status, errs, text)
		}
		again, _, _ := d.Run("", "smtpd", "-n", "-C", "conf", "-f", d.Path("smtpd.conf"))
		if again != text {
			t.Errorf("%s: the rewritten file is not its own canonical form:\n%s\n%s", name, text, again)
		}
	}
	explainSeeds(t, d, filepath.Dir(files[0]))
}

// explainSeeds asks what the article's rules mean, as its README has it.
func explainSeeds(t *testing.T, d *daemon.Daemon, dir string) {
	for _, tt := range []struct{ file, question, want string }{
		{"01-manpage-first-example.conf", "rcpt-to x@example.org", "action relay_mx1.example.org"},
		{"01-manpage-first-example.conf", "rcpt-to x@example.net", "action relay_mx"},
		{"01-manpage-first-example.conf", "src 10.0.3.5 rcpt-to x@example.net", "refused: 550"},
		{"01-manpage-first-example.conf", "rcpt-to anna@localhost", "=> mbox for user anna"},
		{"02-simple.conf", "src 10.0.3.5 rcpt-to x@example.net", "action relay_smtp.example.com"},
		{"02-simple.conf", "src 10.0.4.5 rcpt-to x@example.net", "refused: 550"},
		{"02-simple.conf", "rcpt-to list@localhost", "=> mbox for user bert"},
		{"04-smtps-auth.conf", "src 192.0.2.7 rcpt-to x@example.net", "refused: 550"},
		{"04-smtps-auth.conf", "src 192.0.2.7 tls auth anna rcpt-to x@example.net", "action relay_smtp.example.com"},
		{"05-smtps-without-auth.conf", "src 172.17.18.19 rcpt-to x@example.net", "action relay_smtp.example.com"},
		{"06-relays-per-recipient.conf", "src 172.17.18.19 rcpt-to x@gmail.com", "action relay_smtp.gmail.com"},
		{"06-relays-per-recipient.conf", "src 172.17.18.19 rcpt-to x@example.net", "action relay_smtp.example.com"},
		{"08-home-gateway.conf", "src 10.0.2.1 rcpt-to x@www.defcon.no", "action relay_mail.defcon.no"},
		{"08-home-gateway.conf", "src 10.0.2.1 rcpt-to x@rt.defcon.no", "action relay_rt.home.defcon.no"},
		{"08-home-gateway.conf", "src 10.0.2.1 rcpt-to x@gmail.com", "action relay_smtp.gmail.com"},
		{"08-home-gateway.conf", "src 192.0.2.7 tls auth anna rcpt-to x@gmail.com", "action relay_smtp.gmail.com"},
		{"08-home-gateway.conf", "src 10.0.4.1 rcpt-to x@gmail.com", "refused: 550"},
	} {
		args := append([]string{"explain", "-f", filepath.Join(dir, tt.file)}, strings.Fields(tt.question)...)
		if got := d.Ctl(args...); !strings.Contains(got, tt.want) {
			t.Errorf("%s, %s: no %q in\n%s", tt.file, tt.question, tt.want, got)
		}
	}
}

// TestMapReplaced holds that a daemon in its cage reads a map, and the next one
// that makemap puts in its place, and says what it makes of a recipient.
func TestMapReplaced(t *testing.T) {
	t.Parallel()
	d := daemon.New(t, "")
	user := me(t)
	makemap := func(text string) {
		t.Helper()
		if err := os.WriteFile(d.Path("names"), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, errs, status := d.Run("", "makemap", "-t", "aliases", d.Path("names")); status != 0 {
			t.Fatal(errs)
		}
	}
	makemap("first: " + user + "\n")
	d.Configure(`table names "db:` + d.Path("names.db") + `"
listen on 127.0.0.1 port $port
action "local" maildir $box alias <names>
match for local action "local"
`)
	d.Start()
	if got := d.Ctl("explain", "rcpt-to", "first@localhost"); !strings.Contains(got, "=> maildir for user "+user) {
		t.Errorf("explain:\n%s", got)
	}
	send(t, d, "one", "first@localhost")
	d.AwaitMail(1)
	makemap("second: " + user + "\n")
	d.Await("the new map", func() bool {
		return strings.Contains(d.Ctl("explain", "rcpt-to", "second@localhost"), "=> maildir for user "+user)
	})
	if got := d.Ctl("-j", "explain", "rcpt-to", "first@localhost"); !strings.Contains(got, `"kind":"refused"`) {
		t.Errorf("explain of a name that is gone:\n%s", got)
	}
	send(t, d, "two", "second@localhost")
	d.AwaitMail(2)
	d.AwaitLog(`info: Table "names" successfully updated`)
}
