package smtp

import (
	"errors"
	"strconv"
	"strings"

	"opensmtpd/src/mail/addr"
	"opensmtpd/src/mailerr"
	"opensmtpd/src/queue/envelope"
)

// Limits of parameters, in bytes.
const (
	maxEnvID = 100 // RFC 3461 section 4.4
	maxORcpt = 500 // RFC 3461 section 4.2
	// maxEcho is how much of a wrong parameter a reply repeats.
	maxEcho = 64
)

// Body is what MAIL declares of the message (RFC 6152).
type Body uint8

const (
	BodyUnset Body = iota
	Body7Bit
	Body8BitMIME
)

// Extension is a set of what the server announced: a parameter of an extension
// that was not is unsupported.
type Extension uint16

const (
	ExtSize Extension = 1 << iota
	Ext8BitMIME
	ExtDSN
	ExtUTF8
	ExtRequireTLS
)

// Mail is the argument of MAIL FROM.
type Mail struct {
	From   addr.Address
	Size   uint64 // declared, bytes; zero: not declared (RFC 1870)
	Body   Body
	Return envelope.Return
	EnvID  string // xtext as given
	Auth   string // xtext as given (RFC 4954 section 5)
	UTF8   bool   // RFC 6531 section 3.4
	// RequireTLS wants every server on the way to use TLS (RFC 8689 section 2).
	RequireTLS bool
}

// Rcpt is the argument of RCPT TO.
type Rcpt struct {
	To     addr.Address
	Notify envelope.Notify
	ORcpt  string // type;xtext as given
}

// param is a row of a table of parameters. What set returns is the refusal.
type param[T any] struct {
	name string
	ext  Extension // zero: always taken
	set  func(*T, string) *mailerr.Error
	bare bool // it has no value
}

// AUTH is taken whether announced or not: clients that relay for others send it
// regardless, and OpenSMTPD lets it pass.
var mailParams = []param[Mail]{
	{name: "SIZE", ext: ExtSize, set: setSize},
	{name: "BODY", ext: Ext8BitMIME, set: setBody},
	{name: "AUTH", set: setAuth},
	{name: "RET", ext: ExtDSN, set: setReturn},
	{name: "ENVID", ext: ExtDSN, set: setEnvID},
	{name: "SMTPUTF8", ext: ExtUTF8, bare: true, set: setUTF8},
	{name: "REQUIRETLS", ext: ExtRequireTLS, bare: true, set: setRequireTLS},
}

var rcptParams = []param[Rcpt]{
	{name: "NOTIFY", ext: ExtDSN, set: setNotify},
	{name: "ORCPT", ext: ExtDSN, set: setORcpt},
}

// ParseMail reads the argument of MAIL FROM. A sender without a domain is
// completed with domain; where that is empty, as it should be for strangers, it
// is refused.
func ParseMail(arg, domain string, ext Extension) (Mail, *mailerr.Error) {
	var m Mail
	from, rest, ok := parsePath(arg, domain)
	if !ok {
		return m, mailerr.Permanent(553, 1, 0, "Sender address syntax error", nil)
	}
	m.From = from
	if err := parse(&m, mailParams, rest, ext); err != nil {
		return m, err
	}
	if !m.UTF8 && !from.ASCII() {
		return m, needsUTF8("sender")
	}
	return m, nil
}

// needsUTF8 refuses an address beyond ASCII (RFC 6531 section 3.5).
func needsUTF8(whose string) *mailerr.Error {
	return mailerr.Permanent(553, 6, 7, "Non-ASCII "+whose+" address not permitted without SMTPUTF8", nil)
}

// ParseRcpt reads the argument of RCPT TO, completing a path without a domain
// like ParseMail. Of ext, ExtUTF8 tells that the message is one of SMTPUTF8.
func ParseRcpt(arg, domain string, ext Extension) (Rcpt, *mailerr.Error) {
	var r Rcpt
	to, rest, ok := parsePath(arg, domain)
	if !ok || to.IsZero() {
		return r, mailerr.Permanent(501, 1, 3, "Recipient address syntax error", nil)
	}
	r.To = to
	if err := parse(&r, rcptParams, rest, ext); err != nil {
		return r, err
	}
	if ext&ExtUTF8 == 0 && (!to.ASCII() || !addr.ASCII(r.ORcpt)) {
		return r, needsUTF8("recipient")
	}
	return r, nil
}

// parsePath reads the path and checks that a space or nothing follows it.
func parsePath(arg, domain string) (addr.Address, string, bool) {
	a, rest, err := addr.ParsePath(arg)
	if err != nil && !errors.Is(err, addr.ErrNoDomain) && !errors.Is(err, addr.ErrUTF8) {
		return addr.Address{}, "", false
	}
	if rest != "" && rest[0] != ' ' {
		return addr.Address{}, "", false
	}
	if a.Local != "" && a.Domain == "" {
		a.Domain = domain
		return a, rest, domain != ""
	}
	return a, rest, true
}

