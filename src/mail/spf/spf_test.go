package spf

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"
	"testing"
)

// zone is a DNS: "TXT name.", "MX name." or "IP name." → what is there, with
// commas; "!" is a server that does not answer.
type zone map[string]string

func (z zone) ask(kind, name string) ([]string, error) {
	v, ok := z[kind+" "+name]
	switch {
	case !ok:
		return nil, &net.DNSError{Err: "no such host", Name: name, IsNotFound: true}
	case v == "!":
		return nil, &net.DNSError{Err: "i/o timeout", Name: name, IsTimeout: true}
	}
	return strings.Split(v, ","), nil
}

func (z zone) LookupTXT(_ context.Context, name string) ([]string, error) { return z.ask("TXT", name) }

func (z zone) LookupMX(_ context.Context, name string) (list []*net.MX, err error) {
	hosts, err := z.ask("MX", name)
	for _, h := range hosts {
		list = append(list, &net.MX{Host: h})
	}
	return list, err
}

func (z zone) LookupNetIP(_ context.Context, _, host string) (list []netip.Addr, err error) {
	addrs, err := z.ask("IP", host)
	for _, a := range addrs {
		list = append(list, netip.MustParseAddr(a))
	}
	return list, err
}

// walk returns what is found and, after "# ", what is not.
func walk(z zone, domains ...string) []string {
	var got []string
	w := &Walk{
		Resolver: z,
		Found:    func(p netip.Prefix) error { got = append(got, p.String()); return nil },
		Trouble:  func(d string, err error) { got = append(got, fmt.Sprintf("# %s: %v", d, err)) },
	}
	for _, d := range domains {
		w.Domain(context.Background(), d)
	}
	return got
}

func TestWalk(t *testing.T) {
	for _, tc := range []struct {
		name string
		zone zone
		want string
	}{
		{"networks", zone{"TXT a.example.": "v=spf1 ip4:192.0.2.1 +ip4:198.51.100.7/24 ?ip6:2001:db8::/32 IP6:2001:DB8:1::1 -all"},
			"192.0.2.1/32 198.51.100.0/24 2001:db8::/32 2001:db8:1::1/128"},
		{"denied", zone{"TXT a.example.": "v=spf1 -ip4:192.0.2.1 ~a ~include:b.example +all"}, ""},
		{"other records", zone{"TXT a.example.": "hello,v=spf10 ip4:192.0.2.1,V=SPF1 ip4:192.0.2.2,v=spf1 ip4:192.0.2.3"}, "192.0.2.2/32"},
		{"addresses", zone{"TXT a.example.": "v=spf1 a a:b.example a:b.example./24//64 a/31",
			"IP a.example.": "192.0.2.9", "IP b.example.": "198.51.100.7,2001:db8::7"},
			"192.0.2.9/32 198.51.100.7/32 2001:db8::7/128 198.51.100.0/24 2001:db8::/64 192.0.2.8/31"},
		{"servers", zone{"TXT a.example.": "v=spf1 mx mx:b.example/24", "MX a.example.": "m.example.,.", "MX b.example.": "m.example.",
			"IP m.example.": "192.0.2.5"}, "192.0.2.5/32 192.0.2.0/24"},
		{"include and redirect", zone{"TXT a.example.": "v=spf1 include:B.example redirect=c.example.",
			"TXT b.example.": "v=spf1 ip4:192.0.2.1 include:a.example", "TXT c.example.": "v=spf1 ip4:192.0.2.1 ip4:192.0.2.2"},
			"192.0.2.1/32 192.0.2.2/32"},
		{"of the message", zone{"TXT a.example.": "v=spf1 exists:%{i}.b.example ptr include:%{d}.b.example exp=x.example"},
			"# a.example: exists: depends on the message # a.example: ptr: depends on the message # a.example: %{d}.b.example: depends on the message"},
		{"nothing there", zone{"TXT a.example.": "v=spf1 a mx include:b.example"}, "# b.example: no SPF record"},
		{"no answer", zone{"TXT a.example.": "v=spf1 a:b.example include:c.example", "IP b.example.": "!", "TXT c.example.": "!"},
			"# b.example: i/o timeout # c.example: i/o timeout"},
		{"nonsense", zone{"TXT a.example.": "v=spf1 ip4:x ip4:2001:db8::1 ip6:192.0.2.1 ip4:1.2.3.4/33 a/33 mx//129 a/x - : = / //"},
			"# a.example: ip4:x is no network # a.example: ip4:2001:db8::1 is no network # a.example: ip6:192.0.2.1 is no network # a.example: ip4:1.2.3.4/33 is no network"},
	} {
		if got := strings.Join(walk(tc.zone, "a.example"), " "); got != tc.want {
			t.Errorf("%s:\n got %s\nwant %s", tc.name, got, tc.want)
		}
	}
}

// A chain of records ends, and the next domain begins anew.
func TestWalkEnds(t *testing.T) {
	z := zone{"TXT b.example.": "v=spf1 ip4:192.0.2.1"}
	for i := range 2 * maxRecords {
		z[fmt.Sprintf("TXT %d.example.", i)] = fmt.Sprintf("v=spf1 include:%d.example", i+1)
	}
	want := []string{fmt.Sprintf("# %d.example: %v", maxRecords, errMany), "192.0.2.1/32"}
	if got := walk(z, "0.example", "b.example"); !slices.Equal(got, want) {
		t.Errorf("got %q", got)
	}
}

func TestFoundFails(t *testing.T) {
	full := errors.New("disk full")
	w := &Walk{Resolver: zone{"TXT a.example.": "v=spf1 include:b.example", "TXT b.example.": "v=spf1 mx", "MX b.example.": "m.", "IP m.": "192.0.2.1,192.0.2.2"},
		Found: func(netip.Prefix) error { return full }}
	if err := w.Domain(context.Background(), "a.example"); err != full {
		t.Errorf("got %v", err)
	}
}

func FuzzRecord(f *testing.F) {
	for _, s := range []string{"v=spf1 a/24//64 mx:b/x ip4:1.2.3.4/8 ip6:::/0 -all", "v=spf1 + = : //"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, txt string) {
		terms, ok := parse("v=spf1 " + txt)
		if !ok {
			t.Error("no record")
		}
		for i := range terms {
			if p, ok := terms[i].network(); ok && !p.IsValid() {
				t.Errorf("%q: %v", terms[i].value, p)
			}
			for _, a := range []netip.Addr{netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("2001:db8::1")} {
				if p := terms[i].around(a); !p.Contains(a) {
					t.Errorf("%v: %v", terms[i], p)
				}
			}
		}
	})
}
