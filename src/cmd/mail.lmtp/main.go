// Mail.lmtp hands a message to an LMTP server: mail.lmtp(8).
package main

import (
	"os"

	"opensmtpd/src/mda/program"
)

func main() { os.Exit(program.LMTP(program.System())) }
