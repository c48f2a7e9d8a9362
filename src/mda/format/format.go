// Package format expands the format specifiers of smtpd.conf(5):
//
//	template  = [ "~/" ] *( text / "%%" / "%{" token "}" )
//	token     = name [ "[" ( n / [ n ] ":" [ n ] ) "]" ] [ ":" modifier *( "|" modifier ) ]
//	name      = "sender" / "rcpt" / "dest" , each also with ".user" and ".domain"
//	          / "user.username" / "user.directory" / "mbox.from" / "mda"
//	modifier  = "lowercase" / "uppercase" / "strip" / "raw"
//
// Names and modifiers are case-insensitive. What is in brackets counts bytes
// from 0, from the end when negative; the second number is the last byte taken,
// and when negative the first byte left out: of "example.org", [0:6] and [0:-4]
// both are "example".
//
// A stranger chooses the sender and most of the recipient, so their values are
// sanitised, and no value becomes part of a shell's program: see Command.
package format

import (
	"errors"
	"fmt"
	"strconv"
	"strings"

	"opensmtpd/src/mail/addr"
)

// Values is what specifiers stand for in one delivery.
type Values struct {
	Sender, Rcpt, Dest addr.Address
	Name, Home         string // of the user
	Extension          string // sub-address of the recipient
	Delim              string // sub-address delimiter, for strip; empty: "+"
}

// ErrRange tells that a bracket takes nothing from a value that is not empty.
var ErrRange = errors.New("range lies outside the value")

// part is a piece of a template: a text, or a token.
type part struct {
	text string
	tok  *token
}

type token struct {
	name     string
	ranged   bool
	single   bool // [n]
	from, to *int // nil: left out
	mods     []string
	variable string // as the template has it, if it is one of the environment
}

// names lists the tokens; the value tells whether it is sanitised.
var names = map[string]bool{
	"sender": true, "sender.user": true, "sender.domain": true,
	"rcpt": true, "rcpt.user": true, "rcpt.domain": true,
	"dest": true, "dest.user": true, "dest.domain": true,
	"user.username": true, "user.directory": false, "mbox.from": true, "mda": false,
}

// Check reports what is wrong with a template; wrapper allows %{mda}.
func Check(template string, wrapper bool) error {
	parts, err := parse(template)
	if err != nil {
		return err
	}
	for _, p := range parts {
		if p.tok != nil && p.tok.name == "mda" && !wrapper {
			return errors.New("%{mda} is only for wrappers")
		}
	}
	return nil
}

// parse splits a template.
func parse(s string) ([]part, error) {
	var parts []part
	var text strings.Builder
	if strings.HasPrefix(s, "~/") {
		parts = append(parts, part{tok: &token{name: "user.directory"}})
		s = s[1:]
	}
	for s != "" {
		i := strings.IndexByte(s, '%')
		if i < 0 || i+1 == len(s) {
			text.WriteString(s)
			break
		}
		text.WriteString(s[:i])
		rest := s[i+2:]
		switch s[i+1] {
		case '%':
			text.WriteByte('%')
		case '{':
			end := strings.IndexByte(rest, '}')
			if end < 0 {
				return nil, fmt.Errorf("%q has no closing brace", s[i:])
			}
			tok, err := parseToken(rest[:end])
			if err != nil {
				return nil, fmt.Errorf("%%{%s}: %w", rest[:end], err)
			}
			if text.Len() > 0 {
				parts = append(parts, part{text: text.String()})
				text.Reset()
			}
			parts = append(parts, part{tok: tok})
			rest = rest[end+1:]
		default:
			text.WriteByte('%')
			rest = s[i+1:]
		}
		s = rest
	}
	if text.Len() > 0 {
		parts = append(parts, part{text: text.String()})
	}
	return parts, nil
}

