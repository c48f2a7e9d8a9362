// Package ctl is how smtpctl(8) and sendmail(8) talk to the control process:
// the rows that commands answer with, and the protocol of the control socket.
package ctl
