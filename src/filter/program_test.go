package filter

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"opensmtpd/src/conf"
	"opensmtpd/src/conf/project"
	"opensmtpd/src/mail"
)

// progFilter is a filter in a program.
func progFilter(name, proc string, f conf.OnFailure) project.Filter {
	return project.Filter{Name: name, Kind: conf.FilterProc, Proc: proc, OnFailure: f}
}

// everything is what a program registers that wants it all.
func everything() []string {
	list := []string{"register|report|smtp-in|*"}
	for name := range phases {
		list = append(list, "register|filter|smtp-in|"+name)
	}
	return append(list, "register|filter|smtp-in|data-line")
}

// The whole of what a program hears of a session, in OpenSMTPD's order.
func TestProgramTranscript(t *testing.T) {
	r := newRig(t)
	s := &script{register: everything()}
	r.program("p", s)
	r.filter(progFilter("f", "p", conf.TempFail))
	c := r.dial()
	for i, got := range c.play("EHLO host.example.org", "MAIL FROM:<eve@example.org> SIZE=10", "RCPT TO:<bob@example.com>", "RCPT TO:bad",
		"DATA", "Subject: x\r\n\r\n..hello\r\n.", "MAIL FROM:<>", "RSET", "NOOP", "HELP", "QUIT") {
		if want := []string{"220", "250", "250", "250", "501", "354", "250", "250", "250", "250", "214", "221"}[i]; !strings.HasPrefix(got, want) {
			t.Errorf("reply %d is %q", i, got)
		}
	}
	local := c.nc.RemoteAddr().String()
	r.close(c)
	s.await("link-disconnect")
	want := strings.ReplaceAll(strings.ReplaceAll(strings.ReplaceAll(strings.ReplaceAll(transcript, "REPORT", "report|0.7|1772600767.000089|smtp-in"), "FILTER", "filter|0.7|1772600767.000089|smtp-in"), "ID", "0000000000000011"), "LOCAL", local)
	for i := range uint32(2) {
		want = strings.Replace(want, "ENVELOPE", mail.EnvelopeAt(0x1234abcd, i).String(), 1)
	}
	if diff := cmp.Diff(strings.Split(strings.TrimSpace(want), "\n"), s.said()); diff != "" {
		t.Error(diff)
	}
	if want := "\nSubject: x\n\n.hello\n"; len(r.mem.kept) != 1 || !strings.HasSuffix(r.mem.kept[0], want) {
		t.Errorf("kept %q", r.mem.kept)
	}
}

