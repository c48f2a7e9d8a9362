package regress

import (
	"encoding/xml"
	"os/exec"
	"path/filepath"
	"slices"
	"testing"

	"opensmtpd/src/pki/pkitest"
)

// scanned is what sslscan writes.
type scanned struct {
	Test struct {
		Protocols []struct {
			Type    string `xml:"type,attr"`
			Version string `xml:"version,attr"`
			Enabled bool   `xml:"enabled,attr"`
		} `xml:"protocol"`
		Renegotiation struct {
			Supported bool `xml:"supported,attr"`
		} `xml:"renegotiation"`
		Heartbleed []struct {
			Vulnerable bool `xml:"vulnerable,attr"`
		} `xml:"heartbleed"`
		Ciphers []struct {
			Name     string `xml:"cipher,attr"`
			Strength string `xml:"strength,attr"`
		} `xml:"cipher"`
	} `xml:"ssltest"`
}

// TestTLSScanned has sslscan look for what a listener should not offer. The test
// is skipped where the program, of Debian's package, cannot be had.
func TestTLSScanned(t *testing.T) {
	t.Parallel()
	sslscan, err := exec.LookPath("sslscan")
	if err != nil {
		sslscan = filepath.Join(unpacked(t, "sslscan"), "usr/bin/sslscan")
	}
	for _, kind := range []string{pkitest.RSA, pkitest.ECDSA} {
		d := newTLS(t, "", "", kind+":mx.example.org")
		d.Start()
		for _, how := range [][]string{{d.smtps}, {"--starttls-smtp", d.Addr}} {
			args := append([]string{"--no-colour", "--timeout=60", "--xml=-"}, how...)
			out, err := exec.CommandContext(t.Context(), sslscan, args...).Output()
			var got scanned
			if err == nil {
				err = xml.Unmarshal(out, &got)
			}
			if err != nil {
				t.Fatalf("%v: %v\n%s", args, err, out)
			}
			got.judge(t, kind, how[0])
			if t.Failed() {
				t.Logf("sslscan %v:\n%s", args, out)
			}
		}
	}
}

// judge fails the test when something is not as it should be.
func (s *scanned) judge(t *testing.T, kind, where string) {
	t.Helper()
	var versions []string
	for _, p := range s.Test.Protocols {
		if p.Enabled {
			versions = append(versions, p.Type+p.Version)
		}
	}
	if !slices.Equal(versions, []string{"tls1.2", "tls1.3"}) {
		t.Errorf("%s, %s: versions %v", kind, where, versions)
	}
	if s.Test.Renegotiation.Supported {
		t.Errorf("%s, %s: renegotiation", kind, where)
	}
	for _, h := range s.Test.Heartbleed {
		if h.Vulnerable {
			t.Errorf("%s, %s: heartbleed", kind, where)
		}
	}
	if len(s.Test.Ciphers) < 6 {
		t.Errorf("%s, %s: %d ciphers", kind, where, len(s.Test.Ciphers))
	}
	for _, c := range s.Test.Ciphers {
		if c.Strength != "strong" && c.Strength != "acceptable" {
			t.Errorf("%s, %s: %s is %s", kind, where, c.Name, c.Strength)
		}
	}
}
