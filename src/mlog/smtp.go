package mlog

import (
	"strings"

	"opensmtpd/src/mail"
)

// The lines of an incoming SMTP session, in their order.

// SMTPConnected tells of a new client: its address as OpenSMTPD writes it, and
// its name by DNS or "<unknown>".
func (l *Logger) SMTPConnected(id mail.SessionID, address, host string) {
	l.Infof("%016x smtp connected address=%s host=%s", uint64(id), address, host)
}

// SMTPTLS tells what protects the session: version:cipher:bits.
func (l *Logger) SMTPTLS(id mail.SessionID, ciphers string) {
	l.Infof("%016x smtp tls ciphers=%s", uint64(id), ciphers)
}

// SMTPCertificate tells of the certificate that a client has shown.
func (l *Logger) SMTPCertificate(id mail.SessionID, verified bool, fingerprint string) {
	result := "unchecked"
	if verified {
		result = "verified"
	}
	l.Infof("%016x smtp cert-check result=\"%s\" fingerprint=\"%s\"", uint64(id), result, fingerprint)
}

// SMTPProxy comes before SMTPConnected where a proxy speaks for the client: it
// has the address of the proxy.
func (l *Logger) SMTPProxy(id mail.SessionID, address string) {
	l.Infof("%016x smtp event=proxy address=%s", uint64(id), address)
}

// SMTPProxyRefused tells that a connection was closed for want of a proxy's
// header.
func (l *Logger) SMTPProxyRefused(id mail.SessionID, address string, reason error) {
	l.Infof("%016x smtp event=closed address=%s reason=\"%v\"", uint64(id), address, reason)
}

// SMTPMessage tells of a message that is on stable storage: size in bytes as
// kept, number of recipients, and SMTP or ESMTP.
func (l *Logger) SMTPMessage(id mail.SessionID, msg mail.MessageID, size int64, rcpts int, proto string) {
	l.Infof("%016x smtp message msgid=%08x size=%d nrcpt=%d proto=%s", uint64(id), uint32(msg), size, rcpts, proto)
}

// SMTPEnvelope follows SMTPMessage once for each recipient.
func (l *Logger) SMTPEnvelope(id mail.SessionID, evp mail.EnvelopeID, from, to string) {
	l.Infof("%016x smtp envelope evpid=%016x from=<%s> to=<%s>", uint64(id), uint64(evp), address(from), address(to))
}

// SMTPFailedCommand tells of a command that was refused, with the last line of
// the reply.
func (l *Logger) SMTPFailedCommand(id mail.SessionID, command, result string) {
	l.Infof("%016x smtp failed-command command=\"%s\" result=\"%s\"", uint64(id), Vis(command), result)
}

// SMTPAuthentication tells how an attempt to authenticate ended: ok, permfail
// or tempfail.
func (l *Logger) SMTPAuthentication(id mail.SessionID, user, result string) {
	l.Infof("%016x smtp authentication user=%s result=%s", uint64(id), VisWhite(user), result)
}

// SMTPAuthTrouble tells why it could not be found out whether a password is
// right.
func (l *Logger) SMTPAuthTrouble(id mail.SessionID, user string, err error) {
	l.Warnf("warn: smtp: %016x: authentication of %s: %v", uint64(id), VisWhite(user), err)
}

// SMTPBadInput tells of input that is no command.
func (l *Logger) SMTPBadInput(id mail.SessionID, result string) {
	l.Infof("%016x smtp bad-input result=\"%s\"", uint64(id), result)
}

// SMTPDisconnected tells why a session ended: quit, disconnect, timeout or, in
// quotes, an error.
func (l *Logger) SMTPDisconnected(id mail.SessionID, reason string) {
	if !bare(reason) {
		reason = `"` + reason + `"`
	}
	l.Infof("%016x smtp disconnected reason=%s", uint64(id), reason)
}

func bare(s string) bool {
	for i := 0; i < len(s); i++ {
		if s[i] == ' ' {
			return false
		}
	}
	return true
}

// SMTPFull tells that no more clients are accepted because there are as many as
// there can be, and SMTPEnabled that it is over. SMTPExhausted tells that a
// client could not be accepted for want of descriptors or memory.
func (l *Logger) SMTPFull() {
	l.Warnf("warn: Disabling incoming SMTP connections: Client limit reached")
}

func (l *Logger) SMTPEnabled() {
	l.Warnf("warn: smtp: fd exhaustion over, re-enabling incoming connections")
}

func (l *Logger) SMTPExhausted(err error) {
	l.Warnf("warn: Disabling incoming SMTP connections: %v", err)
}

// SMTPTrace shows a line of a session, dir being "<<<" for the client's and
// ">>>" for ours; it is for traces, and written whether verbose or not.
func (l *Logger) SMTPTrace(id mail.SessionID, dir, text string) {
	l.print(Debug, "smtp: %016x: %s %s", uint64(id), dir, text)
}

// Vis writes what a stranger sent as vis(3) does with VIS_SAFE and VIS_CSTYLE:
// printable ASCII, space, tab and newline as they are, a backslash doubled,
// \0 for NUL, \^X and \M-x for the rest (and \240). OpenSMTPD's logs have commands so.
func Vis(s string) string {
	clean := true
	for i := 0; i < len(s) && clean; i++ {
		clean = s[i] >= ' ' && s[i] < 0x7f && s[i] != '\\'
	}
	if clean {
		return s
	}
	b := make([]byte, 0, len(s)+16)
	for i := 0; i < len(s); i++ {
		b = appendVis(b, s, i)
	}
	return string(b)
}

// VisWhite writes a word as vis(3) does with VIS_SAFE and VIS_WHITE: white space
// in octal, so that the word stays one. OpenSMTPD's logs have users so.
func VisWhite(s string) string {
	s = Vis(s)
	if !strings.ContainsAny(s, " \t\n\r") {
		return s
	}
	return strings.NewReplacer(" ", `\040`, "\t", `\011`, "\n", `\012`, "\r", `\015`).Replace(s)
}

func appendVis(b []byte, s string, i int) []byte {
	c := s[i]
	switch {
	case c == '\\':
		return append(b, `\\`...)
	case c >= ' ' && c < 0x7f, c == '\t', c == '\n', c == '\r', c == '\a', c == '\b':
		return append(b, c)
	case c == '\v':
		return append(b, `\v`...)
	case c == '\f':
		return append(b, `\f`...)
	case c == 0 && i+1 < len(s) && '0' <= s[i+1] && s[i+1] <= '7':
		return append(b, `\000`...)
	case c == 0:
		return append(b, `\0`...)
	case c == ' '|0x80:
		return append(b, `\240`...)
	}
	b = append(b, '\\')
	if c >= 0x80 {
		b = append(b, 'M')
		c &= 0x7f
	}
	switch {
	case c == 0x7f:
		return append(b, '^', '?')
	case c < ' ':
		return append(b, '^', c+'@')
	}
	return append(b, '-', c)
}
