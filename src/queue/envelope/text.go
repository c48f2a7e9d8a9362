package envelope

import (
	"fmt"
	"net/netip"
	"strconv"
	"strings"
	"time"

	"opensmtpd/src/mail"
	"opensmtpd/src/mail/addr"
)

// textVersion is the version OpenSMTPD 6.4 to 7.8 write and insist on.
const textVersion = 3

// AppendText adds the text form to b: one "field: value" a line, in OpenSMTPD's
// order, fields without a value left out. The identifier is the name of the
// file, not part of it. It refuses an envelope that fails Check.
func (e *Envelope) AppendText(b []byte) ([]byte, error) {
	if err := e.Check(); err != nil {
		return b, err
	}
	if int(e.Type) >= len(typeWords) || int(e.BounceType) >= len(bounceWords) || int(e.DSNRet) >= len(retWords) {
		return b, &FieldError{"type", "unknown"}
	}
	t := text{b}
	t.number("version", textVersion)
	t.string("dispatcher", e.Action)
	t.string("tag", e.Tag)
	t.string("type", typeWords[e.Type])
	t.string("smtpname", e.SMTPName)
	t.string("helo", e.Helo)
	t.string("hostname", e.Hostname)
	t.string("username", e.Username)
	t.string("errorline", e.ErrorLine)
	t.string("sockaddr", sockaddr(e.Source.Addr()))
	t.address("sender", e.Sender)
	t.address("rcpt", e.Rcpt)
	t.address("dest", e.Dest)
	t.number("ctime", Unix(e.Created))
	t.number("last-try", Unix(e.LastTry))
	t.number("last-bounce", Unix(e.LastBounce))
	t.number("ttl", int64(e.TTL/time.Second))
	t.number("retry", int64(e.Retry))
	t.string("flags", e.Flags.String())
	t.number("dsn-notify", int64(e.DSNNotify))
	t.string("dsn-ret", retWords[e.DSNRet])
	t.string("dsn-envid", e.DSNEnvID)
	t.string("dsn-orcpt", e.DSNORcpt)
	if e.ESCClass != 0 {
		t.number("esc-class", int64(e.ESCClass))
		t.number("esc-code", int64(e.ESCCode))
	}
	switch e.Type {
	case MDA:
		t.string("mda-exec", e.MDAExec)
		t.string("mda-subaddress", e.MDASubaddress)
		t.string("mda-user", e.MDAUser)
	case Bounce:
		if e.BounceType == BounceDelayed {
			t.number("bounce-ttl", int64(e.BounceTTL/time.Second))
			t.number("bounce-delay", int64(e.BounceDelay/time.Second))
		}
		t.string("bounce-type", bounceWords[e.BounceType])
	}
	return t.b, nil
}

var (
	typeWords   = [...]string{MDA: "mda", MTA: "mta", Bounce: "bounce"}
	bounceWords = [...]string{BounceFailed: "failed", BounceDelayed: "delayed", BounceDelivered: "delivered"}
	retWords    = [...]string{ReturnUnset: "", ReturnFull: "FULL", ReturnHeaders: "HDRS"}
)

type text struct{ b []byte }

func (t *text) string(field, value string) {
	if value != "" {
		t.b = append(append(append(append(t.b, field...), ": "...), value...), '\n')
	}
}

func (t *text) number(field string, v int64) {
	t.b = append(append(t.b, field...), ": "...)
	t.b = append(strconv.AppendInt(t.b, v, 10), '\n')
}

func (t *text) address(field string, a addr.Address) {
	t.string(field, a.Local+"@"+a.Domain)
}

func sockaddr(ip netip.Addr) string {
	switch {
	case !ip.IsValid():
		return "local"
	case ip.Is4():
		return ip.String()
	}
	return "[" + ip.String() + "]"
}

// String returns the words of the flags with blanks between.
func (f Flags) String() string {
	var words []string
	for _, w := range flagWords {
		if f&w.flag != 0 {
			words = append(words, w.word)
		}
	}
	return strings.Join(words, " ")
}

var flagWords = [...]struct {
	word string
	flag Flags
}{{"authenticated", Authenticated}, {"bounce", IsBounce}, {"internal", Internal}}

// ParseText reads the text form, the whole of b, of the envelope id. Versions 1
// and 2, which OpenSMTPD wrote until 6.3, are read too: they say how to deliver
// in other words and name no action, so Action is empty. An unknown field, a
// value that does not fit, and a missing version are errors that name the field.
func ParseText(id mail.EnvelopeID, b []byte) (Envelope, error) {
	fields := make(map[string]string, 32)
	for rest := string(b); rest != ""; {
		var line string
		line, rest, _ = strings.Cut(rest, "\n")
		name, value, err := splitLine(line)
		if err != nil {
			return Envelope{}, err
		}
		fields[name] = value
	}
	version, err := number(fields["version"], 64)
	switch {
	case fields["version"] == "":
		return Envelope{}, &FieldError{"version", "missing"}
	case err != nil || version < 1 || version > textVersion:
		return Envelope{}, &FieldError{"version", "not one that can be read: " + fields["version"]}
	}
	e := Envelope{ID: id}
	for name, value := range fields {
		set := readers[name]
		if set == nil && version < textVersion {
			set = oldReaders[name]
		}
		if set == nil {
			return Envelope{}, &FieldError{name, "unknown"}
		}
		if err := set(&e, value); err != nil {
			return Envelope{}, &FieldError{name, err.Error()}
		}
	}
	return e, nil
}

