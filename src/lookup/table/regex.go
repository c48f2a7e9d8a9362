package table

import (
	"regexp"
	"strings"
)

// regexList is the compiled entries of a set.
type regexList struct {
	list []compiled
	bad  []Problem
}

type compiled struct {
	entry int
	re    *regexp.Regexp
}

func (s *set) regexList() *regexList {
	s.regexOnce.Do(func() {
		s.regex = &regexList{}
		for i := range s.ents {
			re, err := CompileRegex(s.key(i))
			if err != nil {
				s.regex.bad = append(s.regex.bad, Problem{int(s.ents[i].line), s.key(i), err})
				continue
			}
			s.regex.list = append(s.regex.list, compiled{i, re})
		}
	})
	return s.regex
}

func (s *set) visitRegex(key string, yield func(int) bool) {
	for _, c := range s.regexList().list {
		if c.re.MatchString(key) && !yield(c.entry) {
			return
		}
	}
}

// CompileRegex compiles a POSIX extended regular expression (regcomp(3) with
// REG_EXTENDED) so that it ignores case: OpenSMTPD lower-cases keys and
// patterns alike. A leading "(?i)" is allowed. Go's own expressions differ in
// few places, which are rewritten: a backslash in brackets stands for itself,
// \< and \> are the edges of words, {,n} counts from 0. Back references do not
// exist; time is linear in the key.
func CompileRegex(pattern string) (*regexp.Regexp, error) {
	pattern = strings.TrimPrefix(pattern, "(?i)")
	return regexp.Compile("(?is)" + fromPOSIX(pattern))
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
