package hcl

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"

	hcl2 "github.com/hashicorp/hcl/v2"
	"github.com/hashicorp/hcl/v2/hclsyntax"

	"opensmtpd/src/conf"
	"opensmtpd/src/conf/diag"
)

// fail reports an error of the statement at hand; reading goes on.
func (p *parser) fail(r hcl2.Range, hint, format string, args ...any) {
	p.bad = true
	p.diags.Add(diag.Diag{Severity: diag.Error, Pos: p.pos(r), Message: fmt.Sprintf(format, args...), Hint: hint})
}

// node returns a node that begins at r.
func (p *parser) node(r hcl2.Range) conf.Node { return conf.Node{Pos: p.pos(r)} }

// mark notes the place of a part.
func (p *parser) mark(n *conf.Node, word string, r hcl2.Range) {
	if n.At == nil {
		n.At = make(map[string]conf.Pos)
	}
	if _, ok := n.At[word]; !ok {
		n.At[word] = p.pos(r)
	}
}

// syntax reports what the library found.
func (p *parser) syntax(diags hcl2.Diagnostics) {
	for _, d := range diags {
		if d.Severity != hcl2.DiagError || d.Subject == nil {
			continue
		}
		msg, hint := p.reword(d)
		p.fail(*d.Subject, hint, "%s", msg)
	}
}

// reword gives a finding of the library the form of ours: one sentence without a
// full stop, what can be done as the hint.
func (p *parser) reword(d *hcl2.Diagnostic) (msg, hint string) {
	switch d.Summary {
	case openString:
		return "the string is not closed in its line", ""
	case "Invalid template control keyword":
		return fmt.Sprintf("%q begins a directive of HCL's templates, which %q is not", "%{", p.sourceText(*d.Subject)),
			"in a string that is for smtpd write %%{ instead of %{"
	case "Invalid single-argument block definition":
		return "a block on one line has one setting", "put each setting on a line of its own, without commas, and } on another"
	case "Argument definition required":
		return "a block on one line has one setting, and no block", "put what is inside on lines of its own"
	case "Missing item separator":
		return "expected a comma before the next value", ""
	case "Call to unknown function":
		if fc, ok := d.Expression.(*hclsyntax.FunctionCallExpr); ok {
			return p.unknownFunction(fc.Name)
		}
	}
	detail, rest := sentence(d.Detail)
	switch {
	case detail == "":
		return lowerFirst(d.Summary), ""
	case strings.HasPrefix(rest, "Did you mean"):
		rest = lowerFirst(rest)
	}
	return lowerFirst(d.Summary) + ": " + lowerFirst(detail), lowerFirst(strings.TrimSuffix(rest, "."))
}

// openString is what the library calls a string that is not closed.
const openString = "Invalid multi-line string"

// conditionFunctions can stand in conditions alone.
var conditionFunctions = []string{"auth", "domain", "mail-from", "not", "rcpt-to", "rdns", "regex", "src"}

func (p *parser) unknownFunction(name string) (msg, hint string) {
	if slices.Contains(conditionFunctions, name) {
		return fmt.Sprintf("%s() is not possible here", name), "it belongs at the beginning of a condition of match or filter"
	}
	names := slices.Clone(conditionFunctions)
	for n := range p.functions {
		names = append(names, n)
	}
	if near := diag.Near(name, names); near != "" {
		hint = "did you mean " + near + "()?"
	}
	return fmt.Sprintf("no function with that name: %s", name), hint
}

// sourceText returns the text of a range.
func (p *parser) sourceText(r hcl2.Range) string {
	s := p.sources[r.Filename]
	if s == nil || r.End.Byte > len(s.text) || r.Start.Byte > r.End.Byte {
		return ""
	}
	return s.text[r.Start.Byte:r.End.Byte]
}

// sentence splits the first sentence, without its full stop, from the rest.
func sentence(s string) (first, rest string) {
	s = strings.ReplaceAll(s, "\n", " ")
	first, rest, _ = strings.Cut(s, ". ")
	return strings.TrimSuffix(first, "."), strings.TrimSpace(rest)
}

func lowerFirst(s string) string {
	r, n := utf8.DecodeRuneInString(s)
	next, _ := utf8.DecodeRuneInString(s[n:])
	if n == 0 || unicode.IsUpper(next) {
		return s
	}
	return string(unicode.ToLower(r)) + s[n:]
}

// near returns a hint for a word that is not in the list.
func near(word string, words []string) string {
	if n := diag.Near(word, words); n != "" {
		return "did you mean " + strconv.Quote(n) + "?"
	}
	return ""
}

// unknownBlock reports a block that is none.
func (p *parser) unknownBlock(b *hclsyntax.Block) {
	if b.Type == "admd" {
		p.fail(b.TypeRange, `write it as admd = "…"`, "admd is no block")
		return
	}
	p.fail(b.TypeRange, near(b.Type, statementWords()), "unknown block %q", b.Type)
}

// attribute reads a top-level attribute.
func (p *parser) attribute(a *hclsyntax.Attribute) {
	switch row := blockOf(a.Name); {
	case a.Name == "admd":
		p.admd(a)
	case row != nil && row.label:
		p.fail(a.NameRange, fmt.Sprintf("write it as %s %q { … }", a.Name, row.labelled), "%s is a block", a.Name)
	case row != nil:
		p.fail(a.NameRange, "write it as "+a.Name+" { … }", "%s is a block", a.Name)
	default:
		hint := near(a.Name, statementWords())
		if hint == "" {
			hint = "a value with a name of its own goes into locals { " + a.Name + " = … }"
		}
		p.fail(a.NameRange, hint, "unknown setting %q", a.Name)
	}
}

// hints are those of the meaning pass that show how smtpd.conf is written, and
// how it is written here. The map is never written.
var hints = map[string]string{
	"add tls, tls-require or smtps, and pki NAME":  `add tls = "offer", "require" or "smtps", and pki = pki["NAME"]`,
	"add tls, tls-require or smtps":                `add tls = "offer", "require" or "smtps"`,
	"add pki NAME":                                 `add pki = pki["NAME"]`,
	"add auth <table>":                             "add auth = table.NAME",
	"add srs key SECRET":                           `add srs { key = "SECRET" }`,
	"add listen on socket filter …":                "add socket { filter = … }",
	"entries of a mapping are written key = value": `a mapping is written { "key" = "value" }`,
}

// Hint puts a hint of the meaning pass into the words of HCL.
func Hint(hint string) string {
	if here, ok := hints[hint]; ok {
		return here
	}
	if name, ok := strings.CutPrefix(hint, "the table is <"); ok {
		return "the table is " + reference("table", strings.TrimSuffix(name, ">"))
	}
	return hint
}
