package send

import (
	"fmt"
	"net/url"
	"strconv"
	"strings"
)

// Server is where to connect to, and how:
//
//	[scheme://] [user:password@] host [:port]
type Server struct {
	Scheme string
	Host   string
	Port   uint16
}

// ports maps the schemes to their ports; those of LMTP have none. Never written.
var ports = map[string]uint16{
	"smtp": 25, "smtp+tls": 25, "smtp+notls": 25, "smtps": 465, "lmtp": 0, "lmtp+tls": 0, "lmtp+notls": 0,
}

// ParseServer reads the argument of -s. User and password are what stands before
// an "@"; characters that mean something in a url are written as %XX there.
func ParseServer(s string) (v Server, user, password string, err error) {
	if !strings.Contains(s, "://") {
		s = "smtp://" + s
	}
	u, err := url.Parse(s)
	if err != nil {
		return v, "", "", fmt.Errorf("%q is not a server: [scheme://][user:password@]host[:port]", s)
	}
	port, known := ports[u.Scheme]
	if !known {
		return v, "", "", fmt.Errorf("unknown scheme %q: smtp, smtp+tls, smtp+notls, smtps, lmtp, lmtp+tls and lmtp+notls are known", u.Scheme)
	}
	v = Server{Scheme: u.Scheme, Host: u.Hostname(), Port: port}
	if p := u.Port(); p != "" {
		n, err := strconv.ParseUint(p, 10, 16)
		if err != nil || n == 0 {
			return v, "", "", fmt.Errorf("%q is not a port", p)
		}
		v.Port = uint16(n)
	}
	switch {
	case v.Host == "":
		return v, "", "", fmt.Errorf("%q names no host", s)
	case u.Path != "" && u.Path != "/" || u.RawQuery != "" || u.Fragment != "":
		return v, "", "", fmt.Errorf("%q has more than a host and a port", s)
	case v.Port == 0:
		return v, "", "", fmt.Errorf("%s:// needs a port", v.Scheme)
	}
	if u.User != nil {
		user = u.User.Username()
		password, _ = u.User.Password()
		if user == "" || password == "" {
			return v, "", "", fmt.Errorf("before @ stand a user and a password: user:password@%s", v.Host)
		}
	}
	return v, user, password, nil
}

func (v Server) lmtp() bool    { return strings.HasPrefix(v.Scheme, "lmtp") }
func (v Server) clear() bool   { return strings.HasSuffix(v.Scheme, "+notls") }
func (v Server) demands() bool { return strings.HasSuffix(v.Scheme, "+tls") }

// mayHide tells whether nothing is said before TLS hides it.
func (v Server) mayHide() bool { return v.demands() || v.Scheme == "smtps" }
