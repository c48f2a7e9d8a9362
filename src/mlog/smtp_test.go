package mlog

import (
	"testing"
)

type last string

func (l *last) Line(_ Priority, line string) { *l = last(line) }

// TestSMTPLines holds the form of the lines, which programs of others read.
func TestSMTPLines(t *testing.T) {
	var got last
	l := New(&got, false)
	for _, tc := range []struct {
		log  func()
		want string
	}{
		{func() { l.SMTPConnected(0xabc, "[2001:db8::1]", "mail.example.org") },
			"0000000000000abc smtp connected address=[2001:db8::1] host=mail.example.org"},
		{func() { l.SMTPMessage(1, 0xbeef, 1234, 2, "ESMTP") },
			"0000000000000001 smtp message msgid=0000beef size=1234 nrcpt=2 proto=ESMTP"},
		{func() { l.SMTPEnvelope(1, 0xbeef00000001, "a@b", "c@d") },
			"0000000000000001 smtp envelope evpid=0000beef00000001 from=<a@b> to=<c@d>"},
		{func() { l.SMTPFailedCommand(1, "RCPT TO:<\\\x01\xe9>", "550 no") },
			`0000000000000001 smtp failed-command command="RCPT TO:<\\\^A\M-i>" result="550 no"`},
		{func() { l.SMTPAuthentication(0xabc, "bob", "ok") },
			"0000000000000abc smtp authentication user=bob result=ok"},
		{func() { l.SMTPAuthentication(0xabc, "a b\tc\\ \xe9", "permfail") },
			`0000000000000abc smtp authentication user=a\040b\011c\\\040\M-i result=permfail`},
		{func() { l.SMTPBadInput(1, "500 long") },
			`0000000000000001 smtp bad-input result="500 long"`},
		{func() { l.SMTPTrace(1, "<<<", "NOOP") }, "smtp: 0000000000000001: <<< NOOP"},
		{func() { l.SMTPDisconnected(1, "quit") },
			"0000000000000001 smtp disconnected reason=quit"},
		{func() { l.SMTPDisconnected(1, "io-error: connection reset by peer") },
			`0000000000000001 smtp disconnected reason="io-error: connection reset by peer"`},
	} {
		tc.log()
		if string(got) != tc.want {
			t.Errorf("got  %s\nwant %s", got, tc.want)
		}
	}
}

func TestVis(t *testing.T) {
	for in, want := range map[string]string{
		"plain text":     "plain text",
		`a\b"c`:          `a\\b"c`,
		"\x00":           `\0`,
		"\x001":          `\0001`,
		"\x009":          `\09`,
		"\x1b[31m":       `\^[[31m`,
		"\x7f":           `\^?`,
		"\xff\x80\xa0":   `\M^?\M^@\240`,
		"\v\f":           `\v\f`,
		"tab\tand\rrest": "tab\tand\rrest",
	} {
		if got := Vis(in); got != want {
			t.Errorf("%q: got %q, want %q", in, got, want)
		}
	}
}
