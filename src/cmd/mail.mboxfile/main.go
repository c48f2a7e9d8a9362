// Mail.mboxfile appends a message to a file in the mbox form: mail.mboxfile(8).
package main

import (
	"os"

	"opensmtpd/src/mda/program"
)

func main() { os.Exit(program.MboxFile(program.System())) }
