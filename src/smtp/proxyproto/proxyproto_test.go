package proxyproto

import (
	"bytes"
	"errors"
	"net/netip"
	"strings"
	"testing"
)

const sig = "\r\n\r\n\x00\r\nQUIT\n"

var (
	tcp4 = sig + "\x21\x11\x00\x0c" + "\xc6\x33\x64\x07" + "\xc0\x00\x02\x01" + "\x30\x39" + "\x00\x19"
	tcp6 = sig + "\x21\x21\x00\x24" +
		"\x20\x01\x0d\xb8\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x07" +
		"\x20\x01\x0d\xb8\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x01" + "\x30\x39" + "\x00\x19"
	mapped = sig + "\x21\x21\x00\x24" +
		"\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\xff\xff\xc6\x33\x64\x07" +
		"\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\xff\xff\xc0\x00\x02\x01" + "\x30\x39" + "\x00\x19"
	four = Header{Client: netip.MustParseAddrPort("198.51.100.7:12345"), Server: netip.MustParseAddrPort("192.0.2.1:25")}
	six  = Header{Client: netip.MustParseAddrPort("[2001:db8::7]:12345"), Server: netip.MustParseAddrPort("[2001:db8::1]:25")}
)

// length returns h with n more bytes behind its addresses.
func length(h string, n int) string {
	size := len(h) - prefix + n
	return h[:14] + string([]byte{byte(size >> 8), byte(size)}) + h[16:] + strings.Repeat("\x04", n)
}

func TestParse(t *testing.T) {
	for _, tc := range []struct {
		name, in string
		want     Header
		err      error
	}{
		{"tcp4", tcp4, four, nil},
		{"tcp6", tcp6, six, nil},
		{"tcp4 in tcp6", mapped, four, nil},
		{"values behind the addresses", length(tcp4, 40), four, nil},
		{"values that are no values", length(tcp6, 3), six, nil},
		{"as long as may be", length(tcp4, MaxSize-prefix-12), four, nil},
		{"local", sig + "\x20\x00\x00\x00", Header{Local: true}, nil},
		{"local with addresses", sig + "\x20" + tcp4[13:], Header{Local: true}, nil},
		{"local with something", sig + "\x20\x00\x00\x03abc", Header{Local: true}, nil},
		{"too long", length(tcp4, MaxSize-prefix-11), Header{}, ErrLong},
		{"longest there is", sig + "\x21\x11\xff\xff", Header{}, ErrLong},
		{"version 1", "PROXY TCP4 198.51.100.7 192.0.2.1 12345 25\r\n", Header{}, ErrNone},
		{"a client", "EHLO client.example.org\r\n", Header{}, ErrNone},
		{"one byte", "E", Header{}, ErrNone},
		{"TLS", "\x16\x03\x01\x02\x00\x01", Header{}, ErrNone},
	} {
		t.Run(tc.name, func(t *testing.T) {
			got, n, err := Parse([]byte(tc.in + "EHLO x\r\n"))
			if got != tc.want || !errors.Is(err, tc.err) || err == nil && n != len(tc.in) {
				t.Errorf("got %+v of %d bytes, %v", got, n, err)
			}
		})
	}
}

// TestRefused has what is a header and yet none that tells who a TCP client is.
func TestRefused(t *testing.T) {
	for name, in := range map[string]string{
		"version 1 in binary": sig + "\x11" + tcp4[13:],
		"version 3":           sig + "\x31" + tcp4[13:],
		"unknown command":     sig + "\x22" + tcp4[13:],
		"no family":           sig + "\x21\x00\x00\x00",
		"UDP":                 sig + "\x21\x12" + tcp4[14:],
		"UDP over IPv6":       sig + "\x21\x22" + tcp6[14:],
		"unix":                sig + "\x21\x31\x00\xd8" + strings.Repeat("/", 216),
		"unknown family":      sig + "\x21\x41" + tcp4[14:],
		"unknown transport":   sig + "\x21\x13" + tcp4[14:],
		"address cut":         sig + "\x21\x11\x00\x0b" + tcp4[16:27],
		"IPv6 cut to IPv4":    sig + "\x21\x21\x00\x0c" + tcp4[16:],
		"no address":          sig + "\x21\x11\x00\x00",
	} {
		if got, _, err := Parse([]byte(in)); err == nil || errors.Is(err, ErrShort) {
			t.Errorf("%s: got %+v, %v", name, got, err)
		}
	}
}

// TestShort holds that every beginning of a header asks for more.
func TestShort(t *testing.T) {
	for _, in := range []string{tcp4, tcp6, length(tcp4, 300)} {
		for n := range len(in) {
			if got, used, err := Parse([]byte(in[:n])); !errors.Is(err, ErrShort) || used != 0 {
				t.Fatalf("%d of %d bytes: %+v of %d, %v", n, len(in), got, used, err)
			}
		}
	}
}

// FuzzParse holds that a header is read within its own bytes, and that what it
// says does not depend on what follows.
func FuzzParse(f *testing.F) {
	for _, in := range []string{tcp4, tcp6, mapped, length(tcp4, 40), sig + "\x20\x00\x00\x00", sig + "\x21\x31\x00\xd8", "EHLO x\r\n", ""} {
		f.Add([]byte(in))
	}
	f.Fuzz(func(t *testing.T, in []byte) {
		h, n, err := Parse(in)
		if err != nil {
			if h != (Header{}) {
				t.Errorf("%q: %+v with %v", in, h, err)
			}
			return
		}
		if n < prefix || n > len(in) || n > MaxSize || !bytes.HasPrefix(in, []byte(sig)) {
			t.Fatalf("%q: %d bytes", in, n)
		}
		if h.Local != (in[12] == 0x20) || !h.Local && (!h.Client.IsValid() || !h.Server.IsValid() || h.Client.Addr().Is4In6()) {
			t.Errorf("%q: %+v", in, h)
		}
		if again, m, err := Parse(append(in[:n:n], "more"...)); again != h || m != n || err != nil {
			t.Errorf("%q: %+v and then %+v, %d, %v", in, h, again, m, err)
		}
	})
}
