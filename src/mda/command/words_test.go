package command

import (
	"errors"
	"slices"
	"strings"
	"testing"
)

func TestWords(t *testing.T) {
	env := map[string]string{"SMTPD_1": "a b`c`", "SMTPD_MDA": "${SMTPD_1}", "HOME": "/root"}
	getenv := func(k string) string { return env[k] }
	for _, tc := range []struct {
		line string
		want []string
		err  error
	}{
		{"prog -a  b\tc\n", []string{"prog", "-a", "b", "c"}, nil},
		{"", nil, nil},
		{"  ", nil, nil},
		{`a "b c" 'd e' f\ g`, []string{"a", "b c", "d e", "f g"}, nil},
		{`a""'' "" ''`, []string{"a", "", ""}, nil},
		{`"a\"b\\c\d" '\' \'`, []string{`a"b\c\d`, `\`, `'`}, nil},
		{`p ${SMTPD_1} "x${SMTPD_1}" '${SMTPD_1}' \${SMTPD_1}`, []string{"p", "a b`c`", "xa b`c`", "${SMTPD_1}", "${SMTPD_1}"}, nil},
		{`p ${SMTPD_MDA}`, []string{"p", "${SMTPD_1}"}, nil},
		{"p `id`@x $(id) ${HOME} $HOME * ~ #x a;b a|b", []string{"p", "`id`@x", "$(id)", "${HOME}", "$HOME", "*", "~", "#x", "a;b", "a|b"}, nil},
		{`p '|' ">" \;`, []string{"p", "|", ">", ";"}, nil},
		{"p | q", nil, ErrShell},
		{"p && q", nil, ErrShell},
		{"p 2>&1", nil, ErrShell},
		{"p >", nil, ErrShell},
		{"p &", nil, ErrShell},
		{"p 'x", nil, ErrQuote},
		{`p "x`, nil, ErrQuote},
		{`p x\`, []string{"p", `x\`}, nil},
	} {
		got, err := Words(tc.line, getenv)
		if !slices.Equal(got, tc.want) && tc.err == nil || !errors.Is(err, tc.err) {
			t.Errorf("Words(%q) = %q, %v, want %q, %v", tc.line, got, err, tc.want, tc.err)
		}
	}
}

func FuzzWords(f *testing.F) {
	f.Add(`a "b ${SMTPD_1}" 'c' \d`)
	f.Add("${SMTPD_1")
	f.Fuzz(func(t *testing.T, line string) {
		const value = "\x01 \"'\x01"
		words, err := Words(line, func(string) string { return value })
		if err != nil || strings.Contains(line, "\x01") {
			return
		}
		// A value is in one word or in none.
		for _, w := range words {
			if strings.Count(w, "\x01") != 2*strings.Count(w, value) {
				t.Errorf("Words(%q) took a value apart: %q", line, w)
			}
		}
	})
}
