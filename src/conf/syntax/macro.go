package syntax

import (
	"slices"
	"strings"

	"opensmtpd/src/conf"
	"opensmtpd/src/conf/lex"
)

// Include reads the file named; its statements stand in place of this one.
func (p *Reader) Include(n conf.Node) *conf.Node {
	pos := p.Tok.Pos
	name := p.Str("the path of a file")
	if p.Bad || p.Tok.Kind != lex.Newline && p.Tok.Kind != lex.EOF {
		return nil
	}
	if !p.Lex.Include(name, pos) {
		p.Bad = true
	}
	return nil
}

// macro reads NAME = "value".
func (p *Reader) macro(n conf.Node) *conf.Node {
	name := p.Tok
	p.Advance()
	if p.Tok.Kind != lex.Punct || p.Tok.Text != "=" {
		p.Unknown(name)
		return nil
	}
	if name.Kind == lex.Word && p.Reserved(name.Text) && !p.ReservedMacros {
		p.Fail(name.Pos, "", "%q is a reserved word and cannot name a macro", name.Text)
		return nil
	}
	p.Advance()
	value := p.Text("a string")
	if p.Bad {
		return nil
	}
	if i := strings.IndexFunc(name.Text, notMacro); i >= 0 || name.Text == "" {
		p.Fail(name.Pos, "a macro's name has letters, digits and underscores", "%q cannot name a macro", name.Text)
		return nil
	}
	m := &conf.Macro{Node: n, Name: name.Text, Value: value}
	p.redefine(m)
	p.Cfg.Macros = append(p.Cfg.Macros, m)
	p.Lex.Define(name.Text, value, name.Pos)
	return &m.Node
}

// redefine drops the definition that m takes the place of: all its uses are
// read, and of one name the model keeps one. Its comments go to m.
func (p *Reader) redefine(m *conf.Macro) {
	i := slices.IndexFunc(p.Cfg.Macros, func(old *conf.Macro) bool { return old.Name == m.Name })
	if i < 0 {
		return
	}
	old := p.Cfg.Macros[i]
	p.Cfg.Macros = slices.Delete(p.Cfg.Macros, i, i+1)
	above := old.Doc
	if old.Comment != "" {
		above = append(above, old.Comment)
	}
	m.Doc = slices.Concat(above, m.Doc)
}

// notMacro tells whether $name would end before r.
func notMacro(r rune) bool {
	return r != '_' && (r < '0' || r > '9') && (r < 'a' || r > 'z') && (r < 'A' || r > 'Z')
}
