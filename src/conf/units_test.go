package conf_test

import (
	"strings"
	"testing"
	"time"

	"opensmtpd/src/conf"
)

func TestDelays(t *testing.T) {
	for in, want := range map[string]time.Duration{
		"1s": time.Second, "90m": 90 * time.Minute, "4h": 4 * time.Hour, "24855d": 24855 * 24 * time.Hour,
	} {
		got, ok := conf.ParseDelay(in)
		if !ok || got != want || conf.FormatDelay(got) != in {
			t.Errorf("%s: got %v %v, written %s", in, got, ok, conf.FormatDelay(got))
		}
	}
	for _, bad := range []string{"", "4", "d", "0s", "-1s", "+1s", "1w", "1.5h", "24856d", "2147483648s", "99999999999999999999s", "1 d"} {
		if d, ok := conf.ParseDelay(bad); ok {
			t.Errorf("%q gives %v", bad, d)
		}
	}
	for d, want := range map[time.Duration]string{0: "0s", 60 * time.Second: "1m", 61 * time.Second: "61s", 48 * time.Hour: "2d"} {
		if got := conf.FormatDelay(d); got != want {
			t.Errorf("%v is written %s, want %s", d, got, want)
		}
	}
}

func TestSizes(t *testing.T) {
	for in, want := range map[string]int64{
		"0": 0, "1": 1, "100B": 100, "35M": 35 << 20, "35m": 35 << 20, "1.5K": 1536, ".5G": 1 << 29, "2T": 2 << 40, "7E": 7 << 60,
	} {
		if got, ok := conf.ParseSize(in); !ok || got != want {
			t.Errorf("%s: got %d %v, want %d", in, got, ok, want)
		}
	}
	for _, bad := range []string{"", "M", "35MB", "-1", "1x", "9E", "1.2.3", ".", "9223372036854775808", "K35"} {
		if n, ok := conf.ParseSize(bad); ok {
			t.Errorf("%q gives %d", bad, n)
		}
	}
	for n, want := range map[int64]string{0: "0", 1000: "1000", 1024: "1K", 36700160: "35M", 1 << 30: "1G", 1 << 40: "1024G"} {
		if got := conf.FormatSize(n); got != want {
			t.Errorf("%d is written %s, want %s", n, got, want)
		}
	}
}

func TestParseRelay(t *testing.T) {
	for in, want := range map[string]conf.RelayURL{
		"a.example.org":                {Scheme: "smtp", Host: "a.example.org", Port: 25},
		"SMTPS://h":                    {Scheme: "smtps", Host: "h", Port: 465},
		"smtp+tls://me@h:587":          {Scheme: "smtp+tls", Label: "me", Host: "h", Port: 587},
		"smtp+notls://[::1]:26":        {Scheme: "smtp+notls", Host: "::1", Port: 26},
		"smtp://[IPv6:2001:db8::1]":    {Scheme: "smtp", Host: "2001:db8::1", Port: 25},
		"lmtp://192.0.2.1:24":          {Scheme: "lmtp", Host: "192.0.2.1", Port: 24},
		"smtps://la.bel+x@h_1.example": {Scheme: "smtps", Label: "la.bel+x", Host: "h_1.example", Port: 465},
	} {
		if got, err := conf.ParseRelay(in); err != nil || got != want {
			t.Errorf("%s: got %+v %v", in, got, err)
		}
	}
	for _, bad := range []string{
		"", "smtp://", "ftp://h", "smtp://x@h", "smtps://@h", "lmtp://h", "smtp://h:", "smtp://h:0", "smtp://h:65536",
		"smtp://h/path", "smtp://h:25/", "smtp://[::1", "smtp://[x]", "smtp://.h", "smtp://a..b", "smtp://h.", "lmtp://x@h:24",
	} {
		if u, err := conf.ParseRelay(bad); err == nil {
			t.Errorf("%q gives %+v", bad, u)
		}
	}
}

func TestParseNet(t *testing.T) {
	for in, want := range map[string]string{
		"192.0.2.1": "192.0.2.1/32", "192.0.2.1/24": "192.0.2.0/24", "10/8": "10.0.0.0/8", "172.16/12": "172.16.0.0/12",
		"::1": "::1/128", "[::1]": "::1/128", "[2001:db8::/32]": "2001:db8::/32", "[2001:db8::]/32": "2001:db8::/32",
		"IPv6:2001:db8::1": "2001:db8::1/128", "[IPv6:::1]": "::1/128", "::/0": "::/0", "0.0.0.0/0": "0.0.0.0/0",
		"10": "10.0.0.0/8", "192.168": "192.168.0.0/24", "224.1": "224.1.0.0/16", "::ffff:10.0.0.0/104": "10.0.0.0/8",
		"fe80::1%em0": "fe80::1/128", "[fe80::1%em0]/64": "fe80::/64",
	} {
		got, zone, err := conf.ParseNet(in)
		if err != nil || got.String() != want || (zone == "em0") != strings.Contains(in, "%em0") {
			t.Errorf("%s: got %v %q %v, want %s", in, got, zone, err, want)
		}
	}
	for _, bad := range []string{"", "x", "256", "1.2.3.4/+8", "IPv6:[::1]", "192.0.2.1/33", "192.0.2.1/", "192.0.2.1/x", "::/129", "[::1", "[::1]x", "1.2.3.4.5/8", "/8"} {
		if p, _, err := conf.ParseNet(bad); err == nil {
			t.Errorf("%q gives %v", bad, p)
		}
	}
}

func FuzzParseNet(f *testing.F) {
	for _, s := range []string{"1.2.3.4", "10/8", "[::1]/128", "[::/0]", "IPv6:::1", "[IPv6:::ffff:1.2.3.4/100]", "1..2/3", "/", "[]", "%", "1.2.3.4/", "fe80::1%em0"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		p, zone, err := conf.ParseNet(s)
		if err != nil {
			return
		}
		if p != p.Masked() || !p.IsValid() || zone != "" && p.Addr().Is4() {
			t.Fatalf("%q gives %v", s, p)
		}
		if again, _, err := conf.ParseNet(p.String()); err != nil || again != p {
			t.Fatalf("%q gives %v, read again %v, %v", s, p, again, err)
		}
	})
}

// TestCompileRegex holds that expressions are regcomp(3)'s, and not Go's: the
// same in a configuration, which is checked, and in a file.
func TestCompileRegex(t *testing.T) {
	for pattern, keys := range map[string]string{
		`^[\]x$`: `\x`, `\<word\>`: "a word", `^a{,2}b$`: "AAB", `(?i)^x`: "Xy", `^[]y]$`: "]",
	} {
		re, err := conf.CompileRegex(pattern)
		if err != nil || !re.MatchString(keys) {
			t.Errorf("%s: %v, %v", pattern, re, err)
		}
	}
	if _, err := conf.CompileRegex("("); err == nil {
		t.Error("( is taken")
	}
}

func FuzzRegex(f *testing.F) {
	for _, s := range []string{`a\`, `[\]`, `[[:alpha:]`, `[]`, `[^]]`, `\<a\>`, `a{,3}`, `(?i)x`, `(((`, `a**`} {
		f.Add(s, "key")
	}
	f.Fuzz(func(t *testing.T, pattern, key string) {
		if re, err := conf.CompileRegex(pattern); err == nil {
			re.MatchString(key)
		}
	})
}
