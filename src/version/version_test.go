package version

import (
	"regexp"
	"strings"
	"testing"
)

func TestID(t *testing.T) {
	if id := ID(); !regexp.MustCompile(`^[0-9a-f]{16}$`).MatchString(id) || id != ID() {
		t.Errorf("ID() = %q, then %q", id, ID())
	}
}

// What parses our lines looks for the version of OpenSMTPD.
func TestNumber(t *testing.T) {
	if !strings.HasPrefix(Number, Protocol) {
		t.Errorf("version %q does not begin with %q", Number, Protocol)
	}
}
