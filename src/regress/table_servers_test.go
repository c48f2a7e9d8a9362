package regress

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"opensmtpd/src/clock"
	"opensmtpd/src/lookup/program"
	"opensmtpd/src/lookup/table"
	"opensmtpd/src/mlog"
	"opensmtpd/src/privsep/imsg"
	"opensmtpd/src/regress/daemon"
)

// serverTool finds a program of a package, in PATH or where pattern says, and
// skips the test without it.
func serverTool(t *testing.T, pkg, name string, patterns ...string) string {
	t.Helper()
	if path, err := exec.LookPath(name); err == nil {
		return path
	}
	for _, p := range patterns {
		if found, _ := filepath.Glob(filepath.Join(p, name)); len(found) > 0 {
			return found[len(found)-1]
		}
	}
	t.Skipf("no %s here: install the package %s", name, pkg)
	return ""
}

// asUser is a command that runs as anna: servers refuse to be root.
func asUser(t *testing.T, dir, name string, args ...string) *exec.Cmd {
	t.Helper()
	c := exec.Command(name, args...)
	c.Dir = dir
	c.Env = []string{"PATH=/usr/bin:/bin:/usr/sbin:/sbin", "HOME=" + dir, "LC_ALL=C"}
	c.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 7101, Gid: 7101}}
	return c
}

// serve runs a server until the test ends.
func serve(t *testing.T, c *exec.Cmd) {
	t.Helper()
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = c.Process.Signal(syscall.SIGINT) // PostgreSQL's fast way to end
		_ = c.Wait()
	})
}

// serverDir is a directory of anna's with a short name, for sockets.
func serverDir(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("/tmp", "server")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	if err := os.Chown(dir, 7101, 7101); err != nil {
		t.Fatal(err)
	}
	return dir
}

// speak starts a table program of ours and returns what speaks to it.
func speak(t *testing.T, name, config string) program.Table {
	t.Helper()
	ours, theirs, err := imsg.Pair()
	if err != nil {
		t.Fatal(err)
	}
	c := exec.Command(filepath.Join(daemon.Bin(t), name), config)
	c.Args[0] = "users"
	c.Stdin, c.Stdout, c.Stderr = theirs, theirs, os.Stderr
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	theirs.Close()
	client := program.New(program.Options{Name: "users", Clock: clock.NewSystem(), Log: mlog.New(nil, false)})
	client.Use(ours)
	t.Cleanup(func() {
		client.Close()
		if err := c.Wait(); err != nil {
			t.Error(err)
		}
	})
	return client.Table("+")
}

// want asks for keys: "service key" is to be the value, "" not there.
func want(t *testing.T, tbl table.Table, answers map[string]string) {
	t.Helper()
	for q, want := range answers {
		word, key, _ := strings.Cut(q, " ")
		for s := table.Alias; s <= table.Auth; s++ {
			if s.String() != word {
				continue
			}
			value, found, err := tbl.Lookup(t.Context(), s, key)
			if value != want || found != (want != "") || err != nil {
				t.Errorf("%s: %q, %v, %v; want %q", q, value, found, err, want)
			}
			if yes, err := tbl.Match(t.Context(), s, key); yes != (want != "") || err != nil {
				t.Errorf("%s matches: %v, %v", q, yes, err)
			}
		}
	}
}

const postgresContent = `
CREATE TABLE domains (domain VARCHAR(255));
INSERT INTO domains VALUES ('example.org'), ('*.example.net');
CREATE TABLE virtuals (email VARCHAR(255), destination VARCHAR(255));
INSERT INTO virtuals VALUES ('joe@example.org', 'ME'), ('list@example.org', 'joe@example.org'), ('list@example.org', 'x@far.example'), ('@a.example.net', 'ME');
CREATE TABLE users (email VARCHAR(255), password VARCHAR(255), uid INTEGER, gid INTEGER, home TEXT);
INSERT INTO users VALUES ('joe@example.org', '$2b$10$AbC', 2000, 2001, '/var/vmail/joe');
CREATE TABLE nets (net TEXT, wide CIDR);
INSERT INTO nets VALUES ('10.0.0.0/8', '10.0.0.0/8');
`

const postgresConfig = `conninfo host='DIR' user='anna' dbname='postgres' port='5444'
query_alias SELECT destination FROM virtuals WHERE email=$1;
query_credentials SELECT email, password FROM users WHERE email=$1;
query_userinfo SELECT uid, gid, home FROM users WHERE email=$1;
query_domain SELECT domain FROM domains WHERE domain=$1;
query_netaddr SELECT net FROM nets WHERE net=$1;
query_addrname SELECT 'mx.example.org' FROM nets WHERE wide >>= $1::text::inet;
fetch_source SELECT net FROM nets;
`

