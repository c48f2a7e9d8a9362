package check

import (
	"errors"
	"net/netip"
	"strconv"
	"strings"
)

// validHost tells whether s is a host name as DNS allows it: labels of 1 to 63
// letters, digits, hyphens and underscores (RFC 1035 section 2.3.1; underscores
// occur in practice), at most 253 bytes. Letters beyond ASCII are allowed.
func validHost(s string) bool {
	s = strings.TrimSuffix(s, ".")
	if s == "" || len(s) > 253 {
		return false
	}
	for label := range strings.SplitSeq(s, ".") {
		if label == "" || len(label) > 63 || label[0] == '-' || label[len(label)-1] == '-' {
			return false
		}
		for i := range len(label) {
			c := label[i]
			if c < 0x80 && c != '-' && c != '_' && (c < '0' || c > '9') && (c < 'a' || c > 'z') && (c < 'A' || c > 'Z') {
				return false
			}
		}
	}
	return true
}

// validLiteral tells whether s is an address in brackets, RFC 5321 section 4.1.3.
func validLiteral(s string) bool {
	if len(s) < 3 || s[0] != '[' || s[len(s)-1] != ']' {
		return false
	}
	s = s[1 : len(s)-1]
	if len(s) > 5 && strings.EqualFold(s[:5], "IPv6:") {
		s = s[5:]
	}
	_, err := netip.ParseAddr(s)
	return err == nil
}

// validMailbox tells whether s is user@host, or "@host" as relays write it.
func validMailbox(s string) bool {
	i := strings.LastIndexByte(s, '@')
	return i >= 0 && (validHost(s[i+1:]) || validLiteral(s[i+1:])) &&
		!strings.ContainsFunc(s, func(r rune) bool { return r <= ' ' || r == 0x7f })
}

// checkLMTP checks host[:port], the host maybe in brackets, or the path of a
// socket.
func checkLMTP(s string) error {
	if strings.HasPrefix(s, "/") {
		return nil
	}
	host, port, found := s, "", false
	if end := strings.IndexByte(s, ']'); s[0] == '[' && end > 0 {
		host, port = s[:end+1], s[end+1:]
		if port, found = strings.CutPrefix(port, ":"); !found && port != "" {
			return errors.New("after ] only :port can follow")
		}
		if !validLiteral(host) {
			return errors.New("no address in the brackets")
		}
	} else if host, port, found = strings.Cut(s, ":"); !validHost(host) {
		return errors.New("not a host, nor an absolute path")
	}
	if n, err := strconv.ParseUint(port, 10, 16); found && (err != nil || n == 0) {
		return errors.New("the port is not between 1 and 65535")
	}
	return nil
}
