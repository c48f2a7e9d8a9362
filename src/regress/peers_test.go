package regress

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"math/big"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"opensmtpd/src/bench/load"
	"opensmtpd/src/regress/daemon"
)

// neighbour is a mail server of another make, which is peer.test: it has the
// mailboxes one and two, puts off mail for busy, refuses gone, and sends what is
// for others to us.
type neighbour struct {
	name  string
	addr  string // of its SMTP
	boxes string // one/ and two/ below it are maildirs
}

// TestPeerPostfix and TestPeerExim exchange mail with Debian's.
func TestPeerPostfix(t *testing.T) { neighbours(t, postfix) }

func TestPeerExim(t *testing.T) { neighbours(t, exim) }

func neighbours(t *testing.T, start func(*testing.T, *daemon.Daemon) neighbour) {
	privileged(t)
	clearSpool(t)
	d := daemon.NewRoot(t, "")
	n := start(t, d)
	d.Configure(fmt.Sprintf(`listen on 127.0.0.1 port $port
table users { anna, bert }
action "local" maildir
action "out" relay host smtp://%s
match for local action "local"
match from any for domain "ours.test" rcpt-to regex { "^(anna|bert)@" } action "local"
match for domain "peer.test" action "out"
`, n.addr))
	d.Start()
	t.Run("to it", func(t *testing.T) { toNeighbour(t, d, n) })
	t.Run("from it", func(t *testing.T) { fromNeighbour(t, d, n) })
}

// toNeighbour sends one message to several, of whom it takes two: over TLS,
// which it offers, in one transaction.
func toNeighbour(t *testing.T, d *daemon.Daemon, n neighbour) {
	c := d.Dial()
	const text = "From: anna\r\nSubject: to several\r\n\r\nhello\r\n..begins with a dot\r\n" + "caf\xe9\r\n"
	to := []string{"one@peer.test", "busy@peer.test", "two@peer.test", "gone@peer.test", "nobody@peer.test"}
	if err := c.Send("anna@localhost", to, text, false); err != nil {
		t.Fatal(err)
	}
	d.AwaitLog(`mta tls ciphers=TLSv1\.[23]:`)
	session := d.AwaitLog(`([0-9a-f]{16}) mta delivery .* to=<one@peer.test> .*result="Ok" stat="250 `)[1]
	d.AwaitLog(session + ` mta delivery .* to=<two@peer.test> .*result="Ok" stat="250 `)
	busy := d.AwaitLog(session + ` mta delivery evpid=([0-9a-f]{16}) .*to=<busy@peer.test> .*result="TempFail" stat="45\d .*come back later`)[1]
	d.AwaitLog(session + ` mta delivery .* to=<gone@peer.test> .*result="PermFail" stat="55\d .*moved away`)
	d.AwaitLog(session + ` mta delivery .* to=<nobody@peer.test> .*result="PermFail" stat="55\d `)

	got := make(map[string]string)
	for _, box := range []string{"one", "two"} {
		d.Await("mail of "+box, func() bool { return len(maildir(d, n, box)) == 1 })
		got[box] = maildir(d, n, box)[0]
		if !strings.Contains(got[box], "\nSubject: to several\n") || !strings.HasSuffix(got[box], "\n\nhello\n.begins with a dot\ncaf\xe9\n") {
			t.Errorf("%s has\n%s", box, got[box])
		}
	}
	// It got one message: its own line is the same in both.
	id := regexp.MustCompile(`by \S+ [^;]*?id (\S+)`)
	one, two := id.FindStringSubmatch(got["one"]), id.FindStringSubmatch(got["two"])
	if one == nil || two == nil || one[1] != two[1] {
		t.Errorf("two transactions, or no id: %q, %q", one, two)
	}
	// Whom it refuses is in a report of ours.
	var reports []string
	d.Await("reports", func() bool {
		reports = reports[:0]
		for _, text := range d.Mail("/home/anna/Maildir") {
			reports = append(reports, text)
		}
		all := strings.Join(reports, "\n")
		return strings.Contains(all, "gone@peer.test") && strings.Contains(all, "nobody@peer.test")
	})
	all := strings.Join(reports, "\n")
	for _, want := range []string{`multipart/report`, `(?m)^Action: failed$`, `(?m)^Status: 5\.\d\.\d$`, `(?m)^Diagnostic-Code: smtp; 55\d `} {
		if !regexp.MustCompile(want).MatchString(all) {
			t.Errorf("the reports lack %s:\n%s", want, all)
		}
	}
	if strings.Contains(all, "busy@peer.test") {
		t.Errorf("whom it put off is reported:\n%s", all)
	}
	if q := d.Ctl("show", "envelope", busy); !strings.Contains(q, "come back later") {
		t.Errorf("what waits: %s", q)
	}
	d.Ctl("remove", busy)
}

