package auth

import (
	"crypto/hmac"
	"crypto/pbkdf2"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base64"
	"errors"
	"fmt"
	"strings"
	"testing"

	"opensmtpd/src/conf"
	"opensmtpd/src/crypt"
	"opensmtpd/src/lookup/table"
)

func scramTable(t testing.TB) *table.Static {
	t.Helper()
	secret, err := crypt.Make("scram-sha-256", "pencil")
	if err != nil {
		t.Fatal(err)
	}
	other, err := crypt.Make("sha256", "pencil")
	if err != nil {
		t.Fatal(err)
	}
	return table.NewStatic("users", conf.Map, []table.Entry{
		{Key: "user", Value: secret}, {Key: "named", Value: "named:" + secret}, {Key: "odd,=name", Value: secret},
		{Key: "old", Value: other}, {Key: "off", Value: "*"},
	}, "+")
}

// finalOf is the second message of a client that knows password.
func finalOf(t testing.TB, first, challenge, password string) string {
	t.Helper()
	var nonce, salt string
	var iterations int
	for _, attr := range strings.Split(challenge, ",") {
		switch {
		case strings.HasPrefix(attr, "r="):
			nonce = attr[2:]
		case strings.HasPrefix(attr, "s="):
			salt = attr[2:]
		case strings.HasPrefix(attr, "i="):
			if _, err := fmt.Sscan(attr[2:], &iterations); err != nil {
				t.Fatal(err)
			}
		}
	}
	raw, err := base64.StdEncoding.DecodeString(salt)
	if err != nil {
		t.Fatal(err)
	}
	mac := func(key []byte, text string) []byte {
		h := hmac.New(sha256.New, key)
		h.Write([]byte(text))
		return h.Sum(nil)
	}
	salted, err := pbkdf2.Key(sha256.New, password, raw, iterations, 32)
	if err != nil {
		t.Fatal(err)
	}
	i := strings.Index(first, "n=")
	bare := "c=" + base64.StdEncoding.EncodeToString([]byte(first[:i])) + ",r=" + nonce
	key := mac(salted, "Client Key")
	stored := sha256.Sum256(key)
	proof := make([]byte, 32)
	subtle.XORBytes(proof, key, mac(stored[:], first[i:]+","+challenge+","+bare))
	return bare + ",p=" + base64.StdEncoding.EncodeToString(proof)
}

func TestScram(t *testing.T) {
	users, c := scramTable(t), NewChecker()
	if !c.Scram(users) || c.Scram(table.NewStatic("none", conf.Map, nil, "+")) || c.Scram(&program{}) {
		t.Error("offered where it must not be, or not where it must")
	}
	for _, tc := range []struct {
		first, password, user string
		ok                    bool
	}{
		{"n,,n=user,r=abc", "pencil", "user", true},
		{"y,,n=user,r=abc", "pencil", "user", true},
		{"n,a=user,n=user,r=abc", "pencil", "user", true},
		{"n,,n=named,r=abc", "pencil", "named", true},
		{"n,,n=odd=2C=3Dname,r=abc", "pencil", "odd,=name", true},
		{"n,,n=user,r=abc,x=extension", "pencil", "user", true},
		{"n,,n=user,r=abc", "Pencil", "user", false},
		{"n,,n=nobody,r=abc", "pencil", "nobody", false},
		{"n,,n=old,r=abc", "pencil", "old", false}, // his hash is none of SCRAM
		{"n,,n=off,r=abc", "*", "off", false},
	} {
		user, challenge, err := c.ScramFirst(t.Context(), users, tc.first)
		if err != nil || user != tc.user || !strings.HasPrefix(challenge, "r=abc") || !strings.HasSuffix(challenge, ",i=4096") {
			t.Errorf("%q: %q, %q, %v", tc.first, user, challenge, err)
			continue
		}
		final := finalOf(t, tc.first, challenge, tc.password)
		user, sign, ok, err := c.ScramFinal(t.Context(), users, tc.first, challenge, final)
		if ok != tc.ok || err != nil || user != tc.user || ok != strings.HasPrefix(sign, "v=") {
			t.Errorf("%q: %q, %q, %v, %v", tc.first, user, sign, ok, err)
		}
		// What was said in one exchange proves nothing in another.
		_, other, err := c.ScramFirst(t.Context(), users, tc.first)
		if err != nil {
			t.Fatal(err)
		}
		if _, _, ok, _ := c.ScramFinal(t.Context(), users, tc.first, other, final); ok {
			t.Errorf("%q: replayed", tc.first)
		}
	}
	// PLAIN works with the same secret.
	if ok, err := c.Table(t.Context(), users, "user", "pencil"); !ok || err != nil {
		t.Error(ok, err)
	}
	if ok, err := c.Table(t.Context(), users, "named", "Pencil"); ok || err != nil {
		t.Error(ok, err)
	}
}

