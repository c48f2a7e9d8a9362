package smtp

import (
	"bytes"
	"strings"
	"testing"

	"opensmtpd/src/mailerr"
)

func TestReplyAppend(t *testing.T) {
	for _, tc := range []struct {
		name string
		r    Reply
		want string
	}{
		{"plain", Reply{Code: 354, Text: "go"}, "354 go\r\n"},
		{"enhanced", OK(250, 1, 5, "fine"), "250 2.1.5 fine\r\n"},
		{"temporary", Fail(451, 3, 0, "later"), "451 4.3.0 later\r\n"},
		{"permanent", Fail(550, 6, 11, "no"), "550 5.6.11 no\r\n"},
		{"lines", Reply{Code: 250, Before: []string{"a", "b"}, Text: "c"}, "250-a\r\n250-b\r\n250 c\r\n"},
		{"enhanced lines", Reply{Code: 214, Enhanced: mailerr.Enhanced{2, 0, 0}, Before: []string{"a"}, Text: "b"}, "214-2.0.0 a\r\n214 2.0.0 b\r\n"},
		{"control", Reply{Code: 500, Text: "a\r\n250 b\x00\x7f"}, "500 a??250 b??\r\n"},
		{"from error", FromError(mailerr.Permanent(550, 1, 1, "none", nil)), "550 5.1.1 none\r\n"},
	} {
		if got := string(tc.r.Append(nil)); got != tc.want {
			t.Errorf("%s: got %q, want %q", tc.name, got, tc.want)
		}
	}
	long := Reply{Code: 500, Text: strings.Repeat("x", 9000)}.Append(nil)
	if len(long) > 512 {
		t.Errorf("a line of %d bytes", len(long))
	}
}

func TestFromErrorDrops(t *testing.T) {
	if !FromError(&mailerr.Error{Class: mailerr.Drop, Code: 421, Text: "x"}).Close {
		t.Error("Drop does not close")
	}
	if FromError(mailerr.Local(nil)).Close {
		t.Error("Temp closes")
	}
}

func TestParseReply(t *testing.T) {
	for _, tc := range []struct {
		in   string
		want Reply
		ok   bool
	}{
		{"550 no", Reply{Code: 550, Text: "no"}, true},
		{"550 5.7.1 go away", Reply{Code: 550, Enhanced: mailerr.Enhanced{5, 7, 1}, Text: "go away"}, true},
		{"451 5.7.1 x", Reply{Code: 451, Text: "5.7.1 x"}, true}, // of another class
		{"250 5.7.1", Reply{Code: 250, Text: "5.7.1"}, true},
		{"550 5.7.01 x", Reply{Code: 550, Text: "5.7.01 x"}, true},
		{"550 5.7.1.2 x", Reply{Code: 550, Text: "5.7.1.2 x"}, true},
		{"550", Reply{}, false},
		{"550 ", Reply{}, false},
		{"550-x", Reply{}, false},
		{"150 x", Reply{}, false},
		{"650 x", Reply{}, false},
		{"5x0 x", Reply{}, false},
		{"+50 x", Reply{}, false},
		{"", Reply{}, false},
	} {
		got, ok := ParseReply(tc.in)
		if ok != tc.ok || got.String() != tc.want.String() || got.Enhanced != tc.want.Enhanced {
			t.Errorf("%q: %+v, %v", tc.in, got, ok)
		}
	}
}

// FuzzReply holds that no text can make two replies of one.
func FuzzReply(f *testing.F) {
	f.Add("550 5.1.1 x\r\n250 ok")
	f.Add("421 \x00\n")
	f.Fuzz(func(t *testing.T, s string) {
		if r, ok := ParseReply(s); ok {
			if r.Code < 200 || r.Code > 599 {
				t.Errorf("%q has code %d", s, r.Code)
			}
		}
		b := Reply{Code: 250, Before: []string{s}, Text: s}.Append(nil)
		if bytes.Count(b, []byte("\n")) != 2 || bytes.Count(b, []byte("\r")) != 2 || !bytes.HasSuffix(b, []byte("\r\n")) {
			t.Errorf("%q became %q", s, b)
		}
	})
}
