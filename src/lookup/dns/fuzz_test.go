package dns

import (
	"errors"
	"testing"

	"github.com/miekg/dns"
)

// packet is a reply as it goes over the wire.
func packet(f *testing.F, rcode int, records ...string) []byte {
	f.Helper()
	m := new(dns.Msg)
	m.SetQuestion("far.example.", dns.TypeMX)
	m.Rcode, m.Response = rcode, true
	for _, text := range records {
		rr, err := dns.NewRR(text)
		if err != nil {
			f.Fatal(err)
		}
		if _, ok := rr.(*dns.SOA); ok {
			m.Ns = append(m.Ns, rr)
		} else {
			m.Answer = append(m.Answer, rr)
		}
	}
	b, err := m.Pack()
	if err != nil {
		f.Fatal(err)
	}
	return b
}

// FuzzAnswers lets a name server say anything: what is made of it is names that
// can be said in SMTP and the log, addresses, and times that have a meaning.
func FuzzAnswers(f *testing.F) {
	f.Add(packet(f, dns.RcodeSuccess, "far.example. 300 IN MX 10 mx.far.example.", "far.example. 60 IN MX 0 .", "mx.far.example. 5 IN A 192.0.2.1"))
	f.Add(packet(f, dns.RcodeSuccess, `far.example. 300 IN MX 10 a\032b\010c.example.`, "far.example. 300 IN AAAA ::ffff:192.0.2.1"))
	f.Add(packet(f, dns.RcodeNameError, "example. 300 IN SOA a. b. 1 2 3 4 5"))
	f.Add(packet(f, dns.RcodeSuccess, `1.2.0.192.in-addr.arpa. 300 IN PTR host\000.far.example.`, "1.2.0.192.in-addr.arpa. 300 IN PTR host.far.example."))
	f.Fuzz(func(t *testing.T, b []byte) {
		m := new(dns.Msg)
		if m.Unpack(b) != nil {
			return
		}
		answer, ttl, err := result(m)
		if ttl < 0 || err != nil && !errors.Is(err, ErrNone) || err == nil && len(answer) == 0 {
			t.Errorf("%d records for %v: %v", len(answer), ttl, err)
		}
		list, _ := exchanges(answer)
		last := uint16(0)
		for _, mx := range list {
			if !validName(mx.Name) || mx.Name == "localhost" || mx.Pref < last {
				t.Errorf("server %q of preference %d", mx.Name, mx.Pref)
			}
			last = mx.Pref
		}
		if len(list) > maxMX {
			t.Errorf("%d servers", len(list))
		}
		if name := pointer(answer); name != "" && !validName(name) {
			t.Errorf("name %q", name)
		}
		for _, v4 := range []bool{true, false} {
			for _, a := range addresses(answer, v4) {
				if !a.IsValid() || a.Is4In6() || v4 && !a.Is4() {
					t.Errorf("address %v", a)
				}
			}
		}
	})
}
