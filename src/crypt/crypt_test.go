package crypt

import (
	"encoding/base64"
	"regexp"
	"strings"
	"testing"
)

// password is what the hashes below were made of, by crypt(3) of libxcrypt 4.4.
const password = "Zürich pass: 1"

var hashes = []string{
	"$1$abcdefgh$Adz7QuX42ykxwGWgs3Ady/",
	"$5$rounds=5000$abcdefghijkl$/erDcbZ/vlkSaceEViLZILYMzpB6GC8x1fG8wbSHbI/",
	"$5$abcdefgh$/WbF7hh2Rqub2Pg0NDsoXLNAVk5LJNUZfpbNq5WvYn5",
	"$6$abcdefghijkl$yni9d055Im9gLt3I7JXARW0o0sqkg2b1MTp6sn6aGWnBR3RBnVK8zg3eeGKJJWGq55ZYYSEk7KQZwXPFl3WD60",
	"$6$rounds=1234$abcdefghijkl$4xyZqOulAlZoXqdywUCbgtlwwg0ytsPZashhB/QxpDYIagF8hkMxDzhoez6BRgh5slmWShZyA34RpnhMH27nm/",
	"$2a$04$abcdefghijklmnopqrstuuIpm8IH52ATbRob70fcPT7U553o.J0AW",
	"$2b$04$abcdefghijklmnopqrstuuIpm8IH52ATbRob70fcPT7U553o.J0AW",
	"$2y$05$abcdefghijklmnopqrstuuwZOrhviIiBaSw57fvo3hS24HE8SvDAK",
	"$y$j9T$abcdefghijklmnop$C4KC5EOTpOX3T4TmvraYXtpx8JXlpWzVRBzONGm3vJC",
	"$y$j75$abcdefghijklmnop$GRvs/AJdhBkVhmWFQETRSS.0t/vFCn1wdd8aY0pTwP1",
	"$7$CU..../....abcdefgh$DDEHUIPf7UpmsO5D/nBYrjXMEJQrsifDhuua0ZOWaO4",
	"$7$8/..../....SodiumChloride$3j.kgxrlGyIPV0N5qtLq680u/jqcWSICdVL0CifNOv3",
	"$sha1$4000$abcdefgh$geA1T8SR6SWuyGmuVneLCqVEAgCP",
	"$md5,rounds=5$abcdefgh$$QkERPO6A..Od5Mp2pPvmT0",
}

// TestScram holds the keys and the example of RFC 7677 section 3.
func TestScram(t *testing.T) {
	salt, err := base64.StdEncoding.DecodeString("W22ZaJ0SNY7soEsUEjb6gQ==")
	if err != nil {
		t.Fatal(err)
	}
	s, err := scramKeys("pencil", salt, 4096)
	if err != nil {
		t.Fatal(err)
	}
	const said = "n=user,r=rOprNGfwEbeRWgbNEkqO,r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0," +
		"s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096,c=biws,r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0"
	proof, err := base64.StdEncoding.DecodeString("dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ=")
	if err != nil {
		t.Fatal(err)
	}
	sign, ok := s.Proves(said, proof)
	if !ok || base64.StdEncoding.EncodeToString(sign) != "6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4=" {
		t.Errorf("%v, %x", ok, sign)
	}
	for _, bad := range [][]byte{nil, proof[1:], append([]byte{proof[0] ^ 1}, proof[1:]...), make([]byte, 32)} {
		if _, ok := s.Proves(said, bad); ok {
			t.Errorf("%x proves something", bad)
		}
	}
	if _, ok := s.Proves(said+"x", proof); ok {
		t.Error("a proof of something else is taken")
	}
}

func TestParseScram(t *testing.T) {
	const key = "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA="
	for _, tc := range []struct {
		in string
		ok bool
	}{
		{"SCRAM-SHA-256$4096:c2FsdA==$" + key + ":" + key, true},
		{"SCRAM-SHA-256$0:c2FsdA==$" + key + ":" + key, false},
		{"SCRAM-SHA-256$99999999:c2FsdA==$" + key + ":" + key, false},
		{"SCRAM-SHA-256$4096:$" + key + ":" + key, false},
		{"SCRAM-SHA-256$4096:c2FsdA==$" + key, false},
		{"SCRAM-SHA-256$4096:c2FsdA==$AAAA:" + key, false},
		{"SCRAM-SHA-256$4096:c2FsdA==$" + key + ":AAAA", false},
		{"SCRAM-SHA-256$4096:c2Fs*A==$" + key + ":" + key, false},
		{"SCRAM-SHA-256$", false},
		{"SCRAM-SHA-1$4096:c2FsdA==$" + key + ":" + key, false},
	} {
		if _, err := ParseScram(tc.in); (err == nil) != tc.ok {
			t.Errorf("%s: %v", tc.in, err)
		}
	}
}

