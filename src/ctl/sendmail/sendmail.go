// Package sendmail is sendmail(8): it reads a message as programs write it, asks
// control for a connection to the daemon, and submits it in SMTP. It runs as the
// user who called it, starts no program and believes nothing of the environment.
package sendmail

import (
	"context"
	"errors"
	"fmt"
	"mime"
	"os"
	"path/filepath"
	"strings"
	"syscall"

	"github.com/emersion/go-smtp"

	"opensmtpd/src/ctl"
	"opensmtpd/src/ctl/invoke"
	"opensmtpd/src/version"
)

// User is who calls.
type User struct {
	Login string
	Gecos string // full name, and more behind a comma
	Home  string // "" for none
}

// Mode is what sendmail was asked to be.
type Mode uint8

const (
	Submit     Mode = iota // a message from stdin
	Newaliases             // -bi
	Mailq                  // -bp
	Flush                  // -q, which is for the daemon
)

// options of the command line.
type options struct {
	mode     Mode
	from     string
	fromSet  bool
	name     string
	nameSet  bool
	headers  bool // -t
	verbose  bool
	notify   []smtp.DSNNotify
	ret      smtp.DSNReturn
	envid    string
	operands []string
}

// letters are sendmail's options; most mean nothing here. 'o' and 'e' may stand
// alone.
const letters = "A:B:b:C:D:d::E::e:F:f:Gh:iJ::L:mN:nO:o:p:q::R:r:StUV:vX:x"

// parseOptions reads a command line.
func parseOptions(args []string) (options, error) {
	opts, rest, err := invoke.Getopt(args, letters)
	if err != nil {
		return options{}, err
	}
	o := options{operands: rest}
	for _, opt := range opts {
		if err := o.set(opt); err != nil {
			return options{}, err
		}
	}
	return o, nil
}

func (o *options) set(opt invoke.Option) (err error) {
	switch opt.Letter {
	case 'f', 'r':
		o.from, o.fromSet = opt.Arg, true
	case 'F':
		o.name, o.nameSet = opt.Arg, true
	case 't':
		o.headers = true
	case 'v':
		o.verbose = true
	case 'N':
		o.notify, err = parseNotify(opt.Arg)
	case 'R':
		o.ret, err = parseReturn(opt.Arg)
	case 'V':
		o.envid = opt.Arg
	case 'q':
		o.mode = Flush
	case 'b':
		switch opt.Arg {
		case "i":
			o.mode = Newaliases
		case "p":
			o.mode = Mailq
		}
	}
	return err
}

// parseNotify reads the argument of -N (RFC 3461 section 4.1).
func parseNotify(s string) ([]smtp.DSNNotify, error) {
	var list []smtp.DSNNotify
	for word := range strings.SplitSeq(strings.ToUpper(s), ",") {
		switch n := smtp.DSNNotify(word); n {
		case smtp.DSNNotifyNever, smtp.DSNNotifyDelayed, smtp.DSNNotifyFailure, smtp.DSNNotifySuccess:
			list = append(list, n)
		default:
			return nil, fmt.Errorf("-N %s: want never, or of success, failure, delay", s)
		}
	}
	return list, nil
}

// parseReturn reads the argument of -R (RFC 3461 section 4.3).
func parseReturn(s string) (smtp.DSNReturn, error) {
	switch r := smtp.DSNReturn(strings.ToUpper(s)); r {
	case smtp.DSNReturnFull, smtp.DSNReturnHeaders:
		return r, nil
	}
	return "", fmt.Errorf("-R %s: want full or hdrs", s)
}

// Asked tells what a command line of sendmail asks for, before anything is done.
func Asked(args []string) Mode {
	o, err := parseOptions(args)
	if err != nil {
		return Submit // which will complain
	}
	return o.mode
}

// Run submits the message on stdin, and returns the exit status: 0 when the
// daemon has it, 75 when it may have it later, 64 for a usage error, another of
// sysexits(3) for what will not become better.
func Run(ctx context.Context, call *invoke.Call, user User) int {
	o, err := parseOptions(call.Args)
	if err != nil {
		call.Errorf("%v", err)
		fmt.Fprintf(call.Stderr, "usage: %s [-tv] [-F name] [-f from] [-N notify] [-R return] [-V envid] to ...\n", call.Name)
		return invoke.Usage
	}
	if o.mode == Flush {
		call.Errorf("the queue runs by itself; see smtpctl schedule all")
		return invoke.Software
	}
	j := job{call: call, user: user, options: o}
	if err := j.prepare(); err != nil {
		call.Errorf("%v", err)
		var bad *usageError
		if errors.As(err, &bad) {
			return bad.status
		}
		return invoke.IOErr
	}
	defer j.message.body.Close()
	return j.submit(ctx)
}

// usageError is what the caller did wrong.
type usageError struct {
	status int
	text   string
}

func (e *usageError) Error() string { return e.text }

// job is one message on its way.
type job struct {
	call    *invoke.Call
	user    User
	options options
	message *message
	from    string // not qualified
	rcpts   []string
}

// prepare reads everything and decides on sender and recipients.
func (j *job) prepare() (err error) {
	if j.from, err = sender(j.options, j.user); err != nil {
		return err
	}
	for _, a := range j.options.operands {
		list, err := parseArgument(a)
		if err != nil {
			return &usageError{invoke.Usage, fmt.Sprintf("%v: %q", err, a)}
		}
		j.rcpts = append(j.rcpts, list...)
	}
	if len(j.rcpts) == 0 && !j.options.headers {
		return &usageError{invoke.Usage, "no recipients"}
	}
	if j.message, err = read(j.call.Stdin); err != nil {
		return fmt.Errorf("reading the message: %w", err)
	}
	return j.fromHeader()
}