// TestScramStrangers: who does not exist has a salt, the same every time, as who
// does.
func TestScramStrangers(t *testing.T) {
	users, c := scramTable(t), NewChecker()
	salt := func(user string) string {
		_, challenge, err := c.ScramFirst(t.Context(), users, "n,,n="+user+",r=abc")
		if err != nil {
			t.Fatal(err)
		}
		return strings.SplitN(challenge, ",", 2)[1]
	}
	if salt("nobody") != salt("NOBODY") || salt("nobody") == salt("nobody2") || len(salt("nobody")) != len(salt("user")) {
		t.Errorf("%q %q %q", salt("nobody"), salt("nobody2"), salt("user"))
	}
}

func TestScramSyntax(t *testing.T) {
	users, c := scramTable(t), NewChecker()
	for _, bad := range []string{
		"", "n", "n,,", "n,,n=user", "p=tls-unique,,n=user,r=abc", "n,,m=ext,n=user,r=abc", "n,,n=,r=abc", "n,,n=user,r=",
		"n,a=root,n=user,r=abc", "n,user,n=user,r=abc", "n,,n=us=er,r=abc", "n,,n=user,r=a\nb", "n,,n=us\x00er,r=abc",
		"n,,n=user,r=" + strings.Repeat("x", maxMessage),
	} {
		if _, _, err := c.ScramFirst(t.Context(), users, bad); !errors.Is(err, ErrSyntax) {
			t.Errorf("%q: %v", bad, err)
		}
	}
	const first = "n,,n=user,r=abc"
	_, challenge, err := c.ScramFirst(t.Context(), users, first)
	if err != nil {
		t.Fatal(err)
	}
	good := finalOf(t, first, challenge, "pencil")
	for _, bad := range []string{
		"", "c=biws", strings.Replace(good, "c=biws", "c=eSws", 1), strings.Replace(good, "r=abc", "r=abd", 1),
		strings.Split(good, ",p=")[0], good + "*", "c=biws,r=abc,p=AAAA",
	} {
		if _, _, ok, err := c.ScramFinal(t.Context(), users, first, challenge, bad); ok || !errors.Is(err, ErrSyntax) {
			t.Errorf("%q: %v, %v", bad, ok, err)
		}
	}
}

// FuzzScram: nobody gets in by saying what does not follow from the password.
func FuzzScram(f *testing.F) {
	users, c := scramTable(f), NewChecker()
	const first = "n,,n=user,r=abc"
	_, challenge, err := c.ScramFirst(f.Context(), users, first)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(first, challenge, finalOf(f, first, challenge, "wrong"))
	f.Add("y,a=user,n=user,r=abc,x=y", "r=abcd,s=c2FsdA==,i=1", "c=eSxhPXVzZXIs,r=abcd,p=AAAA")
	f.Fuzz(func(t *testing.T, first, challenge, final string) {
		if user, _, err := c.ScramFirst(t.Context(), users, first); err == nil && (user == "" || strings.ContainsAny(user, "\r\n\x00")) {
			t.Errorf("%q: user %q", first, user)
		}
		if _, _, ok, _ := c.ScramFinal(t.Context(), users, first, challenge, final); ok {
			t.Errorf("%q, %q, %q gets in", first, challenge, final)
		}
	})
}