const transcript = `
config|smtpd-version|7.8.0
config|protocol|0.7
config|smtp-session-timeout|300
config|subsystem|smtp-in
config|admd|mx.example.com
config|ready
REPORT|link-connect|ID|client.example.org|pass|192.0.2.7:4321|LOCAL
FILTER|connect|ID|TOKEN|client.example.org|192.0.2.7
REPORT|filter-response|ID|connected|proceed
REPORT|protocol-server|ID|220 mx.example.com ESMTP OpenSMTPD
REPORT|link-greeting|ID|mx.example.com
REPORT|protocol-client|ID|EHLO host.example.org
FILTER|ehlo|ID|TOKEN|host.example.org
REPORT|filter-response|ID|ehlo|proceed
REPORT|link-identify|ID|EHLO|host.example.org
REPORT|protocol-server|ID|250-mx.example.com Hello host.example.org [192.0.2.7], pleased to meet you
REPORT|protocol-server|ID|250-8BITMIME
REPORT|protocol-server|ID|250-ENHANCEDSTATUSCODES
REPORT|protocol-server|ID|250-PIPELINING
REPORT|protocol-server|ID|250-CHUNKING
REPORT|protocol-server|ID|250-SMTPUTF8
REPORT|protocol-server|ID|250-SIZE 67108864
REPORT|protocol-server|ID|250-LIMITS MAILMAX=100 RCPTMAX=1000
REPORT|protocol-server|ID|250-DSN
REPORT|protocol-server|ID|250 HELP
REPORT|protocol-client|ID|MAIL FROM:<eve@example.org> SIZE=10
FILTER|mail-from|ID|TOKEN|eve@example.org
REPORT|filter-response|ID|mail-from|proceed
REPORT|protocol-server|ID|250 2.0.0 Ok
REPORT|tx-begin|ID|1234abcd
REPORT|tx-mail|ID|1234abcd|ok|eve@example.org
REPORT|protocol-client|ID|RCPT TO:<bob@example.com>
FILTER|rcpt-to|ID|TOKEN|bob@example.com
REPORT|filter-response|ID|rcpt-to|proceed
REPORT|tx-envelope|ID|1234abcd|ENVELOPE
REPORT|tx-envelope|ID|1234abcd|ENVELOPE
REPORT|protocol-server|ID|250 2.1.5 Destination address valid: Recipient ok
REPORT|tx-rcpt|ID|1234abcd|ok|bob@example.com
REPORT|protocol-client|ID|RCPT TO:bad
REPORT|protocol-server|ID|501 5.1.3 Recipient address syntax error
REPORT|tx-rcpt|ID|1234abcd|permfail|bob@example.com
REPORT|protocol-client|ID|DATA
FILTER|data|ID|TOKEN|
REPORT|filter-response|ID|data|proceed
FILTER|data-line|ID|TOKEN|Received: from host.example.org (client.example.org [192.0.2.7])
FILTER|data-line|ID|TOKEN|	by mx.example.com (OpenSMTPD) with ESMTP id 1234abcd
FILTER|data-line|ID|TOKEN|	for <bob@example.com>;
FILTER|data-line|ID|TOKEN|	Wed, 4 Mar 2026 05:06:07 +0000 (UTC)
REPORT|protocol-server|ID|354 Enter mail, end with "." on a line by itself
REPORT|tx-data|ID|1234abcd|ok
FILTER|data-line|ID|TOKEN|Subject: x
FILTER|data-line|ID|TOKEN|
FILTER|data-line|ID|TOKEN|..hello
REPORT|protocol-client|ID|.
FILTER|data-line|ID|TOKEN|.
FILTER|commit|ID|TOKEN|
REPORT|filter-response|ID|commit|proceed
REPORT|protocol-server|ID|250 2.0.0 1234abcd Message accepted for delivery
REPORT|tx-commit|ID|1234abcd|200
REPORT|tx-reset|ID|1234abcd
REPORT|protocol-client|ID|MAIL FROM:<>
FILTER|mail-from|ID|TOKEN|
REPORT|filter-response|ID|mail-from|proceed
REPORT|protocol-server|ID|250 2.0.0 Ok
REPORT|tx-begin|ID|1234abcd
REPORT|tx-mail|ID|1234abcd|ok|
REPORT|protocol-client|ID|RSET
FILTER|rset|ID|TOKEN|
REPORT|filter-response|ID|rset|proceed
REPORT|protocol-server|ID|250 2.0.0 Reset state
REPORT|tx-rollback|ID|1234abcd
REPORT|tx-reset|ID|1234abcd
REPORT|protocol-client|ID|NOOP
FILTER|noop|ID|TOKEN|
REPORT|filter-response|ID|noop|proceed
REPORT|protocol-server|ID|250 2.0.0 Ok
REPORT|protocol-client|ID|HELP
REPORT|protocol-server|ID|214-2.0.0 This is OpenSMTPD
REPORT|protocol-server|ID|214-2.0.0 HELO EHLO MAIL RCPT DATA BDAT RSET NOOP VRFY HELP QUIT
REPORT|protocol-server|ID|214 2.0.0 End of HELP info
REPORT|protocol-client|ID|QUIT
FILTER|quit|ID|TOKEN|
REPORT|filter-response|ID|quit|proceed
REPORT|protocol-server|ID|221 2.0.0 Bye
REPORT|link-disconnect|ID
`
