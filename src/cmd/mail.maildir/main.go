// Mail.maildir stores a message in a maildir: mail.maildir(8).
package main

import (
	"os"

	"opensmtpd/src/mda/program"
)

func main() { os.Exit(program.Maildir(program.System())) }
