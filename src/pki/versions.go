package pki

import (
	"crypto/tls"
	"fmt"
	"slices"
	"strings"
)

// allVersions are those that Go has, the oldest first. Never written.
var allVersions = []uint16{tls.VersionTLS10, tls.VersionTLS11, tls.VersionTLS12, tls.VersionTLS13}

// versionWords are those of tls_config_parse_protocols(3). Never written.
var versionWords = map[string][]uint16{
	"tlsv1.0": {tls.VersionTLS10}, "tlsv1.1": {tls.VersionTLS11}, "tlsv1.2": {tls.VersionTLS12}, "tlsv1.3": {tls.VersionTLS13},
	"tlsv1": allVersions, "all": allVersions, "legacy": allVersions,
	"secure": {tls.VersionTLS12, tls.VersionTLS13}, "default": {tls.VersionTLS12, tls.VersionTLS13},
}

// Versions are the oldest and the newest version of TLS that may be spoken.
type Versions struct{ Min, Max uint16 }

// ParseProtocols reads the word `protocols` of smtpd.conf(5): names with commas,
// colons or blanks between them, a "!" before one that is taken out. An empty
// list stands for what is secure.
func ParseProtocols(list string) (Versions, error) {
	if strings.TrimSpace(list) == "" {
		return Versions{Min: tls.VersionTLS12}, nil
	}
	var allowed []uint16
	first := true
	for word := range strings.FieldsFuncSeq(list, separates) {
		name, not := strings.CutPrefix(strings.ToLower(word), "!")
		versions, ok := versionWords[name]
		if !ok {
			return Versions{}, unknownVersion(word, name)
		}
		if first && not {
			allowed = slices.Clone(allVersions)
		}
		first = false
		allowed = slices.DeleteFunc(allowed, func(v uint16) bool { return slices.Contains(versions, v) })
		if !not {
			allowed = append(allowed, versions...)
		}
	}
	if len(allowed) == 0 {
		return Versions{}, fmt.Errorf("protocols %q leave none", list)
	}
	v := Versions{slices.Min(allowed), slices.Max(allowed)}
	if int(v.Max-v.Min) != len(allowed)-1 {
		return Versions{}, fmt.Errorf("protocols %q leave a gap: only versions that follow each other can be spoken", list)
	}
	return v, nil
}

func unknownVersion(word, name string) error {
	switch name {
	case "sslv2", "sslv3", "dtlsv1", "dtlsv1.2":
		return fmt.Errorf("protocols: %s is not had", word)
	}
	return fmt.Errorf("protocols: %q is unknown: TLSv1.2, TLSv1.3, secure, all and others are known", word)
}

func separates(r rune) bool { return r == ',' || r == ':' || r == ' ' || r == '\t' }

// VersionName is a version as OpenSSL writes it.
func VersionName(v uint16) string { return strings.Replace(tls.VersionName(v), "TLS ", "TLSv", 1) }
