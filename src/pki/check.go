package pki

import (
	"os"
	"time"

	"opensmtpd/src/conf/check"
	"opensmtpd/src/conf/load"
)

// Machine gives m the functions that look at certificates and at the words for
// TLS. now is for what has expired.
func Machine(m load.Machine, now time.Time) load.Machine {
	m.Values = Words(m.Values)
	m.CheckCert = func(name string) (string, error) {
		text, err := os.ReadFile(name)
		if err != nil {
			return "", err
		}
		c, err := ParseChain(text)
		if err != nil {
			return "", err
		}
		return c.Remark(now), nil
	}
	return m
}

// Words gives v the functions that read the words for TLS.
func Words(v check.Values) check.Values {
	v.Ciphers = func(list string) ([]string, error) {
		c, err := ParseCiphers(list)
		return c.Missing, err
	}
	v.Protocols = func(list string) error {
		_, err := ParseProtocols(list)
		return err
	}
	return v
}
