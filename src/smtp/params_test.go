package smtp

import (
	"strings"
	"testing"

	"opensmtpd/src/mail/addr"
	"opensmtpd/src/mailerr"
	"opensmtpd/src/queue/envelope"
)

const all = ExtSize | Ext8BitMIME | ExtDSN | ExtUTF8

func TestParseCommand(t *testing.T) {
	for _, tc := range []struct{ in, verb, arg string }{
		{"NOOP", "NOOP", ""},
		{"noop  x  ", "noop", "x"},
		{"QUIT ", "QUIT", ""},
		{"MAIL FROM:<a@b>", "MAIL FROM", "<a@b>"},
		{"mail from: <a@b> SIZE=1", "mail from", "<a@b> SIZE=1"},
		{"RCPT TO:<a@b>", "RCPT TO", "<a@b>"},
		{"MAIL FROM", "MAIL", "FROM"},
		{"MAIL  FROM:<a@b>", "MAIL", "FROM:<a@b>"},
		{"RCPT", "RCPT", ""},
		{"", "", ""},
		{" ", "", ""},
		{"EHLO\tx", "EHLO\tx", ""},
	} {
		got := ParseCommand(tc.in)
		if got.Verb != tc.verb || got.Arg != tc.arg || got.HasArg != (tc.arg != "") {
			t.Errorf("%q: %+v", tc.in, got)
		}
	}
}

func TestParseBDAT(t *testing.T) {
	for _, tc := range []struct {
		in       string
		size     uint64
		last, ok bool
	}{
		{"0", 0, false, true},
		{"1000 LAST", 1000, true, true},
		{"7  last", 7, true, true},
		{"18446744073709551615", 1<<64 - 1, false, true},
		{"18446744073709551616", 0, false, false},
		{"", 0, false, false},
		{"LAST", 0, false, false},
		{"-1", 0, false, false},
		{"+1", 0, false, false},
		{"1_0", 0, false, false},
		{"0x10", 0, false, false},
		{"1 LAST LAST", 0, false, false},
		{"1 FIRST", 0, false, false},
	} {
		size, last, ok := ParseBDAT(tc.in)
		if ok != tc.ok || ok && (size != tc.size || last != tc.last) {
			t.Errorf("%q: %d, %v, %v", tc.in, size, last, ok)
		}
	}
}