// TestPostgres has a real PostgreSQL keep our users: asked by the program alone,
// and by the whole daemon, through a restart of the server.
func TestPostgres(t *testing.T) {
	privileged(t)
	initdb := serverTool(t, "postgresql", "initdb", "/usr/lib/postgresql/*/bin")
	bin := filepath.Dir(initdb)
	dir := serverDir(t)
	data := filepath.Join(dir, "data")
	if out, err := asUser(t, dir, initdb, "-D", data, "-U", "anna", "-A", "trust", "--no-sync").CombinedOutput(); err != nil {
		t.Fatalf("initdb: %v\n%s", err, out)
	}
	postgres := func() *exec.Cmd {
		return asUser(t, dir, filepath.Join(bin, "postgres"), "-D", data, "-k", dir, "-p", "5444", "-c", "listen_addresses=", "-F")
	}
	first := postgres()
	if err := first.Start(); err != nil {
		t.Fatal(err)
	}
	psql := func(text string) error {
		c := asUser(t, dir, serverTool(t, "postgresql-client", "psql", bin), "-h", dir, "-p", "5444", "-U", "anna", "-v", "ON_ERROR_STOP=1", "postgres")
		c.Stdin = strings.NewReader(text)
		return c.Run()
	}
	if !daemon.Poll(t, func() bool { return psql("SELECT 1;") == nil }) {
		t.Fatal("PostgreSQL does not start")
	}
	if err := psql(strings.ReplaceAll(postgresContent, "ME", me(t))); err != nil {
		t.Fatal(err)
	}
	conf := filepath.Join(dir, "postgres.conf")
	if err := os.WriteFile(conf, []byte(strings.Replace(postgresConfig, "DIR", dir, 1)), 0o644); err != nil {
		t.Fatal(err)
	}
	tbl := speak(t, "table-postgres", conf)
	want(t, tbl, map[string]string{
		"alias list@example.org": "joe@example.org, x@far.example", "alias jill@example.org": "", "alias a'b": "",
		"credentials JOE@example.org": "joe@example.org:$2b$10$AbC", "userinfo joe@example.org": "2000:2001:/var/vmail/joe",
		"domain example.org": "example.org", "domain b.example.net": "*.example.net", "domain example.com": "",
		"netaddr 10.1.2.3": "10.0.0.0/8", "netaddr 11.1.2.3": "", "addrname 10.1.2.3": "mx.example.org",
	})
	if v, found, err := tbl.Fetch(t.Context(), table.Source); v != "10.0.0.0/8" || !found || err != nil {
		t.Errorf("fetch: %q, %v, %v", v, found, err)
	}

	d := daemon.New(t, "table db postgres:"+conf+`
listen on 127.0.0.1 port $port
listen on socket
action "v" maildir $box virtual <db>
match from any for domain <db> action "v"
`).Start()
	send(t, d, "one", "joe@example.org")
	send(t, d, "two", "any+body@a.example.net")
	refuses(t, d, "jill@example.org", 524)
	refuses(t, d, "joe@example.com", 550)
	d.AwaitMail(2)

	_ = first.Process.Signal(syscall.SIGINT)
	_ = first.Wait()
	refuses(t, d, "joe@example.org", 451)
	if _, _, err := tbl.Lookup(t.Context(), table.Alias, "joe@example.org"); err == nil {
		t.Error("a lookup without the server")
	}
	serve(t, postgres())
	d.Await("mail after the server is back", func() bool {
		return d.Dial().Send("a@example.org", []string{"joe@example.org"}, "Subject: three\r\n\r\n", false) == nil
	})
	want(t, tbl, map[string]string{"alias joe@example.org": me(t)})
	d.AwaitMail(3)
}

const ldapContent = `dn: dc=example,dc=org
objectClass: dcObject
objectClass: organization
dc: example
o: Example

dn: uid=joe,dc=example,dc=org
objectClass: inetOrgPerson
objectClass: posixAccount
uid: joe
cn: Joe
sn: Joe
mail: joe@example.org
mail: joseph@example.org
uidNumber: 2000
gidNumber: 2001
homeDirectory: /var/vmail/joe
userPassword: {CRYPT}$6$abc$Xyz
employeeType: ME

dn: uid=jack,dc=example,dc=org
objectClass: inetOrgPerson
objectClass: posixAccount
uid: jack
cn: Jack (the second)
sn: Jack
mail: jack@example.org
uidNumber: 2000
gidNumber: 2001
homeDirectory: /var/vmail/jack
userPassword: Secret|Word
`

const slapdConfig = `include /etc/ldap/schema/core.schema
include /etc/ldap/schema/cosine.schema
include /etc/ldap/schema/inetorgperson.schema
include /etc/ldap/schema/nis.schema
moduleload back_mdb
pidfile DIR/slapd.pid
database mdb
suffix dc=example,dc=org
rootdn cn=root,dc=example,dc=org
rootpw OpenSMTPDRules
directory DIR/data
`

