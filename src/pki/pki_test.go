package pki_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"math/big"
	"net"
	"os"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"opensmtpd/src/pki"
	"opensmtpd/src/pki/pkitest"
	"opensmtpd/src/privsep/msg"
)

// shake makes a handshake over a pipe and returns both ends' views.
func shake(t *testing.T, server, client *tls.Config) (s, c tls.ConnectionState, err error) {
	t.Helper()
	a, b := net.Pipe()
	defer a.Close()
	defer b.Close()
	sc, cc := tls.Server(a, server), tls.Client(b, client)
	ended := make(chan error, 1)
	go func() {
		err := sc.Handshake()
		if err != nil {
			a.Close()
		}
		ended <- err
	}()
	cerr := cc.Handshake()
	if cerr != nil {
		b.Close()
	}
	serr := <-ended
	return sc.ConnectionState(), cc.ConnectionState(), errors.Join(serr, cerr)
}

func config(t *testing.T, s pki.Server) *tls.Config {
	t.Helper()
	cfg, err := s.Config(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return cfg
}

// TestKinds signs with every kind of key, through the oracle, in every version.
func TestKinds(t *testing.T) {
	a := pkitest.New(t)
	for _, kind := range []string{pkitest.ECDSA, pkitest.P384, pkitest.P521, pkitest.RSA, pkitest.RSA1024, pkitest.Ed25519} {
		cfg := config(t, pki.Server{Chains: []*pki.Chain{a.Chain(kind, "mx.example.org")}, Ask: a.Sign, Protocols: "all"})
		for _, version := range []uint16{tls.VersionTLS10, tls.VersionTLS11, tls.VersionTLS12, tls.VersionTLS13} {
			if kind == pkitest.Ed25519 && version < tls.VersionTLS12 {
				continue // there was none
			}
			client := a.Client("mx.example.org")
			client.MinVersion, client.MaxVersion = tls.VersionTLS10, version
			s, _, err := shake(t, cfg, client)
			if err != nil || s.Version != version {
				t.Errorf("%s, %s: %v, %s", kind, tls.VersionName(version), err, tls.VersionName(s.Version))
			}
		}
	}
}

// TestChoice chooses by the names inside the certificates.
func TestChoice(t *testing.T) {
	a := pkitest.New(t)
	chains := []*pki.Chain{
		a.Chain(pkitest.ECDSA, "first.example.org"),
		a.Chain(pkitest.ECDSA, "Mx.Example.net", "*.wild.example"),
		a.Chain(pkitest.ECDSA), // only.common.example
		a.Chain(pkitest.Ed25519, "both.example"),
		a.Chain(pkitest.RSA, "both.example"),
	}
	cfg := config(t, pki.Server{Chains: chains, Ask: a.Sign, Turns: pki.NewTurns(1)})
	for _, tt := range []struct {
		sni  string
		want int
		p256 bool // a client that knows ECDSA alone, or RSA
	}{
		{"", 0, false}, {"first.example.org", 0, false}, {"unknown.example", 0, false},
		{"mx.example.net", 1, false}, {"MX.example.NET", 1, false}, {"a.wild.example", 1, false},
		{"wild.example", 0, false}, {"b.a.wild.example", 0, false}, {"192.0.2.1", 0, false},
		{"only.common.example", 2, false}, {"both.example", 3, false}, {"both.example", 4, true},
	} {
		client := &tls.Config{ServerName: tt.sni, InsecureSkipVerify: true}
		if tt.p256 {
			client.MaxVersion = tls.VersionTLS12
			client.CipherSuites = []uint16{tls.TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256}
		}
		_, c, err := shake(t, cfg, client)
		if err != nil {
			t.Errorf("%q: %v", tt.sni, err)
			continue
		}
		if got := c.PeerCertificates[0]; !got.Equal(chains[tt.want].Leaf) {
			t.Errorf("%q: the certificate for %v, want number %d", tt.sni, got.DNSNames, tt.want)
		}
	}
}

// TestNoTickets holds that nobody gets a ticket (see Server.Config).
func TestNoTickets(t *testing.T) {
	a := pkitest.New(t)
	cfg := config(t, pki.Server{Chains: []*pki.Chain{a.Chain(pkitest.ECDSA, "mx.example.org")}, Ask: a.Sign})
	for _, version := range []uint16{tls.VersionTLS12, tls.VersionTLS13} {
		client := a.Client("mx.example.org")
		client.MaxVersion, client.ClientSessionCache = version, tls.NewLRUClientSessionCache(4)
		for range 2 {
			if s, _, err := shake(t, cfg, client); err != nil || s.DidResume {
				t.Errorf("%s: %v, resumed %v", tls.VersionName(version), err, s.DidResume)
			}
		}
	}
}

func TestVerifyClients(t *testing.T) {
	a, other := pkitest.New(t), pkitest.New(t)
	cfg := config(t, pki.Server{
		Chains: []*pki.Chain{a.Chain(pkitest.ECDSA, "mx.example.org")}, Ask: a.Sign, Verify: true, Authorities: a.Pool(),
	})
	for name, tt := range map[string]struct {
		show []tls.Certificate
		ok   bool
	}{
		"none": {nil, false}, "ours": {[]tls.Certificate{a.Identity("client.example")}, true},
		"of a stranger": {[]tls.Certificate{other.Identity("client.example")}, false},
		"expired":       {[]tls.Certificate{identity(t, a, time.Now().Add(-48*time.Hour))}, false},
		"of later":      {[]tls.Certificate{identity(t, a, time.Now().Add(48*time.Hour))}, false},
		"self-signed":   {[]tls.Certificate{selfSigned(t)}, false},
	} {
		client := a.Client("mx.example.org")
		client.Certificates = tt.show
		client.MaxVersion = tls.VersionTLS12 // in 1.3 the client learns it later
		if _, _, err := shake(t, cfg, client); (err == nil) != tt.ok {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// identity is what a client shows from a time on.
func identity(t *testing.T, a *pkitest.Authority, from time.Time) tls.Certificate {
	t.Helper()
	c, err := tls.X509KeyPair(a.IssueAt(from, pkitest.ECDSA, "client.example"))
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func selfSigned(t *testing.T) tls.Certificate {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	tmpl := &x509.Certificate{SerialNumber: big.NewInt(1), DNSNames: []string{"client.example"}, NotAfter: time.Now().Add(time.Hour)}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, tmpl, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
}

func TestParseChain(t *testing.T) {
	a := pkitest.New(t)
	cert, key := a.Issue(pkitest.ECDSA, "mx.example.org")
	c, err := pki.ParseChain(append(append([]byte("text\n"), key...), cert...))
	if err != nil || len(c.DER) != 2 || !c.Matches("mx.example.org.") {
		t.Errorf("%v, %+v", err, c)
	}
	for name, text := range map[string]string{
		"empty": "", "text": "hello\n", "key alone": string(key),
		"damaged": strings.Replace(string(cert), "MII", "MIX", 1),
	} {
		if _, err := pki.ParseChain([]byte(text)); err == nil {
			t.Errorf("%s was taken", name)
		}
	}
	now := time.Now()
	for from, want := range map[time.Time]string{now: "", now.Add(-48 * time.Hour): "expired", now.Add(48 * time.Hour): "not valid before"} {
		cert, _ := a.IssueAt(from, pkitest.ECDSA, "x.example")
		c, err := pki.ParseChain(cert)
		if err != nil {
			t.Fatal(err)
		}
		if got := c.Remark(now); !strings.Contains(got, want) || want == "" && got != "" {
			t.Errorf("from %v: %q", from, got)
		}
	}
	if got := a.Chain(pkitest.RSA1024, "x.example").Remark(now); !strings.Contains(got, "1024 bits") {
		t.Errorf("small RSA: %q", got)
	}
}

// FuzzChain holds that what is read can be looked at, and leads to its own key.
func FuzzChain(f *testing.F) {
	a := pkitest.New(f)
	cert, key := a.Issue(pkitest.ECDSA, "mx.example.org", "*.example.org")
	f.Add(cert, "mx.example.org")
	f.Add(append(append([]byte("text\n"), key...), cert...), "A.example.org.")
	f.Add(append(slices.Clone(a.PEM), cert...), "")
	f.Fuzz(func(t *testing.T, text []byte, name string) {
		c, err := pki.ParseChain(text)
		if err != nil {
			return
		}
		_, _ = c.Matches(name), c.Remark(time.Now())
		if c.Holds(c.Key) != 1 || len(c.DER) == 0 {
			t.Errorf("%q: its key is that of certificate %d of %d", text, c.Holds(c.Key), len(c.DER))
		}
	})
}

// TestTurns holds that one who waits often does not keep another waiting long.
func TestTurns(t *testing.T) {
	a := pkitest.New(t)
	turns := pki.NewTurns(1)
	asked, finish := make(chan string), make(chan struct{})
	var shaken sync.WaitGroup
	start := func(who string) {
		ask := func(ctx context.Context, m *msg.Sign) ([]byte, error) {
			asked <- who
			<-finish
			return a.Sign(ctx, m)
		}
		chain := a.Chain(pkitest.ECDSA, "mx.example.org")
		cfg := config(t, pki.Server{Chains: []*pki.Chain{chain}, Ask: ask, Turns: turns})
		server, client := net.Pipe()
		shaken.Go(func() {
			defer client.Close()
			_ = tls.Client(client, a.Client("mx.example.org")).Handshake() // the server's end tells
		})
		shaken.Go(func() {
			defer server.Close()
			if err := tls.Server(from{server, who}, cfg).Handshake(); err != nil {
				t.Error(err)
			}
		})
	}
	const greedy = 20
	for range greedy {
		start("192.0.2.1")
	}
	<-asked
	turns.AwaitWaiting(greedy - 1)
	start("192.0.2.2")
	turns.AwaitWaiting(greedy)
	var order []string
	for range greedy {
		finish <- struct{}{}
		order = append(order, <-asked)
	}
	finish <- struct{}{}
	shaken.Wait()
	if at := slices.Index(order, "192.0.2.2"); at < 0 || at > 1 {
		t.Errorf("served as number %d behind the first", at+1)
	}
}

// from is a connection with a client's address.
type from struct {
	net.Conn
	ip string
}

func (f from) RemoteAddr() net.Addr { return &net.TCPAddr{IP: net.ParseIP(f.ip), Port: 1} }

func names(ids []uint16) string {
	var list []string
	for _, id := range ids {
		n, _ := pki.Cipher(id)
		list = append(list, n)
	}
	return strings.Join(list, " ")
}

func TestCiphers(t *testing.T) {
	text, err := os.ReadFile("testdata/ciphers.txt")
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(text)) {
		list, want, found := strings.Cut(strings.TrimSpace(line), " => ")
		if !found || line[0] == '#' {
			continue
		}
		c, err := pki.ParseCiphers(list)
		got := names(c.Suites)
		if err != nil {
			got = "error: " + err.Error()
		} else if len(c.Missing) > 0 {
			got += " missing " + strings.Join(c.Missing, " ")
		}
		if got != want {
			t.Errorf("%s\n got %s\nwant %s", list, got, want)
		}
	}
}

// TestCiphersAgainstOpenSSL holds lists against what openssl makes of them, as far
// as both have the ciphers. It orders them, we do not.
func TestCiphersAgainstOpenSSL(t *testing.T) {
	openssl, err := exec.LookPath("openssl")
	if err != nil {
		t.Skip("openssl is not installed")
	}
	all, err := pki.ParseCiphers("ALL")
	if err != nil {
		t.Fatal(err)
	}
	ours := strings.Fields(names(all.Suites))
	for _, list := range []string{
		"ALL", "HIGH:!aNULL", "ECDHE+AESGCM:ECDHE+CHACHA20", "EECDH+aRSA:!SHA1", "kECDHE+SHA256:-AESGCM", "AES128+ECDSA",
		"aECDSA", "HIGH:!SHA384:!CHACHA20", "AESGCM:!AES256", "ECDHE-RSA-AES256-SHA:ECDHE-ECDSA-AES256-SHA:!aECDSA", "AES256:!AESGCM",
		"TLSv1.2+ECDHE", "ALL:-ALL:AES+SHA1", "HIGH:RSA+AESGCM:!kRSA:!DHE:!PSK:!SRP", "EECDH+ECDSA+AESGCM EECDH+aRSA+AESGCM",
	} {
		out, err := exec.Command(openssl, "ciphers", "-s", "-tls1_2", list+":@SECLEVEL=0").Output()
		if err != nil {
			t.Errorf("openssl ciphers %s: %v", list, err)
			continue
		}
		want := slices.DeleteFunc(strings.Split(strings.TrimSpace(string(out)), ":"), func(n string) bool { return !slices.Contains(ours, n) })
		c, err := pki.ParseCiphers(list)
		got := strings.Fields(names(c.Suites))
		slices.Sort(want)
		slices.Sort(got)
		if err != nil || !slices.Equal(got, want) {
			t.Errorf("%s: %v\n  ours %v\nopenssl %v", list, err, got, want)
		}
	}
}

func TestProtocols(t *testing.T) {
	for list, want := range map[string]string{
		"": "TLSv1.2-", "secure": "TLSv1.2-TLSv1.3", "default": "TLSv1.2-TLSv1.3", "TLSv1.2:TLSv1.3": "TLSv1.2-TLSv1.3",
		"tlsv1.3": "TLSv1.3-TLSv1.3", "TLSv1.2": "TLSv1.2-TLSv1.2", "all": "TLSv1.0-TLSv1.3", "legacy": "TLSv1.0-TLSv1.3",
		"all,!TLSv1.0,!TLSv1.1": "TLSv1.2-TLSv1.3", "!TLSv1.0": "TLSv1.1-TLSv1.3", "TLSv1.3, TLSv1.2": "TLSv1.2-TLSv1.3",
		"SSLv3": "error", "TLSv1.4": "error", "!all": "error", "TLSv1.0:TLSv1.3": "error", "TLSv1.1 TLSv1.3": "error",
	} {
		v, err := pki.ParseProtocols(list)
		got := "error"
		if err == nil {
			got = pki.VersionName(v.Min) + "-"
			if v.Max != 0 {
				got += pki.VersionName(v.Max)
			}
		}
		if got != want {
			t.Errorf("%q: %s (%v), want %s", list, got, err, want)
		}
	}
}

func FuzzCiphers(f *testing.F) {
	for _, s := range []string{"HIGH:!aNULL", "secure", "ECDHE+AESGCM:-SHA1 @STRENGTH", "!", "+", "ECDHE-RSA-AES128-SHA", "AES+!", "@SECLEVEL=1"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, list string) {
		c, err := pki.ParseCiphers(list)
		if err == nil && len(c.Suites) == 0 && strings.TrimSpace(list) != "" {
			t.Errorf("%q gives none and no error", list)
		}
		for _, id := range c.Suites {
			if name, bits := pki.Cipher(id); name == "" || bits < 128 {
				t.Errorf("%q gives %s of %d bits", list, name, bits)
			}
		}
	})
}

func FuzzProtocols(f *testing.F) {
	for _, s := range []string{"all", "TLSv1.2:TLSv1.3", "!tlsv1", "secure,!TLSv1.3", ":,"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, list string) {
		v, err := pki.ParseProtocols(list)
		if err == nil && (v.Min < tls.VersionTLS10 || v.Max != 0 && v.Max < v.Min) {
			t.Errorf("%q: %+v", list, v)
		}
	})
}