// fromNeighbour has it send us a message for two of ours and one who is not.
func fromNeighbour(t *testing.T, d *daemon.Daemon, n neighbour) {
	had := len(maildir(d, n, "one"))
	before := len(d.Mail("/home/bert/Maildir"))
	c, err := load.Dial(t.Context(), n.addr, daemon.Wait)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if err := c.Hello("client.test"); err != nil {
		t.Fatal(err)
	}
	const text = "From: one@peer.test\r\nSubject: from there\r\n\r\nhello\r\n..begins with a dot\r\n"
	if err := c.Send("one@peer.test", []string{"bert@ours.test", "anna@ours.test", "nobody@ours.test"}, text, false); err != nil {
		t.Fatal(err)
	}
	d.Await("mail of bert", func() bool { return len(d.Mail("/home/bert/Maildir")) == before+1 })
	for _, text := range d.Mail("/home/bert/Maildir") {
		if strings.Contains(text, "Subject: from there") &&
			(!strings.Contains(text, "Return-Path: <one@peer.test>") || !strings.HasSuffix(text, "\n\nhello\n.begins with a dot\n")) {
			t.Errorf("bert has\n%s", text)
		}
	}
	d.AwaitLog(`smtp message msgid=[0-9a-f]{8} size=\d+ nrcpt=2 proto=ESMTP`)
	// What we refused, it reports.
	d.Await("its report", func() bool { return len(maildir(d, n, "one")) == had+1 })
	all := strings.Join(maildir(d, n, "one"), "\n")
	if !strings.Contains(all, "nobody@ours.test") || !strings.Contains(all, "550") {
		t.Errorf("its report does not say why:\n%s", all)
	}
}

// maildir returns the messages of a mailbox of n.
func maildir(d *daemon.Daemon, n neighbour, box string) []string {
	var list []string
	for _, text := range d.Mail(filepath.Join(n.boxes, box)) {
		list = append(list, strings.ReplaceAll(text, "\r\n", "\n"))
	}
	return list
}

