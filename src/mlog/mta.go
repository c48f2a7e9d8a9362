package mlog

import (
	"strconv"
	"time"

	"opensmtpd/src/mail"
)

// The lines of outgoing sessions, in their order. Words that a server chose come
// without control characters, as every line does.

// MTAConnecting tells that a session begins: address as url with the port, and
// the name of the host by DNS.
func (l *Logger) MTAConnecting(id mail.SessionID, scheme, addr string, port uint16, host string) {
	l.Infof("%016x mta connecting address=%s://%s:%d host=%s", uint64(id), scheme, addr, port, host)
}

// MTAConnected tells that the server can be reached.
func (l *Logger) MTAConnected(id mail.SessionID) { l.Infof("%016x mta connected", uint64(id)) }

// MTATLS tells what protects the session.
func (l *Logger) MTATLS(id mail.SessionID, ciphers string) {
	l.Infof("%016x mta tls ciphers=%s", uint64(id), ciphers)
}

// MTACertificate tells about the server's certificate; fingerprint is "" when it
// has shown none.
func (l *Logger) MTACertificate(id mail.SessionID, verified bool, fingerprint string) {
	result := "unverified"
	if verified {
		result = "valid"
	}
	if fingerprint == "" {
		l.Infof("%016x mta cert-check result=\"no certificate presented\"", uint64(id))
		return
	}
	l.Infof("%016x mta cert-check result=\"%s\" fingerprint=\"%s\"", uint64(id), result, fingerprint)
}

// MTAError tells why a session fails, after how many messages.
func (l *Logger) MTAError(id mail.SessionID, sent int, reason string) {
	switch sent {
	case 0:
		l.Infof("%016x mta error reason=%s", uint64(id), reason)
	case 1:
		l.Infof("smtp-out: Error on session %016x after 1 message sent: %s", uint64(id), reason)
	default:
		l.Infof("smtp-out: Error on session %016x after %d messages sent: %s", uint64(id), sent, reason)
	}
}

// MTADowngrade tells that opportunistic TLS failed, and that the server is tried
// without.
func (l *Logger) MTADowngrade(id mail.SessionID) {
	l.Infof("smtp-out: Error on session %016x: opportunistic TLS failed, downgrading to plain", uint64(id))
}

// MTARejectsAll tells that a server has refused many messages one after the
// other.
func (l *Logger) MTARejectsAll(id mail.SessionID) {
	l.Infof("%016x mta host-rejects-all-mails", uint64(id))
}

// MTADisconnected tells how a session ended, and how many messages were sent.
func (l *Logger) MTADisconnected(id mail.SessionID, reason string, messages int) {
	l.Infof("%016x mta disconnected reason=%s messages=%d", uint64(id), reason, messages)
}

// Relayed is what the line about one recipient tells.
type Relayed struct {
	Session mail.SessionID // 0: there was none
	ID      mail.EnvelopeID
	From    string
	To      string // after expansion
	Rcpt    string // as the client gave it
	Source  string // our address, "" when there was no session
	Relay   string // address and name of the server, or the domain
	Delay   time.Duration
	Result  string // "Ok", "TempFail", "PermFail"
	Stat    string // what the server said
}

// MTADelivery tells what became of one recipient.
func (l *Logger) MTADelivery(d *Relayed) {
	if l == nil || l.sink == nil {
		return
	}
	rcpt, source := d.Rcpt, d.Source
	if rcpt == "" || rcpt == d.To {
		rcpt = "-"
	}
	if source == "" {
		source = "-"
	}
	// Once for every recipient: no Sprintf.
	b := make([]byte, 0, 256)
	b = append(hex16(b, uint64(d.Session)), " mta delivery evpid="...)
	b = append(hex16(b, uint64(d.ID)), " from=<"...)
	b = append(append(b, address(d.From)...), "> to=<"...)
	b = append(append(b, address(d.To)...), "> rcpt=<"...)
	b = append(append(b, address(rcpt)...), "> source=\""...)
	b = append(append(b, source...), "\" relay=\""...)
	b = append(append(b, d.Relay...), "\" delay="...)
	b = append(append(b, DurationText(d.Delay)...), " result=\""...)
	b = append(append(b, d.Result...), "\" stat=\""...)
	b = append(append(b, d.Stat...), '"')
	l.sink.Line(Info, clean(string(b)))
}

func hex16(b []byte, v uint64) []byte {
	var digits [16]byte
	s := strconv.AppendUint(digits[:0], v, 16)
	for n := len(s); n < 16; n++ {
		b = append(b, '0')
	}
	return append(b, s...)
}

// The lines about routes, which are a source address and a server.

// MTARouteDisabled and MTARouteEnabled tell that a route is not used for a
// while, and that it is again; by: " per admin request", or "".
func (l *Logger) MTARouteDisabled(route string, d time.Duration) {
	l.Infof("smtp-out: Disabling route %s for %ds", route, int64(d/time.Second))
}

func (l *Logger) MTARouteEnabled(route, by string) {
	l.Infof("smtp-out: Enabling route %s%s", route, by)
}

// MTASourceError tells that a source address cannot be used.
func (l *Logger) MTASourceError(route, why string) {
	l.Infof("smtp-out: Error on %s: %s", route, why)
}

// MTANoRoute tells why a destination cannot be reached now: "No MX found", "No
// valid route", "Address family mismatch", ….
func (l *Logger) MTANoRoute(why, relay string) { l.Infof("smtp-out: %s for %s", why, relay) }

// MTAUnresolved tells why the servers of a destination are not known.
func (l *Logger) MTAUnresolved(relay, why string) {
	l.Infof("smtp-out: Failed to resolve MX for %s: %s", relay, why)
}

// MTAWarn tells of trouble with a table or a configuration that relaying needs.
func (l *Logger) MTAWarn(what string, err error) { l.Warnf("warn: %s: %v", what, err) }