// splitLine takes "name: value" apart; names compare without case. Blanks around
// the colon do not count.
func splitLine(line string) (name, value string, err error) {
	n := 0
	for n < len(line) && (line[n] == '-' || isAlnum(line[n])) {
		n++
	}
	name = line[:n]
	rest := strings.TrimLeft(line[n:], blanks)
	if rest == "" || rest[0] != ':' || !clean(line) {
		return "", "", fmt.Errorf("%w: line %.40q", ErrMalformed, line)
	}
	return strings.ToLower(name), strings.TrimLeft(rest[1:], blanks), nil
}

const blanks = " \t\v\f"

func isAlnum(c byte) bool {
	return c >= '0' && c <= '9' || c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z'
}

type setter func(*Envelope, string) error

// readers are the fields of version 3.
var readers = map[string]setter{
	"version":        func(*Envelope, string) error { return nil },
	"dispatcher":     str(func(e *Envelope) *string { return &e.Action }),
	"tag":            str(func(e *Envelope) *string { return &e.Tag }),
	"type":           word(typeWords[:], func(e *Envelope, i int) { e.Type = Type(i) }),
	"smtpname":       str(func(e *Envelope) *string { return &e.SMTPName }),
	"helo":           str(func(e *Envelope) *string { return &e.Helo }),
	"hostname":       str(func(e *Envelope) *string { return &e.Hostname }),
	"username":       str(func(e *Envelope) *string { return &e.Username }),
	"errorline":      str(func(e *Envelope) *string { return &e.ErrorLine }),
	"sockaddr":       readSockaddr,
	"sender":         address(func(e *Envelope) *addr.Address { return &e.Sender }),
	"rcpt":           address(func(e *Envelope) *addr.Address { return &e.Rcpt }),
	"dest":           address(func(e *Envelope) *addr.Address { return &e.Dest }),
	"ctime":          moment(func(e *Envelope) *time.Time { return &e.Created }),
	"last-try":       moment(func(e *Envelope) *time.Time { return &e.LastTry }),
	"last-bounce":    moment(func(e *Envelope) *time.Time { return &e.LastBounce }),
	"ttl":            span(func(e *Envelope) *time.Duration { return &e.TTL }),
	"retry":          count(0xffff, func(e *Envelope, v int64) { e.Retry = uint16(v) }),
	"flags":          readFlags,
	"dsn-notify":     count(0xff, func(e *Envelope, v int64) { e.DSNNotify = Notify(v) }),
	"dsn-ret":        word(retWords[:], func(e *Envelope, i int) { e.DSNRet = Return(i) }),
	"dsn-envid":      str(func(e *Envelope) *string { return &e.DSNEnvID }),
	"dsn-orcpt":      str(func(e *Envelope) *string { return &e.DSNORcpt }),
	"esc-class":      count(0xff, func(e *Envelope, v int64) { e.ESCClass = uint8(v) }),
	"esc-code":       count(0xff, func(e *Envelope, v int64) { e.ESCCode = uint8(v) }),
	"mda-exec":       str(func(e *Envelope) *string { return &e.MDAExec }),
	"mda-subaddress": str(func(e *Envelope) *string { return &e.MDASubaddress }),
	"mda-user":       str(func(e *Envelope) *string { return &e.MDAUser }),
	"bounce-ttl":     span(func(e *Envelope) *time.Duration { return &e.BounceTTL }),
	"bounce-delay":   span(func(e *Envelope) *time.Duration { return &e.BounceDelay }),
	"bounce-type":    readBounceType,
}

// oldReaders are the fields that only versions 1 and 2 have. Those that spell out
// the rule of their day are skipped: delivery follows today's configuration.
var oldReaders = map[string]setter{
	"expire":              span(func(e *Envelope) *time.Duration { return &e.TTL }),
	"bounce-expire":       span(func(e *Envelope) *time.Duration { return &e.BounceTTL }),
	"mda-delivery-user":   skip,
	"mda-buffer":          skip,
	"mda-method":          skip,
	"mda-usertable":       skip,
	"mta-relay":           skip,
	"mta-relay-auth":      skip,
	"mta-relay-ca":        skip,
	"mta-relay-cert":      skip,
	"mta-relay-flags":     skip,
	"mta-relay-helo":      skip,
	"mta-relay-heloname":  skip,
	"mta-relay-helotable": skip,
	"mta-relay-source":    skip,
	"msgid":               skip,
}

func skip(*Envelope, string) error { return nil }

