package ca

import (
	"bytes"
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/pem"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"opensmtpd/src/conf/project"
	"opensmtpd/src/mail"
	"opensmtpd/src/mailerr"
	"opensmtpd/src/pki"
	"opensmtpd/src/pki/pkitest"
	"opensmtpd/src/privsep/msg"
	"opensmtpd/src/privsep/proc"
)

// configure makes a generation of pairs of certificate and key, by name.
func configure(t *testing.T, gen mail.Gen, pairs map[string][2][]byte) proc.Conf {
	t.Helper()
	var p project.CryptoConf
	c := proc.Conf{Gen: gen}
	for name, pair := range pairs {
		p.Keys = append(p.Keys, project.Key{PKI: name, Identity: "key:" + name, Cert: "cert:" + name, Place: "smtpd.conf:3:9"})
		for i, id := range []string{"cert:" + name, "key:" + name} {
			path := filepath.Join(t.TempDir(), "file")
			if err := os.WriteFile(path, pair[i], 0o600); err != nil {
				t.Fatal(err)
			}
			f, err := os.Open(path)
			if err != nil {
				t.Fatal(err)
			}
			c.Files = append(c.Files, proc.File{Identity: id, File: f})
		}
	}
	var err error
	if c.Projection, err = project.Encode(&p); err != nil {
		t.Fatal(err)
	}
	return c
}

type request struct {
	proc.Request
	m     msg.Message
	reply msg.Message
	err   *mailerr.Error
}

func (q *request) Parse(m msg.Parser) error { return m.Parse(q.m.Append(nil)) }
func (q *request) Reply(m msg.Message)      { q.reply = m }
func (q *request) Fail(err *mailerr.Error)  { q.err = err }

// ask has a role sign.
func ask(r *Role, m *msg.Sign) *msg.Signed {
	q := &request{m: m}
	r.sign(context.Background(), q)
	s, _ := q.reply.(*msg.Signed)
	return s
}

func keyID(t *testing.T, cert []byte) msg.KeyID {
	t.Helper()
	c, err := pki.ParseChain(cert)
	if err != nil {
		t.Fatal(err)
	}
	return c.Key
}

func TestConfiguration(t *testing.T) {
	a := pkitest.New(t)
	cert, key := a.Issue(pkitest.ECDSA, "mx.example.org")
	other, err := project.Encode(&project.ControlConf{})
	if err != nil {
		t.Fatal(err)
	}
	r, err := New(proc.Env{Conf: configure(t, 1, map[string][2][]byte{"mx": {cert, key}})})
	if err != nil {
		t.Fatal(err)
	}
	bad := configure(t, 2, nil)
	bad.Projection = other
	if err := r.Prepare(t.Context(), bad); err == nil {
		t.Error("the configuration of another role was taken")
	}
	stranger, _ := a.Issue(pkitest.ECDSA, "mx.example.org")
	for name, pair := range map[string][2][]byte{
		"the key is not that of the certificate": {stranger, key},
		"no private key":                         {cert, cert},
		"that of the certificate numbered 2: it": {slices.Concat(a.PEM, bytes.TrimSuffix(cert, a.PEM)), key},
		"holds no certificate":                   {key, key},
	} {
		c := configure(t, 2, map[string][2][]byte{"mx": pair})
		err := r.Prepare(t.Context(), c)
		if err == nil || !strings.Contains(err.Error(), name) || !strings.HasPrefix(err.Error(), "smtpd.conf:3:9: pki mx: ") {
			t.Errorf("%s: %v", name, err)
		}
		for _, f := range c.Files {
			if _, err := f.File.Stat(); err == nil {
				t.Errorf("%s: a file was kept open", name)
			}
		}
	}
	if ask(r, sum(keyID(t, cert))).Err != nil {
		t.Error("the key in force is gone")
	}
}

// sum is a request for a signature.
func sum(id msg.KeyID) *msg.Sign {
	h := sha256.Sum256([]byte("text"))
	return &msg.Sign{Key: id, Hash: uint8(crypto.SHA256), Data: h[:]}
}

// TestChange holds that keys change with the configuration, that those of before
// sign on for a while, and that nothing of an aborted one stays.
func TestChange(t *testing.T) {
	a := pkitest.New(t)
	var ids []msg.KeyID
	var pairs [][2][]byte
	for range keptSets + 3 {
		cert, key := a.Issue(pkitest.ECDSA, "mx.example.org")
		ids = append(ids, keyID(t, cert))
		pairs = append(pairs, [2][]byte{cert, key})
	}
	r, err := New(proc.Env{Conf: configure(t, 1, map[string][2][]byte{"mx": pairs[0]})})
	if err != nil {
		t.Fatal(err)
	}
	known := func(i int) bool { return ask(r, sum(ids[i])).Err == nil }
	last := len(ids) - 1
	if err := r.Prepare(t.Context(), configure(t, 2, map[string][2][]byte{"mx": pairs[last]})); err != nil {
		t.Fatal(err)
	}
	if known(last) {
		t.Error("a prepared key signs")
	}
	r.Abort(2)
	r.Commit(2)
	if known(last) || !known(0) {
		t.Error("an aborted configuration is in force")
	}
	for i := 1; i < last; i++ {
		// The generation may be the same: certificates alone have changed.
		if err := r.Prepare(t.Context(), configure(t, 2, map[string][2][]byte{"mx": pairs[i]})); err != nil {
			t.Fatal(err)
		}
		r.Commit(2)
	}
	for i := range last {
		if want := i >= last-1-keptSets; known(i) != want {
			t.Errorf("key %d of %d signs: %v", i, last, !want)
		}
	}
}

