// Package printer writes a configuration in the canonical form of the modern
// grammar: one order of statements, one way to write each, `from` and `for`
// spelled out, every comment on its statement. What it writes reads back as the
// same configuration, and printing that gives the same text.
package printer

import (
	"fmt"
	"strings"
	"time"

	"opensmtpd/src/conf"
)

// Print returns cfg as text. It is an error when a value cannot be written in
// the grammar, which has no way to put a line end or a NUL into a string.
func Print(cfg *conf.Config) (string, error) {
	p := &printer{cfg: cfg, tables: make(map[string]*conf.Table), filters: make(map[string]*conf.Filter)}
	for _, t := range cfg.Tables {
		p.tables[t.Name] = t
	}
	for _, f := range cfg.Filters {
		p.filters[f.Name] = f
	}
	p.macros()
	p.declared()
	p.server()
	p.pkis()
	p.programs()
	p.listens()
	p.actions()
	p.matches()
	if len(cfg.Trailer) > 0 {
		p.gap()
	}
	for _, c := range cfg.Trailer {
		p.b.WriteString(c + "\n")
	}
	return p.b.String(), p.err
}

type printer struct {
	cfg     *conf.Config
	tables  map[string]*conf.Table
	filters map[string]*conf.Filter
	b       strings.Builder
	open    bool // something was written since the last gap
	err     error
}

// gap separates groups of statements by an empty line.
func (p *printer) gap() {
	if p.open && !strings.HasSuffix(p.b.String(), "\n\n") {
		p.b.WriteByte('\n')
	}
	p.open = false
}

// stmt writes a statement with its comments.
func (p *printer) stmt(n *conf.Node, words ...string) {
	for _, c := range n.Doc {
		p.b.WriteString(c + "\n")
	}
	for i, w := range words {
		if i > 0 {
			p.b.WriteByte(' ')
		}
		p.b.WriteString(w)
	}
	if n.Comment != "" {
		p.b.WriteString(" " + n.Comment)
	}
	p.b.WriteByte('\n')
	p.open = true
}

// word writes a string bare when the grammar allows, else in quotes.
func (p *printer) word(s string) string {
	if bare(s) {
		return s
	}
	q, ok := quote(s)
	if !ok && p.err == nil {
		p.err = fmt.Errorf("%q cannot be written in smtpd.conf", s)
	}
	return q
}

// bare tells whether s reads back as itself without quotes. It is stricter than
// the lexer: a reader should not have to know that $ or ; mean nothing inside a
// word.
func bare(s string) bool {
	if s == "" || conf.Reserved(s) {
		return false
	}
	for i := range len(s) {
		c := s[i]
		alnum := '0' <= c && c <= '9' || 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z'
		if !alnum && c != '_' && c != ':' && (i == 0 || !strings.ContainsRune("./@+-*%~", rune(c))) {
			return false
		}
	}
	digits := strings.TrimLeft(s, "0123456789")
	return digits == s || digits != "" && digits[0] != '/'
}

