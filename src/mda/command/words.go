package command

import (
	"errors"
	"fmt"
	"regexp"
	"strings"
)

// What Words complains about.
var (
	ErrQuote = errors.New("a quote is not closed")
	ErrShell = errors.New("needs a shell")
)

// handed is a variable that a delivery agent put in place of a value.
var handed = regexp.MustCompile(`^\$\{(SMTPD_[0-9A-Z]+)\}`)

// operators are words that only a shell understands.
var operators = regexp.MustCompile(`^(\||\|\||&&|&|;|;;|\(|\)|[0-9]*(<|<<|>|>>)(&[0-9-]+)?)$`)

// Words takes a command line apart as a shell would, and evaluates nothing:
// blanks separate words; quotes and backslashes take blanks and each other's
// meaning away; ${SMTPD_…} stands for that variable, whose value is never taken
// apart; everything else means itself. An operator as a word of its own is
// ErrShell, for the line was written for a shell.
func Words(line string, getenv func(string) string) ([]string, error) {
	var words []string
	var word strings.Builder
	in, quoted := false, false // a word; in part by quotes
	end := func() error {
		if in && !quoted && operators.MatchString(word.String()) {
			return fmt.Errorf("%w: %q", ErrShell, word.String())
		}
		if in {
			words = append(words, word.String())
		}
		word.Reset()
		in, quoted = false, false
		return nil
	}
	var quote byte
	for i := 0; i < len(line); i++ {
		c := line[i]
		switch {
		case quote == '\'' && c != '\'':
			word.WriteByte(c)
		case c == quote && quote != 0:
			quote = 0
		case c == '\\' && i+1 < len(line) && (quote == 0 || strings.IndexByte("\"\\$`", line[i+1]) >= 0):
			i++
			word.WriteByte(line[i])
			in, quoted = true, true
		case c == '$' && handed.MatchString(line[i:]):
			m := handed.FindStringSubmatch(line[i:])
			word.WriteString(getenv(m[1]))
			in, quoted = true, true
			i += len(m[0]) - 1
		case quote == '"':
			word.WriteByte(c)
		case c == '\'' || c == '"':
			quote, in, quoted = c, true, true
		case c == ' ' || c == '\t' || c == '\n':
			if err := end(); err != nil {
				return nil, err
			}
		default:
			word.WriteByte(c)
			in = true
		}
	}
	if quote != 0 {
		return nil, ErrQuote
	}
	err := end()
	return words, err
}
