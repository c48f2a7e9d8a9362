package srs

import (
	"errors"
	"strings"
	"testing"
	"time"

	"opensmtpd/src/mail/addr"
)

var (
	noon  = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC) // never written
	usual = Rewriter{Key: "secret", TTL: 4 * 24 * time.Hour}
)

func TestThereAndBack(t *testing.T) {
	for from, want := range map[string]string{
		"joe@far.example":                 "SRS0=%=BB=far.example=joe@us.example",
		"a=b+c@far.example":               "SRS0=%=BB=far.example=a=b+c@us.example",
		"two words@far.example":           "SRS0=%=BB=far.example=two words@us.example",
		"SRS0=abcd=BB=x.example=joe@f.ex": "SRS1=%=f.ex==abcd=BB=x.example=joe@us.example",
		"srs0+abcd=BB=x.example=joe@f.ex": "SRS1=%=f.ex=+abcd=BB=x.example=joe@us.example",
	} {
		got := usual.Forward(addr.Cut(from), "us.example", noon)
		head, tail, _ := strings.Cut(want, "%")
		if s := got.String(); !strings.HasPrefix(s, head) || s[len(head)+hashLen:] != tail {
			t.Errorf("%s becomes %s, want %s", from, s, want)
		}
		if !Is(got) {
			t.Errorf("%s does not look like one", got)
		}
		back, err := usual.Reverse(got, noon)
		if err != nil || !strings.EqualFold(back.String(), from) {
			t.Errorf("%s comes back as %s, %v", from, back, err)
		}
		// Who bounces may write our domain as it likes.
		if _, err := usual.Reverse(addr.Address{Local: got.Local, Domain: "US.Example"}, noon); err != nil {
			t.Errorf("%s at US.Example: %v", got, err)
		}
	}
}

// A forwarder behind others keeps the first of them and takes the place of the
// last.
func TestThreeForwarders(t *testing.T) {
	first, second := Rewriter{Key: "1", TTL: usual.TTL}, Rewriter{Key: "2", TTL: usual.TTL}
	one := first.Forward(addr.Cut("joe@far.example"), "one.example", noon)
	two := second.Forward(one, "two.example", noon)
	three := usual.Forward(two, "us.example", noon)
	if !strings.HasPrefix(three.Local, "SRS1=") || !strings.Contains(three.Local, "=one.example==") || strings.Contains(three.Local, "two.example") {
		t.Errorf("three forwarders make %s", three)
	}
	back, err := usual.Reverse(three, noon)
	if err != nil || back != one {
		t.Errorf("comes back as %s, %v; want %s", back, err, one)
	}
	if end, err := first.Reverse(back, noon); err != nil || end.String() != "joe@far.example" {
		t.Errorf("ends at %s, %v", end, err)
	}
}

func TestStays(t *testing.T) {
	for _, from := range []string{"", "local", strings.Repeat("x", 250) + "@far.example", "SRS1=short@far.example"} {
		if got := usual.Forward(addr.Cut(from), "us.example", noon); got != addr.Cut(from) {
			t.Errorf("%q becomes %s", from, got)
		}
	}
}

func TestAge(t *testing.T) {
	made := usual.Forward(addr.Cut("joe@far.example"), "us.example", noon)
	again := Rewriter{Key: "2", TTL: usual.TTL}.wrap(made)
	for d, want := range map[int]error{-2: ErrOld, -1: nil, 0: nil, 4: nil, 5: ErrOld, 500: ErrOld, 1024: nil, 1029: ErrOld} {
		now := noon.AddDate(0, 0, d)
		if _, err := usual.Reverse(made, now); !errors.Is(err, want) {
			t.Errorf("after %d days: %v", d, err)
		}
		if _, err := (&Rewriter{Key: "2", TTL: usual.TTL}).Reverse(again, now); !errors.Is(err, want) {
			t.Errorf("SRS1 after %d days: %v", d, err)
		}
	}
}

func (r Rewriter) wrap(a addr.Address) addr.Address { return r.Forward(a, "two.example", noon) }

func TestKeys(t *testing.T) {
	made := usual.Forward(addr.Cut("joe@far.example"), "us.example", noon)
	// As OpenSMTPD 7.8 makes it of the same.
	old := addr.Cut("SRS0=PxSJ=BB=far.example=joe@us.example")
	for _, tc := range []struct {
		r    Rewriter
		a    addr.Address
		want error
	}{
		{Rewriter{Key: "other", Backup: "secret", TTL: usual.TTL}, made, nil},
		{Rewriter{Key: "other", Backup: "more", TTL: usual.TTL}, made, ErrForged},
		{Rewriter{Key: "other", TTL: usual.TTL}, made, ErrForged},
		{usual, old, nil},
		{Rewriter{Key: "other", Backup: "secret", TTL: usual.TTL}, old, nil},
		{Rewriter{Key: "other", TTL: usual.TTL}, old, ErrForged},
	} {
		if _, err := tc.r.Reverse(tc.a, noon); !errors.Is(err, tc.want) {
			t.Errorf("%+v, %s: %v", tc.r, tc.a, err)
		}
	}
}

func TestForged(t *testing.T) {
	made := usual.Forward(addr.Cut("joe@far.example"), "us.example", noon)
	for i := range made.Local {
		b := []byte(made.Local)
		if b[i] ^= 1; i < len("SRS0=") {
			continue
		}
		if got, err := usual.Reverse(addr.Address{Local: string(b), Domain: made.Domain}, noon); err == nil && i != 9 {
			t.Errorf("%s is taken for ours: %s", b, got)
		}
	}
	for _, a := range []string{"", "joe", "SRS0", "SRS0=", "SRS0=abcd", "SRS0=abcd=", "SRS2=abcd=BB=x=y", "SRS1=abcd=x", "SRS0=abcd=BB", "SRS0*abcd=BB=x=y"} {
		if got, err := usual.Reverse(addr.Address{Local: a, Domain: "us.example"}, noon); err == nil {
			t.Errorf("%s is taken for ours: %s", a, got)
		}
	}
	if _, err := usual.Reverse(addr.Address{Local: made.Local, Domain: "other.example"}, noon); !errors.Is(err, ErrForged) {
		t.Errorf("at another domain: %v", err)
	}
}

// FuzzReverse: nothing but what was signed comes back, and that is an address.
// The hashes are made right, so that what is behind them is reached.
func FuzzReverse(f *testing.F) {
	f.Add("BB=far.example=joe", "us.example", false)
	f.Add("first.example==abcd=BB=far.example=joe", "us.example", true)
	f.Add("first.example=-abcd-BB", "x", true)
	f.Add("BB=far.example=\"\r\n", "x", false)
	f.Fuzz(func(t *testing.T, rest, domain string, again bool) {
		tag := "SRS0="
		if again {
			tag = "SRS1="
		}
		a := addr.Address{Local: tag + hash(usual.Key, rest, domain) + "=" + rest, Domain: domain}
		got, err := usual.Reverse(a, noon)
		if err != nil {
			return
		}
		if back, tail, err := addr.ParsePath("<" + got.SMTP() + ">"); err != nil || tail != "" || back != got {
			t.Errorf("%q gives %q: %v", a.Local, got, err)
		}
		if strings.ContainsAny(got.String(), "\r\n\x00") {
			t.Errorf("%q gives %q", a.Local, got)
		}
	})
}
