package parent

import (
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"syscall"

	"opensmtpd/src/clock"
	"opensmtpd/src/lookup/auth"
)

const (
	masterPasswd = "/etc/master.passwd"
	// loginPasswd is the program behind the default style of login.conf(5).
	loginPasswd = "/usr/libexec/auth/login_passwd"
	// maxVerdict is more than such a program has to say, in bytes.
	maxVerdict = 1024
)

// bsdAuth verifies as bsd_auth(3) does: by a program that is asked on its
// descriptor 3.
type bsdAuth struct {
	file    *accountFile // for the ends of accounts
	checker *auth.Checker
}

// systemAccounts verifies by bsd_auth(3).
func systemAccounts(c clock.Clock) verifier {
	checker := auth.NewChecker()
	return &bsdAuth{&accountFile{path: masterPasswd, parse: parseMaster, clock: c, checker: checker}, checker}
}

func (b *bsdAuth) verify(ctx context.Context, user, password string) (bool, error) {
	found, _, err := b.file.find(user)
	if err != nil {
		return false, err
	}
	leave, err := b.checker.Enter(ctx)
	if err != nil {
		return false, err
	}
	defer leave()
	ok, err := response(ctx, user, password)
	return ok && found.barred == "", err
}

// response runs the program with the challenge, which is empty, and the response.
func response(ctx context.Context, user, password string) (bool, error) {
	if strings.HasPrefix(user, "-") || strings.IndexByte(user+password, 0) >= 0 {
		return false, nil
	}
	fds, err := syscall.Socketpair(syscall.AF_UNIX, syscall.SOCK_STREAM|syscall.SOCK_CLOEXEC, 0)
	if err != nil {
		return false, os.NewSyscallError("socketpair", err)
	}
	ours, theirs := os.NewFile(uintptr(fds[0]), "back channel"), os.NewFile(uintptr(fds[1]), "back channel")
	defer ours.Close()
	c := exec.CommandContext(ctx, loginPasswd, "-s", "response", "--", user, "default")
	c.Env = []string{"PATH=/bin:/usr/bin", "SHELL=/bin/sh"}
	c.ExtraFiles = []*os.File{theirs}
	err = c.Start()
	theirs.Close()
	if err != nil {
		return false, fmt.Errorf("%s: %w", loginPasswd, err)
	}
	_, werr := io.WriteString(ours, "\x00"+password+"\x00")
	said, rerr := io.ReadAll(io.LimitReader(ours, maxVerdict))
	_ = c.Wait() // the verdict is what it said; its status repeats that
	for _, err := range []error{werr, rerr} {
		if err != nil {
			return false, fmt.Errorf("%s: %w", loginPasswd, err)
		}
	}
	ok := false
	for line := range strings.Lines(string(said)) {
		switch word, _, _ := strings.Cut(strings.TrimSpace(line), " "); word {
		case "reject":
			return false, nil
		case "authorize":
			ok = true
		}
	}
	return ok, nil
}
