package expand

import (
	"strconv"
	"strings"

	"opensmtpd/src/mailerr"
)

// The replies of OpenSMTPD, with the enhanced codes of RFC 3463 where it has
// none.

func invalidRecipient() *mailerr.Error {
	return mailerr.Permanent(550, 1, 1, "Invalid recipient", nil)
}

func trouble(cause error) *mailerr.Error {
	return mailerr.Temporary(451, 3, 0, "Temporary failure", cause)
}

func listProblem(cause error) *mailerr.Error {
	return mailerr.Permanent(524, 2, 4, "Mailing list expansion problem", cause)
}

func listTrouble(cause error) *mailerr.Error {
	return mailerr.Temporary(424, 2, 4, "Mailing list expansion problem", cause)
}

// reply makes an error of the text of an error: value, "550 text", in which an
// enhanced code may follow the code.
func reply(text string) *mailerr.Error {
	code, err := strconv.Atoi(text[:3])
	if err != nil {
		return trouble(err)
	}
	e := &mailerr.Error{Class: mailerr.Temp, Code: code, Text: text[4:]}
	if code >= 500 {
		e.Class = mailerr.Perm
	}
	if word, rest, found := strings.Cut(e.Text, " "); found {
		if esc, ok := parseEnhanced(word); ok && int(esc[0]) == code/100 {
			e.Enhanced, e.Text = esc, strings.TrimLeft(rest, " ")
		}
	}
	return e
}

func parseEnhanced(s string) (esc mailerr.Enhanced, ok bool) {
	parts := strings.Split(s, ".")
	if len(parts) != len(esc) {
		return esc, false
	}
	for i, p := range parts {
		n, err := strconv.ParseUint(p, 10, 10)
		if err != nil || n > 999 {
			return esc, false
		}
		esc[i] = uint16(n)
	}
	return esc, true
}