// certificate writes a certificate that nobody knows, and its key.
func certificate(t *testing.T, d *daemon.Daemon) (cert, key string) {
	t.Helper()
	k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	tpl := &x509.Certificate{
		SerialNumber: big.NewInt(1), DNSNames: []string{"peer.test"},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
	}
	der, err := x509.CreateCertificate(rand.Reader, tpl, tpl, k.Public(), k)
	if err != nil {
		t.Fatal(err)
	}
	secret, err := x509.MarshalPKCS8PrivateKey(k)
	if err != nil {
		t.Fatal(err)
	}
	cert, key = d.Path("peer.crt"), d.Path("peer.key")
	for name, b := range map[string]*pem.Block{cert: {Type: "CERTIFICATE", Bytes: der}, key: {Type: "PRIVATE KEY", Bytes: secret}} {
		if err := os.WriteFile(name, pem.EncodeToMemory(b), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return cert, key
}

// boxes makes a directory for mailboxes that cleo owns.
func boxes(t *testing.T, d *daemon.Daemon) string {
	t.Helper()
	dir := d.Path("boxes")
	if err := os.Mkdir(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Chown(dir, 7103, 7103); err != nil {
		t.Fatal(err)
	}
	return dir
}

// greets waits until a server takes connections.
func (n *neighbour) greets(t *testing.T, d *daemon.Daemon) {
	t.Helper()
	d.Await(n.name, func() bool {
		c, err := load.Dial(t.Context(), n.addr, daemon.Wait)
		if err != nil {
			return false
		}
		c.Close()
		return true
	})
}

func postfix(t *testing.T, d *daemon.Daemon) neighbour {
	t.Helper()
	root := debian(t, d.Path("postfix"), "postfix")
	port := daemon.FreePort(t)
	n := neighbour{name: "Postfix", addr: "127.0.0.1:" + port, boxes: boxes(t, d)}
	cert, key := certificate(t, d)
	conf := d.Path("postfix-conf")
	if err := os.Mkdir(conf, 0o755); err != nil {
		t.Fatal(err)
	}
	main := fmt.Sprintf(`compatibility_level = 3.6
queue_directory = %[1]s/queue
data_directory = %[1]s/data
command_directory = /usr/sbin
daemon_directory = /usr/lib/postfix/sbin
mail_owner = postfix
setgid_group = postdrop
myhostname = mx.peer.test
mydestination =
mynetworks = 127.0.0.0/8
inet_interfaces = 127.0.0.1
inet_protocols = ipv4
alias_maps =
alias_database =
virtual_mailbox_domains = peer.test
virtual_mailbox_maps = inline:{ one@peer.test=one/ two@peer.test=two/ }
virtual_mailbox_base = %[2]s
virtual_uid_maps = static:7103
virtual_gid_maps = static:7103
smtpd_recipient_restrictions = check_recipient_access inline:{ { busy@peer.test = 451 4.7.1 come back later } { gone@peer.test = 550 5.1.6 moved away } }
smtpd_relay_restrictions = permit_mynetworks, reject
relayhost = [127.0.0.1]:%[3]s
smtpd_tls_security_level = may
smtpd_tls_cert_file = %[4]s
smtpd_tls_key_file = %[5]s
maillog_file = %[1]s/log
maillog_file_prefixes = %[1]s
`, conf, n.boxes, d.Port(), cert, key)
	master := "127.0.0.1:" + port + " inet n - n - - smtpd\n" + `pickup unix n - n 60 1 pickup
cleanup unix n - n - 0 cleanup
qmgr unix n - n 300 1 qmgr
tlsmgr unix - - n 1000? 1 tlsmgr
rewrite unix - - n - - trivial-rewrite
bounce unix - - n - 0 bounce
defer unix - - n - 0 bounce
trace unix - - n - 0 bounce
flush unix n - n 1000? 0 flush
proxymap unix - - n - - proxymap
smtp unix - - n - - smtp
error unix - - n - - error
retry unix - - n - - error
virtual unix - n n - - virtual
anvil unix - - n - 1 anvil
scache unix - - n - 1 scache
postlog unix-dgram n - n - 1 postlogd
`
	for name, text := range map[string]string{"main.cf": main, "master.cf": master} {
		if err := os.WriteFile(filepath.Join(conf, name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	line := accountsOf("postfix:7201", "postdrop:7202") + fmt.Sprintf(`
mkdir -p /etc/postfix && cp %[1]s/*.cf /etc/postfix
mkdir %[1]s/queue %[1]s/data && chown postfix %[1]s/data
exec /usr/sbin/postfix start-fg`, conf)
	foreign(t, d, root, line, filepath.Join(conf, "log"))
	n.greets(t, d)
	return n
}

func exim(t *testing.T, d *daemon.Daemon) neighbour {
	t.Helper()
	root := debian(t, d.Path("exim"), "exim4-daemon-light", "exim4-base")
	port := daemon.FreePort(t)
	n := neighbour{name: "Exim", addr: "127.0.0.1:" + port, boxes: boxes(t, d)}
	cert, key := certificate(t, d)
	conf := fmt.Sprintf(`primary_hostname = mx.peer.test
spool_directory = %[1]s/exim-spool
log_file_path = %[1]s/exim-log/%%s
local_interfaces = 127.0.0.1
daemon_smtp_ports = %[2]s
tls_advertise_hosts = *
tls_certificate = %[3]s
tls_privatekey = %[4]s
accept_8bitmime = true
acl_smtp_rcpt = rcpt
acl_smtp_data = data
begin acl
rcpt:
  defer message = come back later
    recipients = busy@peer.test
  deny message = moved away
    recipients = gone@peer.test
  accept domains = peer.test
    verify = recipient
  deny domains = peer.test
  accept hosts = 127.0.0.1
data:
  accept
begin routers
boxes:
  driver = accept
  domains = peer.test
  local_parts = one : two
  transport = box
out:
  driver = manualroute
  domains = ! peer.test
  route_list = * 127.0.0.1
  transport = ours
  self = send
begin transports
box:
  driver = appendfile
  directory = %[5]s/$local_part_data
  maildir_format
  create_directory
  user = cleo
  group = cleo
ours:
  driver = smtp
  port = %[6]s
begin retry
* * F,1h,1m
`, d.Dir, port, cert, key, n.boxes, d.Port())
	if err := os.WriteFile(d.Path("exim.conf"), []byte(conf), 0o644); err != nil {
		t.Fatal(err)
	}
	// It gains root again to deliver only by the configuration in its own place.
	line := accountsOf("Debian-exim:7203") + fmt.Sprintf(`
mkdir -p /etc/exim4 && cp %[1]s/exim.conf /etc/exim4/exim4.conf
mkdir -m 750 %[1]s/exim-spool %[1]s/exim-log && chown Debian-exim %[1]s/exim-spool %[1]s/exim-log
exec /usr/sbin/exim4 -bdf -q1m`, d.Dir)
	foreign(t, d, root, line, d.Path("exim-log/main"), d.Path("exim-log/panic"))
	n.greets(t, d)
	return n
}

// accountsOf is a shell line that adds accounts, each name:id.
func accountsOf(accounts ...string) string {
	var b strings.Builder
	for _, a := range accounts {
		name, id, _ := strings.Cut(a, ":")
		fmt.Fprintf(&b, "grep -q '^%[1]s:' /etc/passwd || echo '%[1]s:x:%[2]s:%[2]s::/nonexistent:/usr/sbin/nologin' >>/etc/passwd\n", name, id)
		fmt.Fprintf(&b, "grep -q '^%[1]s:' /etc/group || echo '%[1]s:x:%[2]s:' >>/etc/group\n", name, id)
	}
	return b.String()
}