func parseToken(s string) (*token, error) {
	t := new(token)
	open, colon := strings.IndexByte(s, '['), strings.IndexByte(s, ':')
	if open >= 0 && (colon < 0 || open < colon) {
		end := strings.IndexByte(s, ']')
		if end < open {
			return nil, errors.New("bracket is not closed")
		}
		if err := t.parseRange(s[open+1 : end]); err != nil {
			return nil, err
		}
		t.name, s = s[:open], s[end+1:]
		if s != "" && s[0] != ':' {
			return nil, fmt.Errorf("%q behind the bracket", s)
		}
	} else if colon >= 0 {
		t.name, s = s[:colon], s[colon:]
	} else {
		t.name, s = s, ""
	}
	t.name = strings.ToLower(t.name)
	if _, ok := names[t.name]; !ok {
		return nil, errors.New("unknown format specifier")
	}
	if s == "" {
		return t, nil
	}
	for mod := range strings.SplitSeq(strings.ToLower(s[1:]), "|") {
		switch mod {
		case "lowercase", "uppercase", "strip", "raw":
			t.mods = append(t.mods, mod)
		default:
			return nil, fmt.Errorf("unknown modifier %q", mod)
		}
	}
	return t, nil
}

func (t *token) parseRange(s string) error {
	number := func(s string) (*int, error) {
		if s == "" {
			return nil, nil
		}
		n, err := strconv.Atoi(s)
		if err != nil || n < -4096 || n > 4096 {
			return nil, fmt.Errorf("%q is not a number from -4096 to 4096", s)
		}
		return &n, nil
	}
	from, to, two := strings.Cut(s, ":")
	t.ranged, t.single = true, !two
	if t.single && from == "" {
		return errors.New("bracket is empty")
	}
	var err error
	if t.from, err = number(from); err != nil {
		return err
	}
	t.to, err = number(to)
	return err
}

// value returns what the token stands for, modified and cut but not sanitised,
// and whether it was asked for raw.
func (t *token) value(v *Values) (s string, raw bool, err error) {
	s = v.lookup(t.name)
	for _, mod := range t.mods {
		switch mod {
		case "lowercase":
			s = mapASCII(s, 'A', 'Z', 'a'-'A')
		case "uppercase":
			s = mapASCII(s, 'a', 'z', 'A'-'a')
		case "strip":
			s = strip(s, v.Delim)
		case "raw":
			raw = true
		}
	}
	s, err = t.cut(s)
	return s, raw, err
}

func (v *Values) lookup(name string) string {
	a := addr.Address{}
	who, what, _ := strings.Cut(name, ".")
	switch who {
	case "sender":
		a = v.Sender
	case "rcpt":
		a = v.Rcpt
	case "dest":
		a = v.Dest
	case "user":
		if what == "directory" {
			return v.Home
		}
		return v.Name
	case "mbox":
		if v.Sender.IsZero() {
			return "MAILER-DAEMON"
		}
		return v.Sender.String()
	case "extension": // as a variable alone
		return v.Extension
	}
	switch what {
	case "user":
		return a.Local
	case "domain":
		return a.Domain
	}
	return a.String()
}

func mapASCII(s string, from, to byte, by int) string {
	b := []byte(s)
	for i, c := range b {
		if from <= c && c <= to {
			b[i] = byte(int(c) + by)
		}
	}
	return string(b)
}

// strip takes the sub-address out: from the delimiter to the domain.
func strip(s, delim string) string {
	if delim == "" {
		delim = "+"
	}
	i := strings.IndexByte(s, delim[0])
	if i < 0 {
		return s
	}
	if at := strings.IndexByte(s[i:], '@'); at >= 0 {
		return s[:i] + s[i+at:]
	}
	return s[:i]
}

// cut obeys the bracket. An empty value stays empty.
func (t *token) cut(s string) (string, error) {
	if !t.ranged || s == "" {
		return s, nil
	}
	from, end := 0, len(s)
	if t.from != nil {
		if from = *t.from; from < 0 {
			from += len(s)
		}
	}
	switch {
	case t.single:
		end = from + 1
	case t.to != nil && *t.to < 0:
		end = len(s) + *t.to
	case t.to != nil:
		end = min(*t.to+1, len(s))
	}
	if from < 0 || from >= end || end > len(s) {
		return "", fmt.Errorf("%w: %q", ErrRange, s)
	}
	return s[from:end], nil
}