const ldapConfig = `# as that of OpenSMTPD's table-ldap
url: ldap://127.0.0.1:3899
username: cn=root,dc=example,dc=org
password: OpenSMTPDRules
basedn: dc=example,dc=org
alias_filter: (&(objectclass=posixaccount)(mail=%u))
alias_attributes: employeeType
credentials_filter: (&(objectclass=posixaccount)(uid=%s))
credentials_attributes: uid, userPassword
userinfo_filter: (uid=%u)
userinfo_attributes: uidNumber,gidNumber,homedirectory
mailaddr_filter: (mail=%u)
mailaddr_attributes: mail
mailaddrmap_filter: (uid=%u)
mailaddrmap_attributes: mail
domain_filter: (&(objectclass=dcobject)(dc=%u))
domain_attributes: dc
auth_filter: (&(objectclass=posixaccount)(uid=%u))
`

// TestLDAP has a real slapd keep our users.
func TestLDAP(t *testing.T) {
	privileged(t)
	slapd := serverTool(t, "slapd", "slapd", "/usr/sbin", "/usr/libexec", "/usr/lib/openldap")
	slapadd := serverTool(t, "slapd", "slapadd", "/usr/sbin")
	dir := serverDir(t)
	put := func(name, text string) string {
		t.Helper()
		path := filepath.Join(dir, name)
		text = strings.ReplaceAll(strings.ReplaceAll(text, "DIR", dir), "ME", me(t))
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
		return path
	}
	text := slapdConfig
	if modules, _ := filepath.Glob("/usr/lib/ldap/back_mdb*"); len(modules) > 0 {
		text = "modulepath /usr/lib/ldap\n" + text
	}
	conf := put("slapd.conf", text)
	if err := os.Mkdir(filepath.Join(dir, "data"), 0o777); err != nil {
		t.Fatal(err)
	}
	if err := os.Chown(filepath.Join(dir, "data"), 7101, 7101); err != nil {
		t.Fatal(err)
	}
	if out, err := asUser(t, dir, slapadd, "-f", conf, "-l", put("content.ldif", ldapContent)).CombinedOutput(); err != nil {
		t.Fatalf("slapadd: %v\n%s", err, out)
	}
	server := asUser(t, dir, slapd, "-f", conf, "-h", "ldap://127.0.0.1:3899", "-d", "0")
	serve(t, server)
	config := put("ldap.conf", ldapConfig)
	if !daemon.Poll(t, func() bool { return exec.Command(filepath.Join(daemon.Bin(t), "table-ldap"), config).Run() == nil }) {
		t.Fatal("slapd does not start")
	}
	tbl := speak(t, "table-ldap", config)
	want(t, tbl, map[string]string{
		"alias joseph@example.org": me(t), "alias jill@example.org": "",
		"credentials joe": "joe:$6$abc$Xyz", "credentials jack": "jack:Secret|Word", "credentials j*": "",
		"userinfo JOE": "2000:2001:/var/vmail/joe", "mailaddrmap joe": "joe@example.org, joseph@example.org", "domain example": "example",
	})
	if yes, err := tbl.Match(t.Context(), table.MailAddr, "joe+tag@example.org"); !yes || err != nil {
		t.Errorf("mailaddr: %v, %v", yes, err)
	}
	for key, want := range map[string]bool{
		"jack:Secret|Word": true, "JACK:Secret|Word": true, "jack:secret|word": false, "jack:": false, "jack": false,
		"jill:Secret|Word": false, "*:Secret|Word": false, "j*:Secret|Word": false, ":x": false, "joe:Secret|Word": false,
	} {
		if got, err := tbl.Match(t.Context(), table.Auth, key); got != want || err != nil {
			t.Errorf("auth %s: %v, %v", key, got, err)
		}
	}

	d := daemon.New(t, fmt.Sprintf(`table dir ldap:%s
listen on 127.0.0.1 port $port
listen on socket
action "v" maildir $box virtual <dir>
match from any for rcpt-to <dir> action "v"
`, config)).Start()
	send(t, d, "one", "joe+tag@example.org")
	refuses(t, d, "jill@example.org", 550)
	d.AwaitMail(1)

	_ = server.Process.Signal(syscall.SIGINT)
	_ = server.Wait()
	refuses(t, d, "joe@example.org", 451)
	serve(t, asUser(t, dir, slapd, "-f", conf, "-h", "ldap://127.0.0.1:3899", "-d", "0"))
	d.Await("mail after the server is back", func() bool {
		return d.Dial().Send("a@example.org", []string{"joe@example.org"}, "Subject: two\r\n\r\n", false) == nil
	})
	if _, _, err := tbl.Lookup(context.Background(), table.Alias, "joe@example.org"); err != nil {
		t.Errorf("after the server is back: %v", err)
	}
	d.AwaitMail(2)
}
