// Smtpctl is smtpctl(8), and by its other names sendmail(8), send-mail, mailq,
// newaliases(8) and makemap(8). It may be installed set-gid, for the queue's
// sake; the right is given up before anything is read.
package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"

	"opensmtpd/src/clock"
	"opensmtpd/src/ctl/invoke"
	"opensmtpd/src/ctl/makemap"
	"opensmtpd/src/ctl/sendmail"
	"opensmtpd/src/ctl/smtpctl"
	"opensmtpd/src/paths"
)

func main() {
	setID := paths.SetID()
	if err := giveUp(); err != nil {
		fmt.Fprintf(os.Stderr, "smtpctl: cannot give up rights: %v\n", err)
		os.Exit(invoke.OSErr)
	}
	os.Exit(run(os.Args, setID, os.Stdin, os.Stdout, os.Stderr))
}

// giveUp returns to the real user and group, for good.
func giveUp() error {
	if gid := os.Getgid(); gid != os.Getegid() {
		if err := syscall.Setregid(gid, gid); err != nil {
			return err
		}
	}
	if uid := os.Getuid(); uid != os.Geteuid() {
		if err := syscall.Setreuid(uid, uid); err != nil {
			return err
		}
	}
	if paths.SetID() {
		return syscall.EPERM
	}
	return nil
}

// run chooses the program by its name.
func run(argv []string, setID bool, stdin io.Reader, stdout, stderr io.Writer) int {
	ctx := context.Background()
	call := &invoke.Call{
		Name:   filepath.Base(argv[0]),
		Args:   argv[1:],
		Stdin:  stdin,
		Stdout: stdout,
		Stderr: stderr,
		Getenv: os.Getenv,
		SetID:  setID,
		UID:    os.Getuid(),
		Clock:  clock.NewSystem(),
	}
	switch call.Name {
	case "smtpctl", "mailq":
		return smtpctl.Run(ctx, call)
	case "sendmail", "send-mail":
		return runSendmail(ctx, call)
	case "newaliases":
		return makemap.Newaliases(ctx, call)
	case "makemap":
		return makemap.Run(ctx, call)
	}
	call.Errorf("unsupported mode: call it smtpctl, sendmail, send-mail, mailq, newaliases or makemap")
	return invoke.Failure
}

// runSendmail serves the modes of sendmail that are programs of their own.
func runSendmail(ctx context.Context, call *invoke.Call) int {
	switch sendmail.Asked(call.Args) {
	case sendmail.Newaliases:
		return makemap.Newaliases(ctx, call)
	case sendmail.Mailq:
		mailq := *call
		mailq.Name, mailq.Args = "mailq", nil
		return smtpctl.Run(ctx, &mailq)
	}
	return sendmail.Run(ctx, call, whoami(call.UID))
}

// whoami returns the real user; one that the system does not know is anonymous.
func whoami(uid int) sendmail.User {
	u, err := user.LookupId(strconv.Itoa(uid))
	if err != nil {
		return sendmail.User{Login: "anonymous"}
	}
	// The login name goes into addresses: what is none is not believed.
	if strings.ContainsAny(u.Username, " \t\r\n<>@\",;:") || u.Username == "" {
		u.Username = "anonymous"
	}
	return sendmail.User{Login: u.Username, Gecos: u.Name, Home: u.HomeDir}
}
