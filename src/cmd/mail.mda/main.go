// Mail.mda gives a message to a program: mail.mda(8).
package main

import (
	"os"

	"opensmtpd/src/mda/program"
)

func main() { os.Exit(program.MDA(program.System())) }