// quote writes s between double quotes.
func quote(s string) (string, bool) {
	var b strings.Builder
	b.WriteByte('"')
	for i := range len(s) {
		switch c := s[i]; {
		case c == '"', (c == ' ' || c == '\t') && i > 0 && s[i-1] == '\\':
			b.WriteByte('\\')
			b.WriteByte(c)
		case c == '\n' || c == 0:
			return `""`, false
		default:
			b.WriteByte(c)
		}
	}
	b.WriteByte('"')
	if strings.HasSuffix(s, `\`) {
		return escaped(s)
	}
	return b.String(), true
}

// escaped writes a string that ends in a backslash, which no quotes can hold, as
// a word with every backslash doubled. Digits before a slash are a number.
func escaped(s string) (string, bool) {
	if rest := strings.TrimLeft(s, "0123456789"); rest != s && rest[0] == '/' {
		return `""`, false
	}
	for i := range len(s) {
		c := s[i]
		alnum := '0' <= c && c <= '9' || 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || c == '_' || c == ':'
		if !alnum && (i == 0 || c <= ' ' || c >= 0x7f || strings.ContainsRune("(){}<>!=#,", rune(c))) {
			return `""`, false
		}
	}
	return strings.ReplaceAll(s, `\`, `\\`), true
}

// maxLine is the width beyond which a table is written one entry a line.
const maxLine = 78

func (p *printer) macros() {
	for _, m := range p.cfg.Macros {
		q, ok := quote(m.Value)
		if !ok && p.err == nil {
			p.err = fmt.Errorf("%q cannot be written in smtpd.conf", m.Value)
		}
		name := m.Name
		if conf.Reserved(name) { // it was no keyword where it comes from
			name = `"` + name + `"`
		}
		p.stmt(&m.Node, name+" = "+q)
	}
	p.gap()
}

func (p *printer) declared() {
	for _, t := range p.cfg.Tables {
		switch {
		case t.Inline:
		case t.Backend == "static":
			name := p.word(t.Name)
			body := p.braces(t)
			if len("table ")+len(name)+len(body) > maxLine {
				body = strings.ReplaceAll(p.lines(t), "\n", "\n\t")
				body = strings.TrimSuffix(body, "\t}") + "}"
			}
			p.stmt(&t.Node, "table", name, body)
		case t.Config == "":
			p.stmt(&t.Node, "table", p.word(t.Name), p.word(t.Backend))
		default:
			p.stmt(&t.Node, "table", p.word(t.Name), p.word(t.Backend+":"+t.Config))
		}
	}
	p.gap()
}

func (p *printer) elements(t *conf.Table) []string {
	out := make([]string, len(t.Entries))
	for i, e := range t.Entries {
		out[i] = p.word(e.Key)
		if t.Kind == conf.Map {
			out[i] += " = " + p.word(e.Value)
		}
	}
	return out
}

func (p *printer) braces(t *conf.Table) string {
	return "{ " + strings.Join(p.elements(t), ", ") + " }"
}

func (p *printer) lines(t *conf.Table) string {
	return "{\n" + strings.Join(p.elements(t), ",\n") + "\n}"
}

// ref writes T: a string, { … } or <table>.
func (p *printer) ref(r conf.TableRef) string {
	t := p.tables[string(r)]
	switch {
	case t == nil || !t.Inline:
		return "<" + p.word(string(r)) + ">"
	case t.Kind == conf.List && len(t.Entries) == 1:
		return p.word(t.Entries[0].Key)
	}
	return p.braces(t)
}

func (p *printer) server() {
	s := &p.cfg.Server
	p.text(&s.ADMD, "admd")
	if n := &s.BounceWarn; !n.Pos.IsZero() {
		p.stmt(&n.Node, "bounce warn-interval", delays(n.Value))
	}
	if n := &s.QueueCompression; !n.Pos.IsZero() && n.Value {
		p.stmt(&n.Node, "queue compression")
	}
	switch n := &s.QueueEncryption; {
	case n.Pos.IsZero():
	case n.Value == "":
		p.stmt(&n.Node, "queue encryption")
	default:
		p.stmt(&n.Node, "queue encryption", p.word(n.Value))
	}
	p.delay(&s.QueueTTL, "queue ttl")
	p.text(&s.SMTPCiphers, "smtp ciphers")
	p.limits(s.SMTPLimits, "smtp limit")
	if n := &s.MaxMessageSize; !n.Pos.IsZero() {
		p.stmt(&n.Node, "smtp max-message-size", conf.FormatSize(n.Value))
	}
	p.text(&s.SubAddrDelim, "smtp sub-addr-delim")
	p.limits(s.MDALimits, "mda limit")
	for _, w := range s.Wrappers {
		p.stmt(&w.Node, "mda wrapper", p.word(w.Name), p.word(w.Command))
	}
	p.mtaLimits(s.MTALimits)
	if n := &s.MTAMaxDeferred; !n.Pos.IsZero() {
		p.stmt(&n.Node, fmt.Sprint("mta max-deferred ", n.Value))
	}
	p.limits(s.SchedulerLimits, "scheduler limit")
	p.text(&s.SRSKey, "srs key")
	p.text(&s.SRSKeyBackup, "srs key backup")
	p.delay(&s.SRSTTL, "srs ttl")
	p.gap()
}

func (p *printer) text(t *conf.Text, words string) {
	if !t.Pos.IsZero() {
		p.stmt(&t.Node, words, p.word(t.Value))
	}
}

func (p *printer) delay(d *conf.Duration, words string) {
	if !d.Pos.IsZero() {
		p.stmt(&d.Node, words, conf.FormatDelay(d.Value))
	}
}

func delays(list []time.Duration) string {
	out := make([]string, len(list))
	for i, d := range list {
		out[i] = conf.FormatDelay(d)
	}
	return strings.Join(out, ", ")
}

func (p *printer) limits(list []*conf.Limit, words string) {
	for _, l := range list {
		if !l.Pos.IsZero() {
			p.stmt(&l.Node, words, fmt.Sprint(l.Key, " ", l.Value))
		}
	}
}

func (p *printer) mtaLimits(list []*conf.MTALimit) {
	for _, l := range list {
		if l.Pos.IsZero() {
			continue
		}
		words := []string{"mta limit"}
		if l.Domain != "" {
			words = append(words, "for domain", p.word(l.Domain))
		}
		words = append(words, l.Key)
		if l.Key != "inet4" && l.Key != "inet6" {
			words = append(words, fmt.Sprint(l.Value))
		}
		p.stmt(&l.Node, words...)
	}
}
