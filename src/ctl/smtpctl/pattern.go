package smtpctl

import (
	"strconv"
	"strings"

	"opensmtpd/src/mail"
)

// A pattern is the words of a command; those in angle brackets stand for
// arguments:
//
//	<evpid>    16 hexadecimal digits
//	<msgid>    8 hexadecimal digits
//	<routeid>  a decimal number
//	<str>      anything
//	<words>    all that follows, at least one

// accepts tells whether a word of the command line is the pattern's word: a
// keyword written in full, or a fitting argument.
func accepts(word, arg string) bool {
	switch word {
	case "<evpid>":
		_, err := mail.ParseEnvelopeID(arg)
		return err == nil && len(arg) == 16
	case "<msgid>":
		_, err := mail.ParseMessageID(arg)
		return err == nil && len(arg) == 8
	case "<routeid>":
		_, err := strconv.ParseUint(arg, 10, 64)
		return err == nil
	case "<str>", "<words>":
		return true
	}
	return word == arg
}

func isArgument(word string) bool { return strings.HasPrefix(word, "<") }

// find returns the command that the arguments mean and its own arguments. When
// there is none it returns what could have been written: whole beginnings of
// commands, in the order of the table; an empty list means that nothing may
// follow.
func find(table []command, args []string) (c *command, params, possible []string) {
	left := make([]*command, len(table))
	for i := range table {
		left[i] = &table[i]
	}
	var said []string
	for i, arg := range args {
		word, ok := choose(left, i, arg)
		if !ok {
			return nil, nil, beginnings(left, i, said)
		}
		said = append(said, word)
		if isArgument(word) {
			params = append(params, arg)
		}
		left = with(left, i, word)
		if word == "<words>" {
			return left[0], args[i:], nil
		}
	}
	for _, c := range left {
		if len(c.words) == len(args) {
			return c, params, nil
		}
	}
	return nil, nil, beginnings(left, len(args), said)
}

// choose returns the i-th word that arg means: the first that accepts it, else
// the only keyword that begins with it.
func choose(left []*command, i int, arg string) (string, bool) {
	begins := map[string]bool{}
	for _, c := range left {
		if len(c.words) <= i {
			continue
		}
		w := c.words[i]
		if accepts(w, arg) {
			return w, true
		}
		if !isArgument(w) && strings.HasPrefix(w, arg) {
			begins[w] = true
		}
	}
	if len(begins) != 1 {
		return "", false
	}
	for w := range begins {
		return w, true
	}
	return "", false
}

// with keeps the commands whose i-th word is w.
func with(left []*command, i int, w string) []*command {
	var kept []*command
	for _, c := range left {
		if len(c.words) > i && c.words[i] == w {
			kept = append(kept, c)
		}
	}
	return kept
}

// beginnings lists what was said with each word that may follow.
func beginnings(left []*command, i int, said []string) []string {
	var list []string
	seen := map[string]bool{}
	for _, c := range left {
		if len(c.words) <= i || seen[c.words[i]] {
			continue
		}
		seen[c.words[i]] = true
		list = append(list, strings.Join(append(said[:len(said):len(said)], c.words[i]), " "))
	}
	return list
}
