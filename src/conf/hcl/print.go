package hcl

import (
	"encoding/hex"
	"fmt"
	"strings"
	"unicode/utf8"

	"github.com/zclconf/go-cty/cty"

	"opensmtpd/src/conf"
)

// Print returns cfg as HCL in canonical form: one order of statements, one way
// to write each, from and for spelled out, every comment on its statement. What
// it writes reads back as the same configuration, and printing that gives the
// same text. It is an error when a name cannot be written: names are UTF-8.
func Print(cfg *conf.Config) (string, error) {
	w := &writer{cfg: cfg, tables: make(map[string]*conf.Table), filters: make(map[string]*conf.Filter)}
	for _, t := range cfg.Tables {
		w.tables[t.Name] = t
	}
	for _, f := range cfg.Filters {
		w.filters[f.Name] = f
	}
	w.macros()
	w.declared()
	w.server()
	w.pkis()
	w.programs()
	w.listens()
	w.actions()
	w.matches()
	w.gap()
	w.above(cfg.Trailer)
	return w.text(), w.err
}

type writer struct {
	cfg     *conf.Config
	tables  map[string]*conf.Table
	filters map[string]*conf.Filter
	out     []outLine
	block   bool // the last statement took more than one line
	err     error
}

// outLine is a line of output; key is what stands before the equals sign of an
// attribute that fits on a line.
type outLine struct {
	depth     int
	key, text string
}

// part is an attribute, or a block inside a block.
type part struct {
	key, value string // value may have several lines
	node       *conf.Node
	head       string // of a block; no key then
	body       []part
}

// maxLine is the width beyond which lists and one-line blocks are spread out.
const maxLine = 78

// text returns what was written, indented, the equals signs of neighbours below
// one another.
func (w *writer) text() string {
	var b strings.Builder
	lines := w.out
	for len(lines) > 0 && lines[len(lines)-1] == (outLine{}) {
		lines = lines[:len(lines)-1]
	}
	width := 0
	for i, l := range lines {
		if i == 0 || l.key == "" || lines[i-1].key == "" || lines[i-1].depth != l.depth {
			width = 0
			for _, next := range lines[i:] {
				if next.key == "" || next.depth != l.depth {
					break
				}
				width = max(width, utf8.RuneCountInString(next.key))
			}
		}
		if l != (outLine{}) {
			b.WriteString(strings.Repeat("  ", l.depth))
		}
		if l.key != "" {
			b.WriteString(l.key + strings.Repeat(" ", width-utf8.RuneCountInString(l.key)) + " = ")
		}
		b.WriteString(l.text + "\n")
	}
	return b.String()
}

func (w *writer) line(depth int, text string) {
	w.out = append(w.out, outLine{depth: depth, text: text})
}

// gap separates statements by an empty line.
func (w *writer) gap() {
	if n := len(w.out); n > 0 && w.out[n-1] != (outLine{}) {
		w.out = append(w.out, outLine{})
	}
	w.block = false
}

// comment1 makes sure that a comment is one line of valid text.
func comment1(c string) string { return strings.ToValidUTF8(strings.ReplaceAll(c, "\r", " "), "?") }

// above writes comments.
func (w *writer) above(doc []string) { w.aboveAt(0, doc) }

func (w *writer) aboveAt(depth int, doc []string) {
	for _, c := range doc {
		w.line(depth, comment1(c))
	}
}

func end(n *conf.Node) string {
	if n == nil || n.Comment == "" {
		return ""
	}
	return " " + comment1(n.Comment)
}

// stmt writes a block with its comments. A body of one short line goes on the
// line of the head.
func (w *writer) stmt(n *conf.Node, head string, body ...part) {
	short := len(body) == 0
	if len(body) == 1 && body[0].key != "" {
		b := body[0]
		short = !strings.Contains(b.value, "\n") && len(head)+len(b.key)+len(b.value)+9 <= maxLine
	}
	if !short || w.block || len(n.Doc) > 0 {
		w.gap()
	}
	w.above(n.Doc)
	switch {
	case len(body) == 0:
		w.line(0, head+" {}"+end(n))
	case short:
		w.line(0, head+" { "+body[0].key+" = "+body[0].value+" }"+end(n))
	default:
		w.line(0, head+" {"+end(n))
		w.body(1, body)
		w.line(0, "}")
		w.block = true
	}
}

// body writes what is inside a block.
func (w *writer) body(depth int, parts []part) {
	for _, p := range parts {
		if p.node != nil {
			w.aboveAt(depth, p.node.Doc)
		}
		switch {
		case p.key == "" && len(p.body) == 0:
			w.line(depth, p.head+" {}")
		case p.key == "":
			w.line(depth, p.head+" {")
			w.body(depth+1, p.body)
			w.line(depth, "}")
		default:
			w.attribute(depth, p)
		}
	}
}

// attribute writes a value, the inner lines of a long one further in.
func (w *writer) attribute(depth int, p part) {
	lines := strings.Split(p.value, "\n")
	if len(lines) == 1 {
		w.out = append(w.out, outLine{depth, p.key, p.value + end(p.node)})
		return
	}
	w.line(depth, p.key+" = "+lines[0])
	for _, l := range lines[1 : len(lines)-1] {
		key, text, pair := strings.Cut(l, pairMark)
		if !pair {
			key, text = "", l
		}
		w.out = append(w.out, outLine{depth + 1, key, text})
	}
	w.line(depth, lines[len(lines)-1]+end(p.node))
}

