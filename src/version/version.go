// Package version names this program and this build of it.
package version

import (
	"crypto/sha256"
	"encoding/hex"
	"runtime/debug"
)

const (
	// Name is how the program calls itself in log lines, greetings and
	// Received lines.
	Name = "OpenSMTPD"
	// Number is the version: the release of OpenSMTPD that this one stands in
	// for, which log parsers and programs look for, and our own count behind it.
	Number = "7.8.0-go1"
	// Protocol is the smtpd-version that filter and table programs are told.
	Protocol = "7.8.0"
)

// Build names the source that the program was built from. The Makefile sets it.
var Build = "unknown"

// ID tells two builds apart: processes of different builds do not talk to each
// other. It is the same in every process of one executable.
func ID() string {
	h := sha256.New()
	h.Write([]byte(Number + "\n" + Build + "\n"))
	if info, ok := debug.ReadBuildInfo(); ok {
		h.Write([]byte(info.String()))
	}
	return hex.EncodeToString(h.Sum(nil)[:8])
}