// TestForms reads what openssl writes, of every kind.
func TestForms(t *testing.T) {
	openssl, err := exec.LookPath("openssl")
	if err != nil {
		t.Skip("openssl is not installed")
	}
	dir := t.TempDir()
	run := func(args ...string) []byte {
		t.Helper()
		out, err := exec.Command(openssl, args...).Output()
		if err != nil {
			t.Skipf("openssl %v: %v", args, err)
		}
		return out
	}
	for name, tt := range map[string]struct {
		text []byte
		want string // "": it is read
	}{
		"PKCS #8 RSA":       {run("genpkey", "-algorithm", "RSA", "-pkeyopt", "rsa_keygen_bits:2048"), ""},
		"PKCS #8 Ed25519":   {run("genpkey", "-algorithm", "ED25519"), ""},
		"PKCS #8 P-384":     {run("genpkey", "-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-384"), ""},
		"PKCS #1":           {run("genrsa", "-traditional", "2048"), ""},
		"SEC 1, parameters": {run("ecparam", "-name", "prime256v1", "-genkey"), ""},
		"encrypted PKCS #1": {run("genrsa", "-traditional", "-aes128", "-passout", "pass:secret", "2048"), "passphrase"},
		"encrypted PKCS #8": {run("genpkey", "-algorithm", "ED25519", "-aes128", "-pass", "pass:secret"), "passphrase"},
		"small RSA":         {run("genrsa", "512"), "512 bits"},
		"another curve":     {run("ecparam", "-name", "secp224r1", "-genkey", "-noout"), "the curve P-224"},
		"Ed448":             {run("genpkey", "-algorithm", "ED448"), "cannot be read"},
	} {
		_, err := parse(tt.text)
		switch {
		case tt.want == "" && err != nil:
			t.Errorf("%s: %v", name, err)
		case tt.want != "" && (err == nil || !strings.Contains(err.Error(), tt.want)):
			t.Errorf("%s: %v, want %q", name, err, tt.want)
		}
	}
	_ = dir
}

// TestOnlyWhatTLSSigns holds what is refused.
func TestOnlyWhatTLSSigns(t *testing.T) {
	_, ed, _ := ed25519.GenerateKey(rand.Reader)
	ec, _ := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	rs, _ := rsa.GenerateKey(rand.Reader, 2048)
	for name, tt := range map[string]struct {
		key  crypto.Signer
		hash crypto.Hash
		pss  bool
		size int
		ok   bool
	}{
		"Ed25519":            {ed, 0, false, 146, true},
		"Ed25519, a hash":    {ed, crypto.SHA512, false, 64, false},
		"Ed25519, too long":  {ed, 0, false, maxMessage + 1, false},
		"ECDSA":              {ec, crypto.SHA256, false, 32, true},
		"ECDSA, PSS":         {ec, crypto.SHA256, true, 32, false},
		"ECDSA, no hash":     {ec, 0, false, 32, false},
		"RSA":                {rs, crypto.SHA256, false, 32, true},
		"RSA, PSS":           {rs, crypto.SHA384, true, 48, true},
		"RSA, before 1.2":    {rs, crypto.MD5SHA1, false, 36, true},
		"RSA, another size":  {rs, crypto.SHA256, false, 31, false},
		"RSA, anything":      {rs, 0, false, 32, false},
		"RSA, unknown hash":  {rs, 77, false, 32, false},
		"RSA, PSS of any":    {rs, 0, true, 0, false},
		"a key that is gone": {nil, crypto.SHA256, false, 32, false},
	} {
		sig, err := signature(tt.key, &msg.Sign{Hash: uint8(tt.hash), PSS: tt.pss, Data: make([]byte, tt.size)})
		if (err == nil) != tt.ok || tt.ok == (len(sig) == 0) {
			t.Errorf("%s: %d bytes, %v", name, len(sig), err)
		}
	}
}

func TestDamagedRequest(t *testing.T) {
	q := &request{m: &msg.Error{}}
	(&Role{}).sign(t.Context(), q)
	if q.err == nil {
		t.Error("it was answered")
	}
}

func TestRunEndsWithItsContext(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := (&Role{}).Run(ctx); err != nil {
		t.Error(err)
	}
}

// FuzzKey reads anything as a key: an error never repeats what it read.
func FuzzKey(f *testing.F) {
	_, ed, _ := ed25519.GenerateKey(rand.Reader)
	der, err := x509.MarshalPKCS8PrivateKey(ed)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}))
	f.Add([]byte("-----BEGIN EC PRIVATE KEY-----\nMHcC\n-----END EC PRIVATE KEY-----\n"))
	f.Add([]byte("-----BEGIN RSA PRIVATE KEY-----\nProc-Type: 4,ENCRYPTED\n\nMHcC\n-----END RSA PRIVATE KEY-----\n"))
	f.Fuzz(func(t *testing.T, text []byte) {
		key, err := parse(text)
		if (key == nil) == (err == nil) {
			t.Errorf("%v, %v", key, err)
		}
	})
}