// pairMark stands for the equals sign of a mapping in the lines of a value.
const pairMark = "\x00"

// named returns the head of a block with a name.
func (w *writer) named(word, name string) string {
	if !utf8.ValidString(name) && w.err == nil {
		w.err = fmt.Errorf("the name %q cannot be written in HCL, it is not UTF-8", name)
	}
	return word + " " + quote(name)
}

// ref returns the reference to a thing.
func (w *writer) ref(kind, name string) string { return reference(kind, name) }

// str returns a string as an expression.
func str(s string) string {
	if !utf8.ValidString(s) || cty.NormalizeString(s) != s {
		return "bytes(\"" + hex.EncodeToString([]byte(s)) + "\")"
	}
	return quote(s)
}

// quote writes s between quotes, nothing of it a template.
func quote(s string) string {
	var b strings.Builder
	b.WriteByte('"')
	for i, r := range s {
		switch {
		case r == '"' || r == '\\':
			b.WriteByte('\\')
			b.WriteRune(r)
		case r == '\r':
			b.WriteString(`\r`)
		case r == '\t':
			b.WriteString(`\t`)
		case r < ' ' || r == 0x7f || r == 0xfeff || r == 0x2028 || r == 0x2029 || r == 0x85:
			fmt.Fprintf(&b, `\u%04x`, r)
		case (r == '$' || r == '%') && strings.HasPrefix(s[i+1:], "{"):
			b.WriteRune(r)
			b.WriteRune(r)
		default:
			b.WriteRune(r)
		}
	}
	b.WriteByte('"')
	return b.String()
}

// macros writes the macros that HCL can name as locals.
func (w *writer) macros() {
	if len(w.cfg.Macros) == 0 {
		return
	}
	body := make([]part, len(w.cfg.Macros))
	for i, m := range w.cfg.Macros {
		body[i] = part{key: localName(m.Name), value: str(m.Value), node: &m.Node}
	}
	w.line(0, "locals {")
	w.body(1, body)
	w.line(0, "}")
	w.gap()
}

// localName returns the name of a macro as HCL can have it, which does not begin
// with a digit: such a name, and one that looks like what is made of it, gets
// another underscore.
func localName(name string) string {
	if beforeDigit(name) {
		return "_" + name
	}
	return name
}

// macroName is the way back.
func macroName(local string) string {
	if local[0] == '_' && beforeDigit(local) {
		return local[1:]
	}
	return local
}

// beforeDigit tells whether name begins with a digit, but for underscores.
func beforeDigit(name string) bool {
	rest := strings.TrimLeft(name, "_")
	return rest != "" && rest[0] >= '0' && rest[0] <= '9'
}

func (w *writer) declared() {
	for _, t := range w.cfg.Tables {
		if t.Inline {
			continue
		}
		body := part{}
		switch {
		case t.Backend == "static" && t.Kind == conf.Map:
			body = part{key: "map", value: pairs(t.Entries, 30)}
		case t.Backend == "static":
			body = part{key: "list", value: values(t.Entries, 30)}
		case t.Config == "":
			body = part{key: "source", value: str(t.Backend)}
		default:
			body = part{key: "source", value: str(t.Backend + ":" + t.Config)}
		}
		w.stmt(&t.Node, w.named("table", t.Name), body)
	}
	w.gap()
}

// values writes a list; taken is what else is on the line.
func values(entries []conf.Entry, taken int) string {
	out := make([]string, len(entries))
	for i, e := range entries {
		out[i] = str(e.Key)
	}
	return list(out, taken)
}

// list writes a list on one line if it fits.
func list(out []string, taken int) string {
	s := "[" + strings.Join(out, ", ") + "]"
	if len(s)+taken <= maxLine {
		return s
	}
	return "[\n" + strings.Join(out, ",\n") + ",\n]"
}

// pairs writes a mapping, one pair a line unless there is but one.
func pairs(entries []conf.Entry, taken int) string {
	out := make([]string, len(entries))
	for i, e := range entries {
		key := str(e.Key)
		if strings.HasPrefix(key, "bytes(") {
			key = "(" + key + ")"
		}
		out[i] = key + pairMark + str(e.Value)
	}
	if len(out) == 1 && len(out[0])+taken+6 <= maxLine {
		return "{ " + strings.Replace(out[0], pairMark, " = ", 1) + " }"
	}
	return "{\n" + strings.Join(out, "\n") + "\n}"
}

// table writes T.
func (w *writer) table(r conf.TableRef) string {
	t := w.tables[string(r)]
	switch {
	case t == nil || !t.Inline:
		return w.ref("table", string(r))
	case t.Kind == conf.Map:
		return pairs(t.Entries, 20)
	case len(t.Entries) == 1:
		return str(t.Entries[0].Key)
	}
	return values(t.Entries, 20)
}

// pattern writes regex(T) or T.
func (w *writer) pattern(regex bool, r conf.TableRef) string {
	switch {
	case r == "":
		return ""
	case regex:
		return "regex(" + w.table(r) + ")"
	}
	return w.table(r)
}

// cond writes a condition.
func (w *writer) cond(not, regex bool, r conf.TableRef) string {
	switch {
	case r == "" && not:
		return "false"
	case r == "":
		return "true"
	case not:
		return "not(" + w.pattern(regex, r) + ")"
	}
	return w.pattern(regex, r)
}