func str(field func(*Envelope) *string) setter {
	return func(e *Envelope, v string) error {
		*field(e) = v
		return nil
	}
}

func address(field func(*Envelope) *addr.Address) setter {
	return func(e *Envelope, v string) error {
		local, domain := v, ""
		if at := strings.LastIndexByte(v, '@'); at >= 0 {
			local, domain = v[:at], v[at+1:]
		}
		*field(e) = addr.Address{Local: local, Domain: domain}
		return nil
	}
}

func number(v string, limit int64) (int64, error) {
	n, err := strconv.ParseInt(v, 10, 64)
	if err != nil || n < 0 || n > limit {
		return 0, fmt.Errorf("%.40q is not a number from 0 to %d", v, limit)
	}
	return n, nil
}

func count(limit int64, set func(*Envelope, int64)) setter {
	return func(e *Envelope, v string) error {
		n, err := number(v, limit)
		if err == nil {
			set(e, n)
		}
		return err
	}
}

const (
	maxTime = 253402300799 // the end of the year 9999
	maxSpan = 9223372036   // what a time.Duration holds, in seconds
)

func moment(field func(*Envelope) *time.Time) setter {
	return func(e *Envelope, v string) error {
		n, err := number(v, maxTime)
		*field(e) = FromUnix(n)
		return err
	}
}

func span(field func(*Envelope) *time.Duration) setter {
	return func(e *Envelope, v string) error {
		n, err := number(v, maxSpan)
		*field(e) = time.Duration(n) * time.Second
		return err
	}
}

func word(words []string, set func(*Envelope, int)) setter {
	return func(e *Envelope, v string) error {
		for i, w := range words {
			if w != "" && strings.EqualFold(w, v) {
				set(e, i)
				return nil
			}
		}
		return fmt.Errorf("unknown word %.40q", v)
	}
}

func readBounceType(e *Envelope, v string) error {
	switch strings.ToLower(v) { // the words of version 1
	case "error":
		v = "failed"
	case "warn":
		v = "delayed"
	case "dsn":
		v = "delivered"
	}
	return word(bounceWords[:], func(e *Envelope, i int) { e.BounceType = BounceType(i) })(e, v)
}

func readFlags(e *Envelope, v string) error {
next:
	for _, f := range strings.FieldsFunc(v, func(r rune) bool { return r == ' ' || r == ',' || r == '|' }) {
		if strings.EqualFold(f, "enqueued") { // says what sockaddr says
			continue
		}
		for _, w := range flagWords {
			if strings.EqualFold(f, w.word) {
				e.Flags |= w.flag
				continue next
			}
		}
		return fmt.Errorf("unknown flag %.40q", f)
	}
	return nil
}

func readSockaddr(e *Envelope, v string) error {
	if v == "local" {
		return nil
	}
	s, scoped := v, false
	if len(v) > 1 && v[0] == '[' && v[len(v)-1] == ']' {
		s, scoped = v[1:len(v)-1], true
	}
	if old, ok := cutPrefixFold(v, "IPv6:"); ok { // until 6.3
		s, scoped = old, true
	}
	ip, err := netip.ParseAddr(s)
	if err != nil || ip.Is4() == scoped || len(ip.Zone()) > maxZone {
		return fmt.Errorf("%.80q is not an address", v)
	}
	e.Source = netip.AddrPortFrom(ip, 0)
	return nil
}

func cutPrefixFold(s, prefix string) (string, bool) {
	if len(s) < len(prefix) || !strings.EqualFold(s[:len(prefix)], prefix) {
		return s, false
	}
	return s[len(prefix):], true
}

// CleanLine returns s fit for a field: CR, LF and NUL become \xNN, and what
// exceeds the 2,047 bytes that OpenSMTPD can read back is cut.
func CleanLine(s string) string {
	const limit = 2047
	if !clean(s) {
		s = strings.NewReplacer("\r", `\x0d`, "\n", `\x0a`, "\x00", `\x00`).Replace(s)
	}
	if len(s) > limit {
		s = s[:limit-3] + "..."
	}
	return s
}

// limits are the longest values that OpenSMTPD on Linux reads back.
var limits = map[string]int{
	"dispatcher": 64, "tag": 32, "smtpname": 64, "helo": 64, "hostname": 64, "username": 255,
	"sender": 255, "rcpt": 255, "dest": 255, "mda-exec": 2047, "mda-user": 255, "mda-subaddress": 255,
	"dsn-envid": 100, "dsn-orcpt": 500, "errorline": 2047,
}

// Portable reports the first field that OpenSMTPD in C could not read back from
// the text form, nil when it can read all.
func (e *Envelope) Portable() error {
	for i, s := range e.strings() {
		if name := stringNames[i]; len(*s) > limits[name] {
			return &FieldError{name, fmt.Sprintf("%d bytes, OpenSMTPD reads %d", len(*s), limits[name])}
		}
	}
	if e.Helo == "" || e.Hostname == "" {
		return &FieldError{"hostname", "empty"}
	}
	return nil
}
