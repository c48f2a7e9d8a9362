package greylist

import (
	"net/netip"
	"strings"
	"testing"
	"time"

	"opensmtpd/src/mail/addr"
	"opensmtpd/src/mail/srs"
)

func TestSender(t *testing.T) {
	for in, want := range map[string]string{
		"": "", "Bob@Example.ORG": "bob@example.org", "bob+tag@h": "bob@h", "+x@h": "+x@h", "postmaster": "postmaster",
		// Lists: the number of a message, of a member, the address of a member.
		"list-bounce-12345-7@l.example2": "list-bounce-0-0@l.example2", "bounce-123@list": "bounce-0@list",
		"list-bounces+me=example.org@l": "list-bounces@l", "a1b22@h": "a0b0@h",
		// BATV, the tag before or behind.
		"prvs=1234a0bcde=bob@h": "bob@h", "prvs=bob=1234A0BCDE@h": "bob@h", "prvs=1234a0bcde=a=b@h": "a=b@h",
		"prvs=hello=world@h": "prvs=hello=world@h", "prvs=1a22b@h": "prvs=0a0b@h",
		// SRS.
		"SRS0=AbCd=XY=origin.example=bob@f": "srs=origin.example=bob@f", "srs0+x7=xy=o.example=a=b@f": "srs=o.example=a=b@f",
		"SRS1=EFgh=first.example==AbCd=XY=o.example=bob@f": "srs=first.example=o.example=bob@f",
		"SRS0=a=b@f": "srs0=a=b@f", "srs0@f": "srs0@f",
	} {
		if got := Sender(in); got != want {
			t.Errorf("Sender(%q) = %q, want %q", in, got, want)
		}
	}
}

// TestSenderForwarded holds that what our own SRS makes of a sender on different
// days, or a forwarder behind us, is one.
func TestSenderForwarded(t *testing.T) {
	one := addr.Address{Local: "bob", Domain: "origin.example"}
	for n := range 2 {
		seen := make(map[string]bool)
		for day := range 40 {
			now := time.Unix(1_700_000_000, 0).Add(time.Duration(day) * 24 * time.Hour)
			a := (&srs.Rewriter{Key: "k"}).Forward(one, "f.example", now)
			if n > 0 {
				a = (&srs.Rewriter{Key: "j"}).Forward(a, "g.example", now)
			}
			seen[Sender(a.SMTP())] = true
		}
		if len(seen) != 1 {
			t.Errorf("behind %d forwarders: %v", n+1, seen)
		}
	}
}

func TestNetwork(t *testing.T) {
	for in, want := range map[string]string{
		"192.0.2.77": "192.0.2.0/24", "::ffff:192.0.2.77": "192.0.2.0/24",
		"2001:db8:1:2:3::4": "2001:db8:1:2::/64", "fe80::1%lo": "fe80::/64",
		"64:ff9b::192.0.2.77": "192.0.2.0/24",
	} {
		if got := Network(netip.MustParseAddr(in)).String(); got != want {
			t.Errorf("Network(%s) = %s, want %s", in, got, want)
		}
	}
}

func TestParseNet(t *testing.T) {
	for in, want := range map[string]string{
		"192.0.2.1": "192.0.2.1/32", "2001:db8::1": "2001:db8::1/128", "192.0.2.7/24": "192.0.2.0/24", "::ffff:192.0.2.1": "192.0.2.1/32",
		"2001:DB8:0:0:0::9/64": "2001:db8::/64", "::ffff:192.0.2.1/120": "192.0.2.0/24", "::ffff:0:0/96": "0.0.0.0/0", "0.0.0.0/0": "0.0.0.0/0",
		"[2001:db8::1]": "2001:db8::1/128", "[IPv6:2001:db8::1]": "2001:db8::1/128", "[2001:db8::1]/48": "2001:db8::/48", "[192.0.2.1]": "192.0.2.1/32",
		"64:ff9b::192.0.2.1": "192.0.2.1/32", "64:ff9b::/96": "0.0.0.0/0", "64:ff9b::/64": "", "::/0": "::/0", "192.0.2.0/024": "192.0.2.0/24",
		"fe80::1%lo": "fe80::1/128", "[fe80::1%em0]": "fe80::1/128",
		"": "", "x": "", "::ffff:192.0.2.1/64": "", "192.0.2.0/33": "", "192.0.2.0/": "", "192.0.2.0/-1": "", "[::1": "", "[]": "", "ipv6:::1": "", "192.0.2": "",
		"192.0.2.0/255.255.255.0": "",
	} {
		got, err := ParseNet(in)
		if (err != nil) != (want == "") || err == nil && got.String() != want {
			t.Errorf("ParseNet(%q) = %v, %v, want %q", in, got, err, want)
		}
	}
}

// FuzzAddresses holds that what strangers call themselves stays bounded, keeps its
// domain, and stands for itself.
func FuzzAddresses(f *testing.F) {
	f.Add("prvs=1234a0bcde=bob@h", "[2001:db8::1]/64")
	f.Add("SRS1=EFgh=first.example==AbCd=XY=o.example=bob@f", "::ffff:192.0.2.1/120")
	f.Fuzz(func(t *testing.T, sender, network string) {
		got, lower := Sender(sender), strings.ToLower(sender)
		if i := strings.LastIndexByte(lower, '@'); len(got) > len(lower) || i >= 0 && !strings.HasSuffix(got, lower[i:]) {
			t.Errorf("Sender(%q) = %q", sender, got)
		}
		if p, err := ParseNet(network); err == nil {
			if again, err := ParseNet(p.String()); err != nil || again != p || p != p.Masked() || p.Addr().Is4In6() {
				t.Errorf("ParseNet(%q) = %v, and of that %v, %v", network, p, again, err)
			}
		}
	})
}
