package send

import (
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"strings"

	"opensmtpd/src/pki"
)

// ParseTLS reads the argument of -T, options with commas or blanks between them,
// for a server of the name host. readFile reads the file of cafile.
func ParseTLS(params, host string, readFile func(string) ([]byte, error)) (*tls.Config, error) {
	c := &tls.Config{ServerName: host}
	var ciphers, protocols string
	hidden := false
	for word := range strings.FieldsFuncSeq(params, func(r rune) bool { return r == ',' || r == ' ' || r == '\t' }) {
		name, value, has := strings.Cut(word, "=")
		switch {
		case has && value == "":
			return nil, fmt.Errorf("-T %s has no value", name)
		case name == "noverify" && !has:
			c.InsecureSkipVerify = true
		case name == "nosni" && !has:
			hidden = true
		case name == "servername" && has:
			c.ServerName = value
		case name == "cafile" && has:
			text, err := readFile(value)
			if err != nil {
				return nil, err
			}
			if c.RootCAs, err = pki.ParseAuthorities(text); err != nil {
				return nil, fmt.Errorf("%s: %w", value, err)
			}
		case name == "ciphers" && has:
			ciphers = value
		case name == "protocols" && has:
			protocols = value
		default:
			return nil, fmt.Errorf("-T: unknown option %q: cafile=, ciphers=, nosni, noverify, protocols= and servername= are known", word)
		}
	}
	list, err := pki.ParseCiphers(ciphers)
	if err != nil {
		return nil, err
	}
	versions, err := pki.ParseProtocols(protocols)
	if err != nil {
		return nil, err
	}
	c.CipherSuites, c.MinVersion, c.MaxVersion = list.Suites, versions.Min, versions.Max
	if hidden {
		withoutSNI(c)
	}
	return c, nil
}

// withoutSNI keeps the name out of the handshake. Go verifies only a name that it
// sends, so that the certificate is verified here.
func withoutSNI(c *tls.Config) {
	host, roots := c.ServerName, c.RootCAs
	c.ServerName = ""
	if c.InsecureSkipVerify {
		return
	}
	c.InsecureSkipVerify = true
	c.VerifyConnection = func(st tls.ConnectionState) error {
		between := x509.NewCertPool()
		for _, cert := range st.PeerCertificates[1:] {
			between.AddCert(cert)
		}
		_, err := st.PeerCertificates[0].Verify(x509.VerifyOptions{DNSName: host, Roots: roots, Intermediates: between})
		return err
	}
}
