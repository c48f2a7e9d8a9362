package filter

import (
	"net/netip"
	"strconv"
	"strings"
	"time"

	"opensmtpd/src/mail"
	"opensmtpd/src/mail/addr"
	"opensmtpd/src/smtp/server"
)

// Protocol is the version of smtpd-filters(7) that programs are spoken to in.
const Protocol = "0.7"

// smtpdVersion is the OpenSMTPD whose protocol this is; programs compare it.
const smtpdVersion = "7.8.0"

// filterReport is an event that is not of the server's making.
const filterReport = server.Timeout + 1

// eventNames are those of smtpd-filters(7). Never written.
var eventNames = [...]string{
	server.LinkConnect: "link-connect", server.LinkGreeting: "link-greeting", server.LinkIdentify: "link-identify",
	server.LinkTLS: "link-tls", server.LinkAuth: "link-auth", server.LinkDisconnect: "link-disconnect",
	server.TxBegin: "tx-begin", server.TxMail: "tx-mail", server.TxRcpt: "tx-rcpt", server.TxEnvelope: "tx-envelope",
	server.TxData: "tx-data", server.TxCommit: "tx-commit", server.TxRollback: "tx-rollback", server.TxReset: "tx-reset",
	server.ProtocolClient: "protocol-client", server.ProtocolServer: "protocol-server",
	server.FilterResponse: "filter-response", server.Timeout: "timeout", filterReport: "filter-report",
}

// Direction tells the subsystem that an event is of.
type direction uint8

const (
	smtpIn direction = iota
	smtpOut
)

func (d direction) String() string {
	if d == smtpOut {
		return "smtp-out"
	}
	return "smtp-in"
}

// appendHead adds what every line to a program begins with, up to the session.
func appendHead(b []byte, stream string, now time.Time, d direction, what string, id mail.SessionID) []byte {
	b = appendTime(append(append(b, stream...), "|"+Protocol+"|"...), now)
	b = append(append(append(b, '|'), d.String()...), '|')
	b = append(append(b, what...), '|')
	return appendHex(b, uint64(id))
}

func appendHex(b []byte, n uint64) []byte { return appendPadded(b, n, 16, 16) }

// appendPadded adds n in a base, filled up with zeros to a width.
func appendPadded(b []byte, n uint64, width, base int) []byte {
	var digits [20]byte
	text := strconv.AppendUint(digits[:0], n, base)
	for range width - len(text) {
		b = append(b, '0')
	}
	return append(b, text...)
}

// appendLast adds the last field of a line, and the end of the line: what would
// end it early, or make C see less of it, becomes a question mark.
func appendLast(b []byte, s string) []byte {
	return append(appendClean(append(b, '|'), s, "\r\n\x00"), '\n')
}

// appendField adds a field that is not the last: it cannot hold a bar either.
func appendField(b []byte, s string) []byte { return appendClean(append(b, '|'), s, "|\r\n\x00") }

func appendClean(b []byte, s, bad string) []byte {
	at := len(b)
	b = append(b, s...)
	if !strings.ContainsAny(s, bad) {
		return b
	}
	for i := at; i < len(b); i++ {
		if strings.IndexByte(bad, b[i]) >= 0 {
			b[i] = '?'
		}
	}
	return b
}

// appendEvent adds what an event has behind the session, line end included.
func appendEvent(b []byte, s *server.Session, e *server.Event) []byte {
	switch e.Kind {
	case server.LinkConnect:
		return appendConnect(b, s)
	case server.LinkGreeting:
		return appendLast(b, s.Listener.Hostname)
	case server.LinkIdentify:
		return appendLast(appendField(b, e.Text), s.Helo)
	case server.LinkAuth:
		result, user, _ := strings.Cut(e.Text, "|")
		return appendLast(appendField(b, result), user)
	case server.TxBegin, server.TxReset, server.TxRollback:
		return appendLast(b, e.Message.String())
	case server.TxMail, server.TxRcpt:
		return appendLast(appendField(appendField(b, e.Message.String()), result(e.Code)), e.Text)
	case server.TxEnvelope:
		return appendLast(appendField(b, e.Message.String()), e.Envelope.String())
	case server.TxData:
		return appendLast(appendField(b, e.Message.String()), result(e.Code))
	case server.TxCommit:
		return appendLast(appendField(b, e.Message.String()), strconv.FormatInt(e.Size, 10))
	case server.ProtocolClient:
		return appendLast(b, hide(e.Text))
	case server.FilterResponse:
		return appendLast(appendField(b, responsePhases[e.Phase]), e.Text)
	case server.LinkDisconnect, server.Timeout:
		return append(b, '\n')
	}
	return appendLast(b, e.Text)
}

// hide leaves credentials out of what programs are told of a client's commands.
func hide(line string) string {
	const auth = "auth "
	if len(line) <= len(auth) || !strings.EqualFold(line[:len(auth)], auth) {
		return line
	}
	mechanism, response, _ := strings.Cut(strings.TrimLeft(line[len(auth):], " \t"), " ")
	if response == "" {
		return line
	}
	return line[:len(auth)] + mechanism + " ********"
}

// result is a reply code as events have it.
func result(code int) string {
	switch {
	case code >= 500:
		return "permfail"
	case code >= 400:
		return "tempfail"
	}
	return "ok"
}

// responsePhases are the names of phases in filter-response, two of which are
// others than everywhere else. Never written.
var responsePhases = func() map[server.Phase]string {
	names := make(map[server.Phase]string, len(phases))
	for name, p := range phases {
		names[p] = name
	}
	names[server.PhaseConnect], names[server.PhaseStartTLS] = "connected", "tls"
	return names
}()

func appendConnect(b []byte, s *server.Session) []byte {
	forward := "fail"
	switch {
	case s.Client.Name.Temp:
		forward = "error"
	case s.Client.Name.Forward:
		forward = "pass"
	}
	src, dst := socketName, socketName
	if !s.Listener.Socket {
		src, dst = portText(s.Client.Addr), portText(s.Local())
	}
	return appendLast(appendField(appendField(appendField(b, s.Host()), forward), src), dst)
}

// socketName is how programs know the local socket.
const socketName = "unix:/var/run/smtpd.sock"

// portText is an address with its port, IPv6 in brackets.
func portText(a netip.AddrPort) string {
	if !a.IsValid() {
		return "unknown"
	}
	return netip.AddrPortFrom(a.Addr().Unmap(), a.Port()).String()
}

// stripped is the argument of a phase as filters see it: an address without its
// brackets and what follows, and nothing of what NOOP may have.
func stripped(p server.Phase, param string) string {
	switch p {
	case server.PhaseNoop:
		return ""
	case server.PhaseMailFrom, server.PhaseRcptTo:
		if a, ok := addr.Written(param); ok && param[0] == '<' {
			return a
		}
	}
	return param
}
