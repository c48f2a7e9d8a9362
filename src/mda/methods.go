package mda

import (
	"errors"
	"fmt"
	"os"

	"opensmtpd/src/conf"
	"opensmtpd/src/mailerr"
	"opensmtpd/src/mda/command"
	"opensmtpd/src/mda/format"
	"opensmtpd/src/mda/mbox"
	"opensmtpd/src/privsep/imsg"
	"opensmtpd/src/privsep/msg"
	"opensmtpd/src/queue/envelope"
)

func (w *worker) values(d *msg.Deliver) *format.Values {
	return &format.Values{Sender: d.Sender, Rcpt: d.Rcpt, Dest: d.Dest, Name: d.Name, Home: d.Home, Extension: d.Subaddress, Delim: w.conf.SubAddrDelim}
}

// plan finds out how to do a delivery. The error of a Result tells why it
// cannot be done.
func (w *worker) plan(d *delivery) Result {
	v := w.values(d.d)
	method := conf.Method(w.conf.Method)
	runs := w.conf.HasWrapper && method != conf.MBOX || method == conf.MDA
	if d.d.Exec != "" && w.conf.NoExec || d.d.Exec == "" && w.conf.NoCommand && runs {
		return NotAllowed(d.d.Name)
	}
	script, err := w.planMethod(d, v)
	if err == nil && d.kind == kindCommand && w.conf.HasWrapper {
		script, err = format.Command(w.conf.Wrapper, v, &script)
	}
	d.cmd = script
	switch {
	case errors.Is(err, errMethod):
		// The administrator's mistake: the mail waits for him.
		return Failure(mailerr.Temp, ExTempFail, err.Error(), nil)
	case err != nil:
		return Failure(mailerr.Perm, 0, "mda command line could not be expanded", err)
	}
	return Result{}
}

// errMethod tells that there is no way to deliver by an action.
var errMethod = errors.New("action cannot deliver")

// NotAllowed is the answer to who wants commands, or anything but mbox, run as
// root.
func NotAllowed(name string) Result {
	return Failure(mailerr.Perm, ExNoPerm, "MDA not allowed to deliver to: "+name, nil)
}

// planMethod sets the kind. A built-in method becomes a command where a wrapper
// wants one.
func (w *worker) planMethod(d *delivery, v *format.Values) (s format.Script, err error) {
	if d.d.Exec != "" {
		file, ok := envelope.FileOfExec(d.d.Exec)
		if !ok {
			d.kind = kindCommand
			return format.Command(d.d.Exec, v, nil)
		}
		return w.planFile(d, v, file)
	}
	switch m := conf.Method(w.conf.Method); m {
	case conf.Maildir:
		d.path = d.d.RunHome + "/Maildir"
		if w.conf.Path != "" {
			if d.path, err = format.Path(w.conf.Path, v); err != nil {
				return s, err
			}
		}
		if w.conf.HasWrapper {
			d.kind = kindCommand
			s = format.Script{Text: w.conf.LibExec + `/mail.maildir "${SMTPD_1}"`, Vars: []string{"SMTPD_1=" + d.path}}
			if w.conf.Junk {
				s.Text = w.conf.LibExec + `/mail.maildir -j "${SMTPD_1}"`
			}
		}
		return s, nil
	case conf.MBOX:
		d.kind = kindMbox // which no command does: there is nothing to wrap
		return s, nil
	case conf.MDA:
		d.kind = kindCommand
		return format.Command(w.conf.Command, v, nil)
	case conf.LMTP:
		d.kind = kindLMTP
		if w.conf.HasWrapper {
			d.kind = kindCommand
			s = format.Script{Text: w.conf.LibExec + `/mail.lmtp -u -d "${SMTPD_1}"`, Vars: []string{"SMTPD_1=" + w.conf.LMTPDest}}
			if w.conf.RcptTo {
				s.Text = w.conf.LibExec + `/mail.lmtp -r -d "${SMTPD_1}"`
			}
		}
		return s, nil
	default:
		return s, fmt.Errorf("%w: method %s", errMethod, m)
	}
}

// planFile is for a /file of an expansion.
func (w *worker) planFile(d *delivery, v *format.Values, file string) (s format.Script, err error) {
	d.kind = kindFile
	if d.path, err = format.Path(file, v); err != nil {
		return s, err
	}
	if d.path == os.DevNull {
		d.kind = kindNull
	} else if w.conf.HasWrapper {
		d.kind = kindCommand
		s.Text = w.conf.LibExec + `/mail.mboxfile -f "${SMTPD_1}" "${SMTPD_2}"`
		s.Vars = []string{"SMTPD_1=" + from(d.d), "SMTPD_2=" + d.path}
	}
	return s, nil
}

