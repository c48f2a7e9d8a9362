package ldaptable

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net/url"
	"os"
	"strings"
	"sync"
	"time"

	"github.com/go-ldap/ldap/v3"

	"opensmtpd/src/lookup/tableprog"
)

// patience is how long the directory may take for an answer.
const patience = 10 * time.Second

// query is the filter of a service and what it is asked for.
type query struct {
	filter string
	attrs  []string
}

// directory is what one reading of the configuration says, and the connection,
// which is used by many requests at a time.
type directory struct {
	url      string
	startTLS bool
	tls      *tls.Config
	user     string
	password string
	base     string
	queries  map[tableprog.Service]query

	mu     sync.Mutex
	conn   *ldap.Conn
	closed bool
}

// configure reads a configuration file.
func configure(path string) (*directory, error) {
	known := []string{"url", "username", "password", "basedn", "ca_file"}
	for _, k := range kinds {
		known = append(known, string(k.service)+"_filter", string(k.service)+"_attributes")
	}
	s, err := tableprog.ReadSettings(path, known...)
	if err != nil {
		return nil, err
	}
	d := &directory{
		user: s.Get("username"), password: s.Get("password"), base: s.Get("basedn"),
		queries: make(map[tableprog.Service]query),
	}
	if err := d.server(s); err != nil {
		return nil, err
	}
	for _, k := range kinds {
		if err := d.service(s, k); err != nil {
			return nil, err
		}
	}
	if len(d.queries) == 0 {
		return nil, fmt.Errorf("%s: there is no filter", path)
	}
	return d, nil
}

func (d *directory) service(s *tableprog.Settings, k kind) error {
	name := string(k.service)
	q := query{filter: s.Get(name + "_filter")}
	if q.filter == "" {
		return nil
	}
	if _, err := ldap.CompileFilter(expand(q.filter, "x", "x")); err != nil {
		return s.Errorf(name+"_filter", "%w", err)
	}
	if list := s.Get(name + "_attributes"); list != "" {
		for a := range strings.SplitSeq(list, ",") {
			q.attrs = append(q.attrs, strings.TrimSpace(a))
		}
		if len(q.attrs) != k.attrs {
			return s.Errorf(name+"_attributes", "%d attributes, %d are needed", len(q.attrs), k.attrs)
		}
	}
	d.queries[k.service] = q
	return nil
}

// server reads where the directory is. Without a scheme it is a host.
func (d *directory) server(s *tableprog.Settings) error {
	text, err := s.Need("url")
	if err != nil {
		return err
	}
	if !strings.Contains(text, "://") {
		text = "ldap://" + text
	}
	u, err := url.Parse(text)
	if err != nil {
		return s.Errorf("url", "%w", err)
	}
	switch u.Scheme {
	case "ldap", "ldaps", "ldapi":
	case "ldap+tls":
		u.Scheme, d.startTLS = "ldap", true
	default:
		return s.Errorf("url", "%q is none of ldap, ldaps, ldap+tls, ldapi", u.Scheme)
	}
	d.url = u.String()
	d.tls = &tls.Config{ServerName: u.Hostname(), MinVersion: tls.VersionTLS12}
	ca := s.Get("ca_file")
	if ca == "" {
		return nil
	}
	pem, err := os.ReadFile(ca)
	if err != nil {
		return s.Errorf("ca_file", "%w", err)
	}
	d.tls.RootCAs = x509.NewCertPool()
	if !d.tls.RootCAs.AppendCertsFromPEM(pem) {
		return s.Errorf("ca_file", "no certificate in %s", ca)
	}
	return nil
}

// dial makes a connection that is nobody's yet.
func (d *directory) dial() (*ldap.Conn, error) {
	c, err := ldap.DialURL(d.url, ldap.DialWithTLSConfig(d.tls))
	if err != nil {
		return nil, err
	}
	c.SetTimeout(patience)
	if d.startTLS {
		if err := c.StartTLS(d.tls); err != nil {
			c.Close()
			return nil, err
		}
	}
	return c, nil
}

// connection returns the connection for searches; another one than bad, which
// has failed.
func (d *directory) connection(bad *ldap.Conn) (*ldap.Conn, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	switch {
	case d.closed:
		return nil, errors.New("the configuration has changed")
	case d.conn != nil && d.conn != bad && !d.conn.IsClosing():
		return d.conn, nil
	case d.conn != nil:
		d.conn.Close()
		d.conn = nil
	}
	c, err := d.dial()
	if err != nil {
		return nil, err
	}
	if d.user != "" {
		if err := c.Bind(d.user, d.password); err != nil {
			c.Close()
			return nil, err
		}
	}
	d.conn = c
	return c, nil
}

func (d *directory) close() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.closed = true
	if d.conn != nil {
		d.conn.Close()
	}
}

// search returns the entries for a key. When the connection turns out to be lost
// it is made again once.
func (d *directory) search(table string, s tableprog.Service, key string, attrs ...string) ([]*ldap.Entry, error) {
	q, ok := d.queries[s]
	if !ok {
		return nil, fmt.Errorf("there is no %s_filter", s)
	}
	req := ldap.NewSearchRequest(d.base, ldap.ScopeWholeSubtree, ldap.NeverDerefAliases,
		0, int(patience/time.Second), false, expand(q.filter, key, table), attrs, nil)
	var bad *ldap.Conn
	for {
		c, err := d.connection(bad)
		if err != nil {
			return nil, err
		}
		found, err := c.Search(req)
		switch {
		case err == nil:
			return found.Entries, nil
		case ldap.IsErrorWithCode(err, ldap.LDAPResultNoSuchObject):
			return nil, nil
		case bad == nil && ldap.IsErrorWithCode(err, ldap.ErrorNetwork):
			bad = c
		default:
			return nil, err
		}
	}
}

// expand puts key and table into a filter, made harmless by RFC 4515 section 3.
func expand(filter, key, table string) string {
	return strings.NewReplacer("%%", "%", "%u", ldap.EscapeFilter(key), "%s", ldap.EscapeFilter(key),
		"%h", ldap.EscapeFilter(table)).Replace(filter)
}
