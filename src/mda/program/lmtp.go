package program

import (
	"context"
	"strings"
	"time"

	"opensmtpd/src/mail/addr"
	"opensmtpd/src/mailerr"
	"opensmtpd/src/mda/lmtp"
)

// lmtpTime is what smtpd(8) leaves a delivery command.
const lmtpTime = 300 * time.Second

// LMTP is mail.lmtp [-d destination] [-l name] [-f sender] [-r | -u] [recipient
// ...]. A wrong call is the administrator's mistake: the mail waits for him.
func LMTP(c *Call) int {
	const name = "mail.lmtp"
	if c.UID == 0 {
		return c.fail(exitTempFail, name, "may not be executed as root")
	}
	m := lmtp.Message{Destination: "localhost", Body: c.Stdin, Timeout: lmtpTime}
	sender, known := c.lookupEnv("SENDER")
	var from string // the variable that names the recipient
	rcpts, err := options(c.Args, "ru", "dlf", func(flag byte, v string) {
		switch flag {
		case 'd':
			m.Destination = v
		case 'l':
			m.Hello = v
		case 'f':
			sender, known = plain(v), true
		case 'r':
			from = "RECIPIENT"
		case 'u':
			from = "USER"
		}
	})
	for i := range rcpts {
		rcpts[i] = plain(rcpts[i])
	}
	if from != "" {
		rcpts = []string{c.getenv(from)}
	}
	m.Sender, m.Rcpts = sender, rcpts
	switch {
	case err != nil:
		return c.fail(exitTempFail, name, "%v", err)
	case !known:
		return c.fail(exitTempFail, name, "sender must be specified with -f")
	case len(rcpts) == 0, from != "" && rcpts[0] == "":
		return c.fail(exitTempFail, name, "no recipient was specified")
	case strings.ContainsAny(strings.Join(append(rcpts, sender, m.Hello), ""), "\r\n"):
		return c.fail(exitTempFail, name, "an address is more than a line")
	}
	return c.lmtpStatus(name, m)
}

// plain takes the quotes of SMTP out of an address that has them.
func plain(s string) string {
	if a, rest, err := addr.ParsePath("<" + s + ">"); err == nil && rest == "" {
		return a.String()
	}
	return s
}

// lmtpStatus delivers. The last line tells of the failure that the status is of:
// one that may pass comes before one that will not.
func (c *Call) lmtpStatus(name string, m lmtp.Message) int {
	status := exitOK
	var worst *mailerr.Error
	for i, err := range lmtp.Deliver(context.Background(), c.Clock, m) {
		if err == nil {
			continue
		}
		if worst == nil || err.Class == mailerr.Temp {
			worst = err
		}
		if len(m.Rcpts) > 1 {
			c.fail(0, name, "<%s>: %s", m.Rcpts[i], err.Text)
		}
	}
	if worst == nil {
		return status
	}
	if status = exitRefused; worst.Class == mailerr.Temp {
		status = exitTempFail
	}
	if worst.Cause != nil {
		return c.fail(status, name, "%s: %v", worst.Text, worst.Cause)
	}
	return c.fail(status, name, "%s", worst.Text)
}