// from is the sender in a separator line.
func from(d *msg.Deliver) string {
	if d.Sender.IsZero() {
		return "MAILER-DAEMON"
	}
	return d.Sender.String()
}

// append delivers to one mailbox.
func (w *worker) append(box []*delivery) {
	program := "mail.local"
	if box[0].kind == kindFile {
		program = "mail.mboxfile"
	}
	f, done, err := w.openBox(box[0])
	if err == nil {
		err = w.appendAll(f, box, program)
		f.Close()
		done()
	}
	for _, d := range box {
		if err == nil {
			w.result(d, delivered)
		} else {
			w.result(d, storeFailed(program, err))
		}
	}
}

// appendAll tells the results of messages that fail by themselves.
func (w *worker) appendAll(f *os.File, box []*delivery, program string) error {
	batch := make([]*mbox.Message, 0, len(box))
	for _, d := range box {
		body, err := d.body()
		if err != nil {
			return err
		}
		batch = append(batch, &mbox.Message{From: from(d.d), Head: d.head, Body: body, QuoteAll: d.kind == kindFile})
	}
	mbox.Append(w.ctx, mbox.System{File: f}, w.clock, batch)
	for i, m := range batch {
		if m.Err != nil {
			w.result(box[i], storeFailed(program, m.Err))
		}
	}
	return nil
}

// openBox opens the user's own file, or asks parent for the system mailbox;
// done unlocks it.
func (w *worker) openBox(d *delivery) (f *os.File, done func(), err error) {
	if d.kind == kindFile {
		f, err = mbox.Open(d.path, true)
		return f, func() {}, err
	}
	w.last++
	if _, err := w.link.Put(imsg.Header{Type: uint16(msg.TypeMailbox), Flags: imsg.FlagCall, Call: w.last}, &msg.Mailbox{User: d.d.Name}, nil); err != nil {
		return nil, nil, err
	}
	frame, err := w.link.Next()
	if err != nil {
		return nil, nil, err
	}
	var reply msg.MailboxReply
	switch {
	case msg.Type(frame.Type) != msg.TypeMailboxReply || frame.Call != w.last:
		err = fmt.Errorf("message of type %d from parent", frame.Type)
	default:
		err = reply.Parse(frame.Body)
	}
	if err == nil && reply.Err != nil {
		err = reply.Err.Cause
		if err == nil {
			err = errors.New(reply.Err.Text)
		}
	}
	if err == nil && frame.File == nil {
		err = errors.New("parent sent no mailbox")
	}
	if err != nil {
		if frame.File != nil {
			frame.File.Close()
		}
		return nil, nil, err
	}
	return frame.File, func() { w.link.Put(imsg.Header{Type: uint16(msg.TypeMailboxDone)}, &msg.MailboxDone{}, nil) }, nil
}

// environment is what a command is documented to find.
func environment(d *msg.Deliver, vars []string) []string {
	env := make([]string, 0, 11+len(vars))
	env = append(env,
		"PATH="+defaultPath,
		"DOMAIN="+d.Rcpt.Domain,
		"HOME="+d.RunHome,
		"ORIGINAL_RECIPIENT="+d.Rcpt.String(),
		"RECIPIENT="+d.Dest.String(),
		"SHELL=/bin/sh",
		"LOCAL="+d.Rcpt.Local,
		"LOGNAME="+d.Name,
		"USER="+d.Name,
		"SENDER="+d.Sender.String(),
	)
	if d.Subaddress != "" {
		env = append(env, "EXTENSION="+d.Subaddress)
	}
	return append(env, vars...)
}

// command runs the command of a delivery beside the worker.
func (w *worker) command(d *delivery) {
	c := command.Command{
		Script: d.cmd.Text, Env: environment(d.d, d.cmd.Vars), Dir: d.d.RunHome,
		Timeout: w.conf.Timeout, Head: append(d.head, d.d.Body...),
	}
	if d.file != nil {
		body, err := d.body()
		if err != nil {
			w.result(d, Failure(mailerr.Temp, ExOSErr, "cannot read the message", err))
			d.close()
			return
		}
		c.Body = body
	}
	w.commands.Go(func() {
		w.result(d, commandResult(command.Run(w.ctx, w.clock, c)))
		d.close()
	})
}
