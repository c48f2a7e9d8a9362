package pki

import (
	"crypto/tls"
	"fmt"
	"slices"
	"strings"
)

// suite is a cipher suite that Go has, with what OpenSSL calls it and the words
// that it answers to in a list of ciphers.
type suite struct {
	id    uint16
	name  string
	bits  int
	words string // with blanks around each
}

// suites are those of TLS 1.2 and before, in OpenSSL's order of preference.
// Those that Go has as well and that are not here no one should use: RC4, 3DES,
// and the exchange of keys by RSA, for which the private key would have to
// decrypt. Never written.
var suites = []suite{
	{tls.TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384, "ECDHE-ECDSA-AES256-GCM-SHA384", 256, " ECDSA aECDSA AESGCM AES AES256 AEAD TLSv1.2 "},
	{tls.TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384, "ECDHE-RSA-AES256-GCM-SHA384", 256, " aRSA AESGCM AES AES256 AEAD TLSv1.2 "},
	{tls.TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256, "ECDHE-ECDSA-CHACHA20-POLY1305", 256, " ECDSA aECDSA CHACHA20 AEAD TLSv1.2 "},
	{tls.TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256, "ECDHE-RSA-CHACHA20-POLY1305", 256, " aRSA CHACHA20 AEAD TLSv1.2 "},
	{tls.TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256, "ECDHE-ECDSA-AES128-GCM-SHA256", 128, " ECDSA aECDSA AESGCM AES AES128 AEAD TLSv1.2 "},
	{tls.TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256, "ECDHE-RSA-AES128-GCM-SHA256", 128, " aRSA AESGCM AES AES128 AEAD TLSv1.2 "},
	{tls.TLS_ECDHE_ECDSA_WITH_AES_128_CBC_SHA256, "ECDHE-ECDSA-AES128-SHA256", 128, " ECDSA aECDSA AES AES128 SHA256 TLSv1.2 "},
	{tls.TLS_ECDHE_RSA_WITH_AES_128_CBC_SHA256, "ECDHE-RSA-AES128-SHA256", 128, " aRSA AES AES128 SHA256 TLSv1.2 "},
	{tls.TLS_ECDHE_ECDSA_WITH_AES_256_CBC_SHA, "ECDHE-ECDSA-AES256-SHA", 256, " ECDSA aECDSA AES AES256 SHA SHA1 TLSv1 TLSv1.0 SSLv3 "},
	{tls.TLS_ECDHE_RSA_WITH_AES_256_CBC_SHA, "ECDHE-RSA-AES256-SHA", 256, " aRSA AES AES256 SHA SHA1 TLSv1 TLSv1.0 SSLv3 "},
	{tls.TLS_ECDHE_ECDSA_WITH_AES_128_CBC_SHA, "ECDHE-ECDSA-AES128-SHA", 128, " ECDSA aECDSA AES AES128 SHA SHA1 TLSv1 TLSv1.0 SSLv3 "},
	{tls.TLS_ECDHE_RSA_WITH_AES_128_CBC_SHA, "ECDHE-RSA-AES128-SHA", 128, " aRSA AES AES128 SHA SHA1 TLSv1 TLSv1.0 SSLv3 "},
}

// suites13 are those of TLS 1.3, which Go always has all. Never written.
var suites13 = []suite{
	{tls.TLS_AES_256_GCM_SHA384, "TLS_AES_256_GCM_SHA384", 256, ""},
	{tls.TLS_CHACHA20_POLY1305_SHA256, "TLS_CHACHA20_POLY1305_SHA256", 256, ""},
	{tls.TLS_AES_128_GCM_SHA256, "TLS_AES_128_GCM_SHA256", 128, ""},
}

// everySuite are the words for all: Go's suites all exchange keys by ECDHE, and
// the lists of libtls leave none of them out. Never written.
var everySuite = strings.Fields("ALL COMPLEMENTOFDEFAULT DEFAULT HIGH ECDHE EECDH kECDHE kEECDH ECDH FIPS TLSV12ALL")

// noSuite are the words of OpenSSL for what Go does not have, or what is not
// offered here. Never written.
var noSuite = strings.Fields("COMPLEMENTOFALL aNULL eNULL NULL LOW MEDIUM EXP EXPORT EXPORT40 EXPORT56 kRSA RSA " +
	"DHE EDH kDHE kEDH DH ADH AECDH aDH kDHr kDHd kDH aECDH kECDH kECDHr kECDHe aDSS DSS aPSK PSK kPSK kECDHEPSK " +
	"kDHEPSK kRSAPSK SRP kSRP aSRP AESCCM AESCCM8 ARIA ARIA128 ARIA256 ARIAGCM CAMELLIA CAMELLIA128 CAMELLIA256 " +
	"SHA384 SEED IDEA RC2 RC4 DES 3DES MD5 GOST GOST89 GOST94 aGOST aGOST01 kGOST CBC SUITEB128 SUITEB192 SUITEB128ONLY")

// weakWords are those of noSuite that many lists have, to no one's harm. Never
// written.
var weakWords = strings.Fields("COMPLEMENTOFALL LOW MEDIUM EXP EXPORT")

