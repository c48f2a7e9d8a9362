// Package hcl reads and writes the configuration in HCL, see smtpd.hcl(5). It is
// the second front end beside those of smtpd.conf and fills the same model: words
// are those of smtpd.conf, names are references, and the order of statements
// means nothing but among rules.
//
// The schema; T is a string, a list, a mapping or table.NAME, C is a condition:
// T, regex(T), not(…), true or false; F is filter.NAME or a list of them:
//
//	include "FILE" {}
//	locals { NAME = VALUE … }
//	admd = STRING
//	bounce    { warn-interval = [DELAY …] }
//	queue     { compression = BOOL, encryption = true | STRING, ttl = DELAY }
//	smtp      { ciphers, max-message-size, sub-addr-delim, limit { KEY = NUMBER … } }
//	mda       { limit { KEY = NUMBER … } }
//	mta       { max-deferred = NUMBER, limit ["DOMAIN"] { KEY = NUMBER …, family = "inet4" | "inet6" } }
//	scheduler { limit { KEY = NUMBER … } }
//	srs       { key, key-backup, ttl }
//	table   "NAME" { source = "TYPE:PATH" | list = […] | map = {…} }
//	pki     "NAME" { cert, key, dhe }
//	ca      "NAME" { cert }
//	wrapper "NAME" { command }
//	proc    "NAME" { command, user, group, chroot }
//	filter  "NAME" { chain = F | proc = proc.NAME | proc-exec, user, group, chroot
//	                 | phase, one condition, one decision }
//	listen  "WHERE" { options of listen on }
//	socket  { options of listen on socket }
//	action  "NAME" { mbox | maildir | mda | lmtp | expand-only | forward-only | relay { options } }
//	match   { from, for, tag, helo, tls, auth, mail-from, rcpt-to = C, action = action.NAME | reject = true }
package hcl

import (
	"reflect"
	"slices"
	"strings"

	"github.com/hashicorp/hcl/v2/hclsyntax"
	"github.com/zclconf/go-cty/cty"

	"opensmtpd/src/conf"
	"opensmtpd/src/conf/diag"
)

// Path tells whether the file that -f names is HCL, by its suffix ".hcl" or by
// the prefix "hcl:", and returns its name without the prefix.
func Path(name string) (string, bool) {
	if path, ok := strings.CutPrefix(name, "hcl:"); ok {
		return path, true
	}
	return name, strings.HasSuffix(name, ".hcl")
}

// Opener returns the contents of a file named on the command line or included.
type Opener func(name string) ([]byte, error)

// Parse reads the named file, and what it includes, through open. defines are
// the values of -D: each takes the place of the local of that name. The
// configuration is returned even when the list has errors, so that one run can
// find the rest of them.
func Parse(open Opener, name string, defines map[string]string) (*conf.Config, *diag.List) {
	p := &parser{
		open: open, diags: new(diag.List), cfg: &conf.Config{AnyOrder: true},
		sources: make(map[string]*source), names: make(map[string]map[string]bool),
		locals:  make(map[string]*local),
		refType: cty.Capsule("reference", reflect.TypeFor[ref]()),
		rawType: cty.Capsule("bytes", reflect.TypeFor[string]()),
	}
	p.functions = p.functionTable()
	main := p.read(name, nil)
	p.declare(defines)
	for _, it := range p.items {
		p.statement(it)
	}
	p.comments(main)
	p.cfg.Trailer = p.pending
	p.unused()
	conf.NameInline(p.cfg)
	return p.cfg, p.diags
}

// statement reads one top-level attribute or block.
func (p *parser) statement(it item) {
	p.src = it.src
	p.bad, p.broken = it.broken, it.broken
	if it.attr != nil {
		p.attribute(it.attr)
		return
	}
	b := it.block
	row := blockOf(b.Type)
	labels := row != nil && (row.label && len(b.Labels) != 1 || !row.label && len(b.Labels) > 0)
	switch {
	case row == nil:
		p.unknownBlock(b)
	case labels && p.broken: // which may be why
	case labels && row.label:
		p.fail(b.TypeRange, "write it as "+b.Type+` "`+row.labelled+`" { … }`, "%s needs one %s", b.Type, row.labelled)
	case labels:
		p.fail(b.LabelRanges[0], "write it as "+b.Type+" { … }", "%s has no name", b.Type)
	default:
		row.read(p, b)
	}
}

// A blockRow is a kind of top-level block.
type blockRow struct {
	word     string
	label    bool   // has exactly one label
	labelled string // what the label is
	read     func(*parser, *hclsyntax.Block)
}

// blockOf returns the row of a word, or nil.
func blockOf(word string) *blockRow {
	rows := blockRows()
	i := slices.IndexFunc(rows, func(r blockRow) bool { return r.word == word })
	if i < 0 {
		return nil
	}
	return &rows[i]
}

// blockRows lists the top-level blocks in the order of the manual.
func blockRows() []blockRow {
	const name = "NAME"
	return []blockRow{
		{word: "include", label: true, labelled: "FILE", read: (*parser).include},
		{word: "locals", read: func(*parser, *hclsyntax.Block) {}}, // read by declare
		{word: "bounce", read: (*parser).bounce},
		{word: "queue", read: (*parser).queue},
		{word: "smtp", read: (*parser).smtp},
		{word: "mda", read: (*parser).mda},
		{word: "mta", read: (*parser).mta},
		{word: "scheduler", read: (*parser).scheduler},
		{word: "srs", read: (*parser).srs},
		{word: "table", label: true, labelled: name, read: (*parser).table},
		{word: "pki", label: true, labelled: name, read: (*parser).pki},
		{word: "ca", label: true, labelled: name, read: (*parser).ca},
		{word: "wrapper", label: true, labelled: name, read: (*parser).wrapper},
		{word: "proc", label: true, labelled: name, read: (*parser).proc},
		{word: "filter", label: true, labelled: name, read: (*parser).filter},
		{word: "listen", label: true, labelled: "INTERFACE", read: (*parser).listen},
		{word: "socket", read: (*parser).socket},
		{word: "action", label: true, labelled: name, read: (*parser).action},
		{word: "match", read: (*parser).match},
	}
}

// statementWords returns the words that begin a statement.
func statementWords() []string {
	words := []string{"admd"}
	for _, r := range blockRows() {
		words = append(words, r.word)
	}
	return words
}
