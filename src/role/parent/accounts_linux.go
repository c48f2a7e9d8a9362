package parent

import (
	"opensmtpd/src/clock"
	"opensmtpd/src/lookup/auth"
)

// systemAccounts verifies by /etc/shadow. Where PAM knows more, auth-pam asks it.
func systemAccounts(c clock.Clock) verifier {
	return &accountFile{path: "/etc/shadow", parse: parseShadow, clock: c, checker: auth.NewChecker()}
}