// parse reads the parameters in s by the table. Each may come once.
func parse[T any](into *T, table []param[T], s string, ext Extension) *mailerr.Error {
	seen := 0
	for word := range strings.SplitSeq(s, " ") {
		if word == "" {
			continue
		}
		name, value, has := strings.Cut(word, "=")
		i := row(table, name, ext)
		if i < 0 {
			return mailerr.Permanent(555, 5, 4, "Invalid command arguments: Unsupported option "+echo(word), nil)
		}
		if has == table[i].bare || seen&(1<<i) != 0 {
			return badValue(name)
		}
		seen |= 1 << i
		if err := table[i].set(into, value); err != nil {
			return err
		}
	}
	return nil
}

func row[T any](table []param[T], name string, ext Extension) int {
	for i := range table {
		if EqualFold(name, table[i].name) && ext&table[i].ext == table[i].ext {
			return i
		}
	}
	return -1
}

func echo(s string) string {
	if len(s) > maxEcho {
		return s[:maxEcho]
	}
	return s
}

func badValue(name string) *mailerr.Error {
	return mailerr.Permanent(501, 5, 4, "Invalid command arguments: Bad value of "+strings.ToUpper(echo(name)), nil)
}

// setSize reads one to twenty digits (RFC 1870 section 5). What does not fit is
// more than any limit.
func setSize(m *Mail, v string) *mailerr.Error {
	if v == "" || len(v) > 20 || strings.Trim(v, "0123456789") != "" {
		return badValue("SIZE")
	}
	n, err := strconv.ParseUint(v, 10, 64)
	if err != nil {
		n = 1<<64 - 1
	}
	m.Size = n
	return nil
}

func setBody(m *Mail, v string) *mailerr.Error {
	switch {
	case EqualFold(v, "7BIT"):
		m.Body = Body7Bit
	case EqualFold(v, "8BITMIME"):
		m.Body = Body8BitMIME
	default:
		return mailerr.Permanent(555, 5, 4, "Invalid command arguments: Unsupported option BODY="+echo(v), nil)
	}
	return nil
}

func setAuth(m *Mail, v string) *mailerr.Error {
	if v == "" || !ValidXtext(v) {
		return badValue("AUTH")
	}
	m.Auth = v
	return nil
}

func setReturn(m *Mail, v string) *mailerr.Error {
	switch {
	case EqualFold(v, "FULL"):
		m.Return = envelope.ReturnFull
	case EqualFold(v, "HDRS"):
		m.Return = envelope.ReturnHeaders
	default:
		return badValue("RET")
	}
	return nil
}

func setEnvID(m *Mail, v string) *mailerr.Error {
	if v == "" || len(v) > maxEnvID || !ValidXtext(v) {
		return badValue("ENVID")
	}
	m.EnvID = v
	return nil
}

func setUTF8(m *Mail, _ string) *mailerr.Error {
	m.UTF8 = true
	return nil
}

func setRequireTLS(m *Mail, _ string) *mailerr.Error {
	m.RequireTLS = true
	return nil
}

// setNotify reads NEVER, or a list of the others (RFC 3461 section 4.1).
func setNotify(r *Rcpt, v string) *mailerr.Error {
	for word := range strings.SplitSeq(v, ",") {
		switch {
		case EqualFold(word, "SUCCESS"):
			r.Notify |= envelope.NotifySuccess
		case EqualFold(word, "FAILURE"):
			r.Notify |= envelope.NotifyFailure
		case EqualFold(word, "DELAY"):
			r.Notify |= envelope.NotifyDelay
		case EqualFold(word, "NEVER"):
			r.Notify |= envelope.NotifyNever
		default:
			return badValue("NOTIFY")
		}
	}
	if r.Notify&envelope.NotifyNever != 0 && r.Notify != envelope.NotifyNever {
		return mailerr.Permanent(553, 5, 4, "NOTIFY option NEVER cannot be combined with other options", nil)
	}
	return nil
}

// setORcpt reads addr-type ";" xtext, the type an atom (RFC 3461 section 4.2); of
// type utf-8 the address may stand as it is (RFC 6533 section 3).
func setORcpt(r *Rcpt, v string) *mailerr.Error {
	kind, text, found := strings.Cut(v, ";")
	valid := ValidXtext(text) || EqualFold(kind, "utf-8") && validUnitext(text)
	if !found || len(v) > maxORcpt || !atom(kind) || text == "" || !valid {
		return mailerr.Permanent(553, 5, 4, "ORCPT address syntax error", nil)
	}
	r.ORcpt = v
	return nil
}

// atom is RFC 5322 section 3.2.3.
func atom(s string) bool {
	for i := 0; i < len(s); i++ {
		c := s[i]
		letter := lower(c) >= 'a' && lower(c) <= 'z' || c >= '0' && c <= '9'
		if !letter && (c <= ' ' || c >= 0x7f || strings.IndexByte("!#$%&'*+-/=?^_`{|}~", c) < 0) {
			return false
		}
	}
	return s != ""
}
