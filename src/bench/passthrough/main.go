// Passthrough is a filter program that hears of everything, is asked at every
// phase, sees every line of every message, and changes nothing: an example of
// package filterprog, and a measure of what filtering itself costs.
package main

import (
	"fmt"
	"os"

	"opensmtpd/src/filter/filterprog"
)

func main() {
	p := filterprog.New(os.Stdin, os.Stdout)
	p.OnReport("smtp-in|*", func(*filterprog.Session, filterprog.Event) {})
	for _, phase := range []string{"connect", "helo", "ehlo", "starttls", "auth", "mail-from", "rcpt-to", "data", "commit", "noop", "quit", "rset"} {
		p.OnRequest(phase, func(r *filterprog.Request) { r.Proceed() })
	}
	p.OnLine(func(_ *filterprog.Session, line []byte, out func([]byte)) { out(line) })
	if err := p.Run(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}