func TestSchemes(t *testing.T) {
	for _, hash := range hashes {
		h, err := Parse(hash)
		if err != nil {
			t.Errorf("%s: %v", hash, err)
			continue
		}
		if !h.Matches(password) {
			t.Errorf("%s does not match its password", hash)
		}
		for _, wrong := range []string{"", "zürich pass: 1", password + "\x00", password[:len(password)-1], strings.Repeat("x", MaxPassword+1)} {
			if h.Matches(wrong) {
				t.Errorf("%s matches %q", hash, wrong)
			}
		}
	}
}

// TestDisabledAccounts: what disables an account, or is no hash, matches nothing, not even
// itself.
func TestDisabledAccounts(t *testing.T) {
	for _, hash := range []string{
		"", "*", "!", "!!", "x", "*LK*", "NP", "secret", "$", "$$", "$1", "$9$abc$def", "$2b$", "$2b$04$short",
		"!" + hashes[3], "*" + hashes[6], " " + hashes[6], hashes[6] + "\x00", strings.Repeat("$6$", 400),
		"abV8ZTLcAk2N2",                        // DES
		"_J9..abcdgifkFBLnaeI",                 // BSDi
		"$3$$8781c493a850d91190c8981528f0565e", // NT
		"$gy$j75$abcdefghijklmnop$/lZTkUwH/vj.tssLeRqa3636MLwgB.G/uaDDYC2RR10",       // GOST
		"$7$CU..../....abcdefgh$DDEHUIPf7UpmsO5D/nBYrjXMEJQrsifDhuua0ZOWaO",          // short
		"$7$zU..../....abcdefgh$DDEHUIPf7UpmsO5D/nBYrjXMEJQrsifDhuua0ZOWaO4",         // 2^63
		"$7$C=..../....abcdefgh$DDEHUIPf7UpmsO5D/nBYrjXMEJQrsifDhuua0ZOWaO4", "$7$C", //
	} {
		h, err := Parse(hash)
		if err == nil {
			t.Errorf("%q is taken for a hash", hash)
		}
		for _, p := range []string{"", hash, password} {
			if h.Matches(p) {
				t.Errorf("%q matches %q", hash, p)
			}
		}
	}
}

// TestDecoy: it must be as dear as a hash of a user's, so it must be one.
func TestDecoy(t *testing.T) {
	h, err := Parse(Decoy)
	if err != nil || h.match == nil {
		t.Fatal(err)
	}
	if ok, err := h.match(password); ok || err != nil {
		t.Error(ok, err)
	}
}

func TestMake(t *testing.T) {
	for _, scheme := range Schemes() {
		hash, err := Make(scheme, password)
		if err != nil {
			t.Errorf("%s: %v", scheme, err)
			continue
		}
		h, err := Parse(hash)
		if err != nil || !h.Matches(password) || h.Matches(password+" ") {
			t.Errorf("%s: %q, %v", scheme, hash, err)
		}
		if again, err := Make(scheme, password); err != nil || again == hash {
			t.Errorf("%s: no salt: %v", scheme, err)
		}
	}
	for _, tc := range []struct{ scheme, password, want string }{
		{"rot13", "x", "unknown scheme"},
		{"bcrypt", "", "empty"},
		{"bcrypt", strings.Repeat("x", 73), "longer than 72"},
		{"sha512", "a\x00b", "NUL"},
	} {
		if hash, err := Make(tc.scheme, tc.password); err == nil || !strings.Contains(err.Error(), tc.want) {
			t.Errorf("%+v: %q, %v", tc, hash, err)
		}
	}
}

// FuzzParse: a table may hold anything; only what it costs to compare is the
// administrator's own affair.
func FuzzParse(f *testing.F) {
	for _, h := range hashes {
		f.Add(h)
	}
	f.Add("$argon2id$v=19$m=65536,t=3,p=4$QmkpoTw3W72fzd7RrWofuw$r0xig+VVj7ynnE2S1jrE5us7dPKv2S2ff6Z6ts4mVuU")
	f.Add("$md5,rounds=4294967295$$$")
	f.Add("SCRAM-SHA-256$4096:c2FsdA==$AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=:AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=")
	f.Fuzz(func(t *testing.T, hash string) {
		h, err := Parse(hash)
		if (err == nil) == (h.match == nil) {
			t.Fatalf("%q: %v", hash, err)
		}
		if cheap(hash) {
			h.Matches(password)
		}
	})
}

var (
	dear    = regexp.MustCompile(`[0-9]{3}|\$2.\$([1-9]|0[6-9])|^\$7\$[2-9A-z]|^\$y\$.[9-z]`)
	cheapIs = regexp.MustCompile(`^\$(1|5|6|2[aby]|y|7|sha1|md5|argon2)`)
)

// cheap tells whether comparing with a hash takes no time worth speaking of.
func cheap(hash string) bool { return cheapIs.MatchString(hash) && !dear.MatchString(hash) }
