package smtpctl

import (
	"bufio"
	"context"
	"net"
	"net/netip"
	"strings"
	"testing"

	"opensmtpd/src/ctl/invoke"
)

// records is a DNS with TXT records alone.
type records map[string]string

func (r records) LookupTXT(_ context.Context, name string) ([]string, error) {
	if r[name] == "" {
		return nil, &net.DNSError{Name: name, IsNotFound: true}
	}
	return []string{r[name]}, nil
}

func (r records) LookupMX(context.Context, string) ([]*net.MX, error) { return nil, nil }

func (r records) LookupNetIP(context.Context, string, string) ([]netip.Addr, error) { return nil, nil }

func TestSPFWalk(t *testing.T) {
	r := records{"a.example.": "v=spf1 ip4:192.0.2.1 ip6:2001:db8::/32", "b.example.": "v=spf1 ip4:192.0.2.1 ip4:198.51.100.0/24 ptr"}
	for _, tc := range []struct {
		keep func(netip.Addr) bool
		json bool
		want string
	}{
		{nil, false, "192.0.2.1\n2001:db8::/32\nstderr: smtpctl: c.example: no SPF record\nstderr: smtpctl: b.example: ptr: depends on the message\n198.51.100.0/24\n"},
		{netip.Addr.Is6, true, "{\"network\":\"2001:db8::/32\"}\nstderr: smtpctl: c.example: no SPF record\nstderr: smtpctl: b.example: ptr: depends on the message\n"},
	} {
		var out strings.Builder
		s := &session{
			ctx: t.Context(), json: tc.json, out: bufio.NewWriter(&out),
			call: &invoke.Call{Name: "smtpctl", Stdin: strings.NewReader("a.example\n\n c.example \nb.example"), Stderr: prefixed{&out}},
		}
		if err := s.walk(r, tc.keep); err != nil || out.String() != tc.want {
			t.Errorf("%v, got\n%s", err, out.String())
		}
	}
}