func TestParseMail(t *testing.T) {
	for _, tc := range []struct {
		arg  string
		want Mail
		err  string
	}{
		{"<a@b.example>", Mail{From: addr.Address{Local: "a", Domain: "b.example"}}, ""},
		{"<>", Mail{}, ""},
		{"<> SIZE=1000 BODY=8BITMIME", Mail{Size: 1000, Body: Body8BitMIME}, ""},
		{"<> body=7bit size=0", Mail{Body: Body7Bit}, ""},
		{"<> SIZE=99999999999999999999", Mail{Size: 1<<64 - 1}, ""},
		{"<> SIZE=999999999999999999999", Mail{}, "501 5.5.4"},
		{"<> SIZE=", Mail{}, "501 5.5.4"},
		{"<> SIZE=-1", Mail{}, "501 5.5.4"},
		{"<> SIZE=1x", Mail{}, "501 5.5.4"},
		{"<> SIZE", Mail{}, "501 5.5.4"},
		{"<> SIZE=1 SIZE=2", Mail{}, "501 5.5.4"},
		{"<> BODY=BINARYMIME", Mail{}, "555 5.5.4 Invalid command arguments: Unsupported option BODY=BINARYMIME"},
		{"<jürgen@bücher.example> SMTPUTF8", Mail{From: addr.Address{Local: "jürgen", Domain: "bücher.example"}, UTF8: true}, ""},
		{"<a@b.example> smtputf8 SIZE=1", Mail{From: addr.Address{Local: "a", Domain: "b.example"}, Size: 1, UTF8: true}, ""},
		{"<jürgen@b.example>", Mail{}, "553 5.6.7 Non-ASCII sender address not permitted without SMTPUTF8"},
		{"<a@bücher.example> SIZE=1", Mail{}, "553 5.6.7"},
		{"<> SMTPUTF8=1", Mail{}, "501 5.5.4"},
		{"<> SMTPUTF8 SMTPUTF8", Mail{}, "501 5.5.4"},
		{"<> AUTH=<>", Mail{Auth: "<>"}, ""},
		{"<> AUTH=", Mail{}, "501"},
		{"<> AUTH=e+3Dmc2@example.com", Mail{Auth: "e+3Dmc2@example.com"}, ""},
		{"<> AUTH=a+3d", Mail{}, "501"},
		{"<> RET=HDRS ENVID=QQ314159", Mail{Return: envelope.ReturnHeaders, EnvID: "QQ314159"}, ""},
		{"<> RET=full", Mail{Return: envelope.ReturnFull}, ""},
		{"<> RET=BOTH", Mail{}, "501 5.5.4"},
		{"<> ENVID=", Mail{}, "501"},
		{"<> ENVID=a+0Ab", Mail{EnvID: "a+0Ab"}, ""}, // an encoded LF stays encoded
		{"<> ENVID=a+0ab", Mail{}, "501"},
		{"<> ENVID=a=b", Mail{}, "501"},
		{"<> ENVID=" + strings.Repeat("x", 101), Mail{}, "501"},
		{"<> FOO=bar", Mail{}, "555 5.5.4 Invalid command arguments: Unsupported option FOO=bar"},
		{"<> NOTIFY=NEVER", Mail{}, "555"},
		{"<>SIZE=1", Mail{}, "553"},
		{"", Mail{}, "553 5.1.0 Sender address syntax error"},
		{"a@b", Mail{}, "553"},
		{"<a@b", Mail{}, "553"},
		{"<a@>", Mail{}, "553"},
		{"<@b>", Mail{}, "553"},
		{"<x:y>", Mail{}, "553"},
		{"<;sleep 66;>", Mail{}, "553"},
		{"<root>", Mail{}, "553"},
		{"<a@b> \x00", Mail{}, "555"},
	} {
		got, err := ParseMail(tc.arg, "", all)
		if text := errText(err); !strings.HasPrefix(text, tc.err) || (tc.err == "") != (err == nil) {
			t.Errorf("%q: %q, want %q", tc.arg, text, tc.err)
		} else if err == nil && got != tc.want {
			t.Errorf("%q: %+v", tc.arg, got)
		}
	}
	if got, err := ParseMail("<root>", "here.example", all); err != nil || got.From.String() != "root@here.example" {
		t.Errorf("not completed: %v, %v", got, err)
	}
	if _, err := ParseMail("<> RET=FULL", "", ExtSize); errText(err)[:3] != "555" {
		t.Errorf("RET without DSN: %v", err)
	}
}

func errText(err *mailerr.Error) string {
	if err == nil {
		return ""
	}
	return err.Reply()
}

