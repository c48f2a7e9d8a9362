package parent

import (
	"opensmtpd/src/clock"
	"opensmtpd/src/lookup/auth"
)

// masterPasswd is where the BSDs keep their passwords.
const masterPasswd = "/etc/master.passwd"

// systemAccounts verifies by master.passwd(5).
func systemAccounts(c clock.Clock) verifier {
	return &accountFile{path: masterPasswd, parse: parseMaster, clock: c, checker: auth.NewChecker()}
}
