package conf

import (
	"errors"
	"fmt"
	"net/netip"
	"strconv"
	"strings"
)

// RelayURL is where `action … relay host` sends mail:
//
//	[scheme://] [label@] host [:port]
type RelayURL struct {
	Scheme string // smtp, smtp+tls, smtp+notls, lmtp or smtps; smtp when not written
	Label  string // key in the table of credentials
	Host   string // a name, or an address without brackets
	Port   uint16 // 25, or 465 with smtps, when not written
}

// relayPorts maps the schemes to their default ports; lmtp has none. It is
// never written.
var relayPorts = map[string]uint16{"smtp": 25, "smtp+tls": 25, "smtp+notls": 25, "lmtp": 0, "smtps": 465}

// renamedSchemes maps schemes of before 6.4 to what is written since. It is never
// written.
var renamedSchemes = map[string]string{
	"tls": "smtp+tls", "tls+auth": "smtp+tls", "secure": "smtps", "secure+auth": "smtps",
	"smtps+auth": "smtps", "ssl": "smtps", "ssl+auth": "smtps",
}

// ParseRelay reads the url of a relay.
func ParseRelay(s string) (RelayURL, error) {
	u := RelayURL{Scheme: "smtp"}
	rest := s
	if scheme, after, found := strings.Cut(s, "://"); found {
		u.Scheme, rest = strings.ToLower(scheme), after
	}
	port, known := relayPorts[u.Scheme]
	if now := renamedSchemes[u.Scheme]; now != "" {
		return u, fmt.Errorf("%s:// is of before 6.4: write %s://", u.Scheme, now)
	}
	if !known {
		return u, fmt.Errorf("unknown scheme %q: smtp, smtp+tls, smtp+notls, smtps and lmtp are known", u.Scheme)
	}
	u.Port = port
	if label, after, found := strings.Cut(rest, "@"); found {
		if label == "" {
			return u, errors.New("the label before @ is empty")
		}
		if u.Scheme != "smtp+tls" && u.Scheme != "smtps" {
			return u, fmt.Errorf("a label needs smtp+tls:// or smtps://: with %s:// the password could be seen", u.Scheme)
		}
		u.Label, rest = label, after
	}
	host, after, err := relayName(rest)
	if err != nil {
		return u, err
	}
	u.Host = host
	if after != "" {
		n, err := strconv.ParseUint(strings.TrimPrefix(after, ":"), 10, 16)
		if after[0] != ':' || err != nil || n == 0 {
			return u, fmt.Errorf("%q is not a port", strings.TrimPrefix(after, ":"))
		}
		u.Port = uint16(n)
	}
	if u.Port == 0 {
		return u, errors.New("lmtp:// needs a port")
	}
	return u, nil
}

// relayName splits the host from what follows it.
func relayName(s string) (host, rest string, err error) {
	if strings.HasPrefix(s, "[") {
		lit, rest, found := strings.Cut(s[1:], "]")
		if !found {
			return "", "", errors.New("no closing bracket")
		}
		a, err := netip.ParseAddr(withoutTag(lit))
		if err != nil {
			return "", "", fmt.Errorf("%q is not an address", lit)
		}
		return a.String(), rest, nil
	}
	end := strings.IndexFunc(s, func(r rune) bool {
		return r < 0x80 && !strings.ContainsRune("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-", r)
	})
	if end < 0 {
		end = len(s)
	}
	host = s[:end]
	if host == "" || host[0] == '.' || host[len(host)-1] == '.' || strings.Contains(host, "..") {
		return "", "", fmt.Errorf("%q is not a host", host)
	}
	return host, s[end:], nil
}