func TestParseRcpt(t *testing.T) {
	for _, tc := range []struct {
		arg  string
		want Rcpt
		err  string
	}{
		{"<a@b.example>", Rcpt{To: addr.Address{Local: "a", Domain: "b.example"}}, ""},
		{"<a>", Rcpt{To: addr.Address{Local: "a", Domain: "here.example"}}, ""},
		{"<postmaster>", Rcpt{To: addr.Address{Local: "postmaster", Domain: "here.example"}}, ""},
		{"<@x,@y:a@b.example>", Rcpt{To: addr.Address{Local: "a", Domain: "b.example"}}, ""},
		{"<a@b> NOTIFY=SUCCESS,delay ORCPT=rfc822;a+40b", Rcpt{To: addr.Address{Local: "a", Domain: "b"}, Notify: envelope.NotifySuccess | envelope.NotifyDelay, ORcpt: "rfc822;a+40b"}, ""},
		{"<a@b> NOTIFY=NEVER", Rcpt{To: addr.Address{Local: "a", Domain: "b"}, Notify: envelope.NotifyNever}, ""},
		{"<a@b> NOTIFY=NEVER,FAILURE", Rcpt{}, "553 5.5.4 NOTIFY option NEVER cannot be combined with other options"},
		{"<a@b> NOTIFY=", Rcpt{}, "501"},
		{"<a@b> NOTIFY=MAYBE", Rcpt{}, "501"},
		{"<a@b> ORCPT=a@b", Rcpt{}, "553 5.5.4 ORCPT address syntax error"},
		{"<a@b> ORCPT=;a", Rcpt{}, "553"},
		{"<a@b> ORCPT=rfc822;", Rcpt{}, "553"},
		{"<a@b> ORCPT=rf(c822;a", Rcpt{}, "553"},
		{"<a@b> ORCPT=rfc822;a+4", Rcpt{}, "553"},
		{"<a@b> ORCPT=rfc822;a\tb", Rcpt{}, "553"},
		{"<a@b> ORCPT=rfc822;" + strings.Repeat("x", 500), Rcpt{}, "553"},
		{"<a@b> SIZE=1", Rcpt{}, "555"},
		{"<>", Rcpt{}, "501 5.1.3 Recipient address syntax error"},
		{"<a b@c>", Rcpt{}, "501"},
		{"", Rcpt{}, "501"},
	} {
		got, err := ParseRcpt(tc.arg, "here.example", all)
		if text := errText(err); !strings.HasPrefix(text, tc.err) || (tc.err == "") != (err == nil) {
			t.Errorf("%q: %q, want %q", tc.arg, text, tc.err)
		} else if err == nil && got != tc.want {
			t.Errorf("%q: %+v", tc.arg, got)
		}
	}
}

func TestXtext(t *testing.T) {
	for _, tc := range []struct {
		in, want string
		ok       bool
	}{
		{"", "", true}, {"abc", "abc", true}, {"a+2Bb", "a+b", true}, {"+00", "\x00", true},
		{"+", "", false}, {"+2", "", false}, {"+2b", "", false}, {"+GG", "", false}, {"a=b", "", false}, {"a b", "", false}, {"\xff", "", false},
	} {
		if got, ok := DecodeXtext(tc.in); ok != tc.ok || got != tc.want || ValidXtext(tc.in) != tc.ok {
			t.Errorf("%q: %q, %v", tc.in, got, ok)
		}
	}
}

func FuzzXtext(f *testing.F) {
	f.Add("a+2Bb")
	f.Add("\r\n\x00\xff+=")
	f.Fuzz(func(t *testing.T, s string) {
		plain, ok := DecodeXtext(s)
		if ok != ValidXtext(s) || ok && len(plain) != len(s)-2*strings.Count(s, "+") {
			t.Errorf("%q is read as %q, %v", s, plain, ok)
		}
	})
}

// FuzzParameters holds that what is accepted can stand in a header, an envelope
// and a log line.
func FuzzParameters(f *testing.F) {
	f.Add("<a@b> SIZE=1 BODY=8BITMIME RET=FULL ENVID=x AUTH=<>")
	f.Add("<a@b> NOTIFY=NEVER ORCPT=rfc822;a+40b")
	f.Add("<@x:\"a b\"@[IPv6:::1]>")
	f.Fuzz(func(t *testing.T, arg string) {
		if m, err := ParseMail(arg, "", all); err == nil {
			safe(t, arg, m.From.String(), m.EnvID, m.Auth)
		}
		if r, err := ParseRcpt(arg, "here.example", all); err == nil {
			safe(t, arg, r.To.String(), r.ORcpt)
			if r.To.Local == "" || r.To.Domain == "" {
				t.Errorf("%q: recipient %+v", arg, r.To)
			}
		}
	})
}

func safe(t *testing.T, arg string, values ...string) {
	t.Helper()
	for _, v := range values {
		if strings.ContainsAny(v, "\r\n\x00") {
			t.Errorf("%q gave %q", arg, v)
		}
	}
}
