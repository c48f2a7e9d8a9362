package conf

import (
	"errors"
	"regexp"
	"regexp/syntax"
	"strings"
)

// CompileRegex compiles a POSIX extended regular expression (regcomp(3) with
// REG_EXTENDED) so that it ignores case: OpenSMTPD lower-cases keys and
// patterns alike. A leading "(?i)" is allowed. Go's own expressions differ in
// few places, which are rewritten: a backslash in brackets stands for itself,
// \< and \> are the edges of words, {,n} counts from 0. Back references do not
// exist; time is linear in the key.
func CompileRegex(pattern string) (*regexp.Regexp, error) {
	const flags = "(?is)"
	re, err := regexp.Compile(flags + fromPOSIX(strings.TrimPrefix(pattern, "(?i)")))
	var bad *syntax.Error
	if errors.As(err, &bad) {
		bad.Expr = strings.TrimPrefix(bad.Expr, flags)
	}
	return re, err
}

func fromPOSIX(s string) string {
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		switch {
		case s[i] == '\\' && i+1 < len(s):
			i++
			b.WriteString(escaped(s[i]))
		case s[i] == '[':
			n := bracket(s[i:])
			b.WriteString(strings.ReplaceAll(s[i:i+n], `\`, `\\`))
			i += n - 1
		case strings.HasPrefix(s[i:], "{,"):
			b.WriteString("{0")
		default:
			b.WriteByte(s[i])
		}
	}
	return b.String()
}

func escaped(c byte) string {
	switch c {
	case '<', '>':
		return `\b`
	case '`':
		return `\A`
	case '\'':
		return `\z`
	}
	return `\` + string([]byte{c})
}

// bracket returns the length of the bracket expression at the head of s: it ends
// at the first ']' that is not the first element and not within [: :].
func bracket(s string) int {
	i := 1
	if i < len(s) && s[i] == '^' {
		i++
	}
	if i < len(s) && s[i] == ']' {
		i++
	}
	for ; i < len(s); i++ {
		switch {
		case s[i] == ']':
			return i + 1
		case strings.HasPrefix(s[i:], "[:"):
			if n := strings.Index(s[i:], ":]"); n > 0 {
				i += n + 1
			}
		}
	}
	return len(s)
}
