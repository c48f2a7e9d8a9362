package aliases

import (
	"errors"
	"fmt"
	"strings"

	"opensmtpd/src/mail/addr"
)

// classify reads one value. The order matters: "/a@b" is a file.
func classify(s string) (Value, error) {
	if len(s) > 1 && s[0] == '"' && s[len(s)-1] == '"' && strings.Count(s, `"`) == 2 || strings.HasPrefix(s, `"|`) {
		unquoted, ok := strings.CutSuffix(s[1:], `"`)
		if !ok {
			return Value{}, invalid(s)
		}
		s = strings.TrimSpace(unquoted)
	}
	if bad := strings.IndexFunc(s, func(r rune) bool { return r < ' ' && r != '\t' || r == 0x7f }); bad >= 0 || s == "" {
		return Value{}, invalid(s)
	}
	for _, read := range []func(string) (Value, bool){errorValue, includeValue, commandValue, fileValue, addressValue, userValue} {
		if v, ok := read(s); ok {
			if len(v.Text) > maxText {
				return Value{}, fmt.Errorf("value of %d bytes is too long", len(v.Text))
			}
			return v, nil
		}
	}
	return Value{}, invalid(s)
}

func invalid(s string) error {
	const most = 80
	if len(s) > most {
		s = s[:most] + "…"
	}
	return fmt.Errorf("%q is no user, address, file or command", s)
}

// cutWord removes word, with or without a ':' before it, whatever its case.
func cutWord(s, word string) (string, bool) {
	s = strings.TrimPrefix(s, ":")
	if len(s) < len(word) || !strings.EqualFold(s[:len(word)], word) {
		return "", false
	}
	return s[len(word):], true
}

func errorValue(s string) (Value, bool) {
	text, ok := cutWord(s, "error:")
	if !ok {
		return Value{}, false
	}
	text = strings.TrimLeft(text, " \t")
	ok = len(text) >= 5 && (text[0] == '4' || text[0] == '5') && digit(text[1]) && digit(text[2]) && text[3] == ' ' && wordByte(text[4])
	return Value{Kind: Error, Text: text}, ok
}

func digit(c byte) bool { return '0' <= c && c <= '9' }

func includeValue(s string) (Value, bool) {
	path, ok := cutWord(s, "include:")
	return Value{Kind: Include, Text: path}, ok && strings.HasPrefix(path, "/")
}

func commandValue(s string) (Value, bool) {
	text, ok := strings.CutPrefix(s, "|")
	text = strings.TrimSpace(text)
	return Value{Kind: Command, Text: text}, ok && text != ""
}

func fileValue(s string) (Value, bool) {
	return Value{Kind: File, Text: s}, s[0] == '/'
}

// addressValue takes what SMTP does, and what OpenSMTPD takes beyond that: dots
// where they should not be.
func addressValue(s string) (Value, bool) {
	a, err := addr.Parse(s)
	if err == nil || errors.Is(err, addr.ErrUTF8) {
		return Value{Kind: Address, Addr: a}, true
	}
	local, domain, found := strings.Cut(s, "@")
	if !found || local == "" || domain == "" || len(local) > addr.MaxLocal || len(domain) > addr.MaxDomain {
		return Value{}, false
	}
	for i := 0; i < len(local); i++ {
		if !wordByte(local[i]) && strings.IndexByte("!#$%*/?|^{}`~&'+-=_.", local[i]) < 0 {
			return Value{}, false
		}
	}
	for i := 0; i < len(domain); i++ {
		if !wordByte(domain[i]) && domain[i] != '-' && domain[i] != '.' {
			return Value{}, false
		}
	}
	return Value{Kind: Address, Addr: addr.Address{Local: local, Domain: domain}}, true
}

func userValue(s string) (Value, bool) {
	if len(s) > addr.MaxLocal {
		return Value{}, false
	}
	for i := 0; i < len(s); i++ {
		if !wordByte(s[i]) && strings.IndexByte("_.-+", s[i]) < 0 {
			return Value{}, false
		}
	}
	return Value{Kind: User, Text: addr.Lower(s)}, true
}