// listWords are the lists that libtls has names for, as OpenSSL's. Never written.
var listWords = map[string]string{
	"secure": "AEAD", "default": "AEAD", "compat": "HIGH", "legacy": "HIGH:MEDIUM", "all": "ALL", "insecure": "ALL",
}

// Ciphers is what a list of ciphers comes to.
type Ciphers struct {
	Suites  []uint16 // nil: Go's choice
	Missing []string // words that mean something and select nothing here
}

// ParseCiphers reads the word `ciphers` of smtpd.conf(5): a name of
// tls_config_set_ciphers(3), or a list in the form of ciphers(1). Go orders by
// its own preference, so that only what is in the list counts. The ciphers of
// TLS 1.3 cannot be chosen.
func ParseCiphers(list string) (Ciphers, error) {
	var c Ciphers
	if strings.TrimSpace(list) == "" {
		return c, nil
	}
	text := list
	if named, ok := listWords[strings.ToLower(strings.TrimSpace(list))]; ok {
		text = named
	}
	chosen := make([]bool, len(suites))
	killed := make([]bool, len(suites))
	for word := range strings.FieldsFuncSeq(text, func(r rune) bool { return separates(r) || r == ';' }) {
		if err := c.take(word, chosen, killed); err != nil {
			return Ciphers{}, fmt.Errorf("ciphers: %w", err)
		}
	}
	for i, s := range suites {
		if chosen[i] && !killed[i] {
			c.Suites = append(c.Suites, s.id)
		}
	}
	if len(c.Suites) == 0 {
		return Ciphers{}, fmt.Errorf("ciphers %q leave none of those that can be used for TLS 1.2", list)
	}
	return c, nil
}

// take does what one word of a list says.
func (c *Ciphers) take(word string, chosen, killed []bool) error {
	if strings.HasPrefix(word, "@") { // an order, or a level of security that Go surpasses
		return nil
	}
	op, name := byte(0), word
	if strings.IndexByte("!-+", word[0]) >= 0 {
		op, name = word[0], word[1:]
	}
	sel, err := choose(name)
	if err != nil {
		return err
	}
	if op == 0 && !slices.Contains(sel, true) {
		if !tls13(name) && !slices.Contains(weakWords, name) {
			c.Missing = append(c.Missing, word)
		}
		return nil
	}
	for i, s := range sel {
		switch {
		case !s || op == '+': // moved to the end
		case op == '!':
			killed[i] = true
		default:
			chosen[i] = op == 0
		}
	}
	return nil
}

func tls13(name string) bool {
	return slices.ContainsFunc(suites13, func(s suite) bool { return s.name == name }) || strings.EqualFold(name, "TLSv1.3")
}

// choose returns which suites a word, or several with "+" between them, stands
// for.
func choose(name string) ([]bool, error) {
	sel := make([]bool, len(suites))
	for i := range sel {
		sel[i] = true
	}
	for part := range strings.SplitSeq(name, "+") {
		is, err := meaning(part)
		if err != nil {
			return nil, err
		}
		for i := range suites {
			sel[i] = sel[i] && is(&suites[i])
		}
	}
	return sel, nil
}

// meaning returns what a single word says about a suite.
func meaning(word string) (func(*suite) bool, error) {
	has := func(list []string) bool {
		return slices.ContainsFunc(list, func(w string) bool { return strings.EqualFold(w, word) })
	}
	switch {
	case has(everySuite):
		return func(*suite) bool { return true }, nil
	case has(noSuite), tls13(word):
		return func(*suite) bool { return false }, nil
	case slices.ContainsFunc(suites, func(s suite) bool { return strings.EqualFold(s.name, word) }):
		return func(s *suite) bool { return strings.EqualFold(s.name, word) }, nil
	case word != "" && slices.ContainsFunc(suites, func(s suite) bool { return s.is(word) }):
		return func(s *suite) bool { return s.is(word) }, nil
	case strings.Contains(word, "-"):
		return nil, fmt.Errorf("%s is not had: the ciphers of TLS 1.2 here are those of ECDHE with AES or ChaCha20", word)
	}
	return nil, fmt.Errorf("%q is unknown: see the list in smtpd.conf(5)", word)
}

func (s *suite) is(word string) bool {
	return !strings.Contains(word, " ") && strings.Contains(strings.ToLower(s.words), " "+strings.ToLower(word)+" ")
}

// Cipher returns what OpenSSL calls a cipher suite, and the bits of its key.
func Cipher(id uint16) (name string, bits int) {
	for _, list := range [][]suite{suites13, suites} {
		for _, s := range list {
			if s.id == id {
				return s.name, s.bits
			}
		}
	}
	name = tls.CipherSuiteName(id)
	switch {
	case strings.Contains(name, "_256_"):
		return name, 256
	case strings.Contains(name, "3DES"):
		return name, 112
	}
	return name, 128
}

// Describe writes the version, the cipher and the bits of a connection as
// OpenSMTPD does: TLSv1.3:TLS_AES_256_GCM_SHA384:256.
func Describe(st *tls.ConnectionState) string {
	name, bits := Cipher(st.CipherSuite)
	return fmt.Sprintf("%s:%s:%d", VersionName(st.Version), name, bits)
}