// fromHeader takes recipients, with -t, and without -f the sender from the
// header, as OpenSMTPD does.
func (j *job) fromHeader() error {
	h := &j.message.header
	if j.options.headers {
		list, err := h.addresses("To", "Cc", "Bcc")
		if err != nil {
			return &usageError{invoke.DataErr, fmt.Sprintf("%v in the header", err)}
		}
		j.rcpts = append(j.rcpts, list...)
		if len(j.rcpts) == 0 {
			return &usageError{invoke.Usage, "no recipients"}
		}
	}
	if !j.options.fromSet {
		// A From that nobody can read is no reason to refuse the mail.
		if list, err := h.addresses("From"); err == nil && len(list) > 0 {
			j.from = list[len(list)-1]
		}
	}
	return nil
}

// parseArgument is parseList for what is not a header, in which lines are not
// folded.
func parseArgument(s string) ([]string, error) {
	if strings.ContainsFunc(s, func(r rune) bool { return r < ' ' && r != '\t' || r == 0x7f }) {
		return nil, errAddress
	}
	return parseList(s)
}

// sender is the envelope sender unless the header says otherwise: the argument
// of -f, which may be "<>", or the user.
func sender(o options, user User) (string, error) {
	if !o.fromSet {
		return user.Login, nil
	}
	list, err := parseArgument(o.from)
	if err != nil || len(list) > 1 {
		return "", &usageError{invoke.Usage, fmt.Sprintf("invalid sender address: %q", o.from)}
	}
	if len(list) == 0 {
		return "", nil
	}
	return list[0], nil
}

// submit hands the message to the daemon.
func (j *job) submit(ctx context.Context) int {
	places, err := j.call.Places("")
	if err != nil {
		j.call.Errorf("%v", err)
		return invoke.OSErr
	}
	client, err := ctl.Dial(ctx, places.Socket, version.Build)
	if err != nil {
		return j.unavailable(err)
	}
	conn, err := client.Session()
	client.Close()
	if err != nil {
		return j.unavailable(err)
	}
	defer conn.Close()
	stop := context.AfterFunc(ctx, func() { conn.Close() })
	defer stop()
	w := &wire{Conn: conn}
	if j.options.verbose {
		w.show = j.call.Stdout
	}
	_, sent := j.envelope("localhost") // for a dialogue that does not come far
	err = dialogue(w, func(host string) (envelope, identity) {
		var env envelope
		env, sent = j.envelope(host)
		return env, sent
	}, j.message)
	if err == nil {
		return invoke.OK
	}
	j.call.Errorf("%s", explain(err))
	if err := j.deadLetter(sent); err != nil {
		j.call.Errorf("dead.letter: %v", err)
	}
	return status(err)
}

// unavailable is the end when there is no daemon to talk to.
func (j *job) unavailable(err error) int {
	j.call.Errorf("%v", err)
	var refused *ctl.Refused
	if errors.As(err, &refused) && !refused.Temp {
		return invoke.Unavailable
	}
	return invoke.TempFail
}

// envelope completes addresses with the daemon's name.
func (j *job) envelope(host string) (envelope, identity) {
	env := envelope{
		from:   qualify(j.from, host),
		notify: j.options.notify,
		ret:    j.options.ret,
		envid:  j.options.envid,
	}
	seen := make(map[string]bool, len(j.rcpts))
	for _, a := range j.rcpts {
		a = qualify(a, host)
		if !seen[a] { // who stands in To and Cc wants one copy
			env.rcpts = append(env.rcpts, a)
		}
		seen[a] = true
	}
	id := identity{from: env.from, date: j.call.Clock.Now()}
	if id.from == "" { // a report has an author too
		id.from = qualify(j.user.Login, host)
	}
	switch {
	case j.options.nameSet:
		id.name = j.options.name
	case !j.options.fromSet:
		id.name = fullName(j.user)
	}
	return env, id
}

// fullName returns the first part of the gecos field, in which '&' stands for
// the login name, capitalised.
func fullName(u User) string {
	name, _, _ := strings.Cut(u.Gecos, ",")
	if u.Login == "" {
		return name
	}
	return strings.Replace(name, "&", strings.ToUpper(u.Login[:1])+u.Login[1:], 1)
}

// displayName writes a name as it may stand before an address (RFC 5322 section
// 3.4): as it is, quoted, or as an encoded word (RFC 2047).
func displayName(name string) string {
	name = strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f {
			return -1
		}
		return r
	}, name)
	plain := true
	for _, r := range name {
		switch {
		case r >= 0x80:
			return mime.QEncoding.Encode("utf-8", name)
		case strings.ContainsRune(`()<>[]:;@\,."`, r):
			plain = false
		}
	}
	if plain {
		return name
	}
	return `"` + strings.NewReplacer(`\`, `\\`, `"`, `\"`).Replace(name) + `"`
}

// deadLetter keeps a message that could not be handed over in the caller's home
// directory, where mail programs look for it.
func (j *job) deadLetter(id identity) error {
	if j.user.Home == "" {
		return nil
	}
	name := filepath.Join(j.user.Home, "dead.letter")
	f, err := os.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_TRUNC|syscall.O_NOFOLLOW|syscall.O_NONBLOCK, 0o600)
	if err != nil {
		return err
	}
	err = j.message.writeTo(lfWriter{f}, id)
	if cerr := f.Close(); err == nil {
		err = cerr
	}
	return err
}

// lfWriter ends lines with LF that end in CRLF. No other CR comes its way.
type lfWriter struct{ f *os.File }

func (l lfWriter) Write(p []byte) (int, error) {
	if _, err := l.f.WriteString(strings.ReplaceAll(string(p), "\r", "")); err != nil {
		return 0, err
	}
	return len(p), nil
}
