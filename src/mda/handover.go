package mda

import (
	"bytes"
	"io"

	"opensmtpd/src/mailerr"
	"opensmtpd/src/mda/lmtp"
)

// handOver gives a delivery to the action's LMTP server, beside the worker.
func (w *worker) handOver(d *delivery) {
	body, err := d.body()
	if err != nil {
		w.result(d, Failure(mailerr.Temp, ExOSErr, "cannot read the message", err))
		d.close()
		return
	}
	m := lmtp.Message{
		Destination: w.conf.LMTPDest, Sender: d.d.Sender.String(), Rcpts: []string{d.d.Name},
		Body: io.MultiReader(bytes.NewReader(d.head), body), Timeout: w.conf.Timeout,
	}
	if w.conf.RcptTo {
		m.Rcpts[0] = d.d.Dest.String()
	}
	w.commands.Go(func() {
		w.result(d, lmtpResult(lmtp.Deliver(w.ctx, w.clock, m)[0]))
		d.close()
	})
}

// lmtpResult says it as if mail.lmtp(8) had run.
func lmtpResult(err *mailerr.Error) Result {
	if err == nil {
		return delivered
	}
	exit := ExTempFail
	if err.Class == mailerr.Perm {
		exit = ExUnavailable
	}
	r := Failure(err.Class, exit, "mail.lmtp: "+err.Text, err.Cause)
	r.Err.Code, r.Err.Enhanced = err.Code, err.Enhanced
	return r
}
