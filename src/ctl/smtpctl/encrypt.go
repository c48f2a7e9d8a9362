package smtpctl

import (
	"bufio"
	"errors"
	"fmt"
	"os"
	"strings"

	"golang.org/x/term"

	"opensmtpd/src/crypt"
)

// encrypt writes the hash of its argument, or of each line of stdin, or of what
// is typed at a terminal.
func encrypt(s *session, _ *command, params []string) error {
	return s.hashes(crypt.DefaultScheme, params)
}

// encryptAs is encrypt with the scheme as its first argument.
func encryptAs(s *session, _ *command, params []string) error {
	return s.hashes(params[0], params[1:])
}

func (s *session) hashes(scheme string, passwords []string) error {
	if len(passwords) > 0 {
		return s.hash(scheme, passwords[0])
	}
	if tty, ok := s.call.Stdin.(*os.File); ok && term.IsTerminal(int(tty.Fd())) {
		password, err := s.askPassword(tty)
		if err != nil {
			return err
		}
		return s.hash(scheme, password)
	}
	lines := bufio.NewScanner(s.call.Stdin)
	for lines.Scan() {
		if err := s.hash(scheme, strings.TrimSuffix(lines.Text(), "\r")); err != nil {
			return err
		}
	}
	return lines.Err()
}

// askPassword reads a password twice, without showing it.
func (s *session) askPassword(tty *os.File) (string, error) {
	var said [2]string
	for i, prompt := range []string{"Password: ", "Again: "} {
		fmt.Fprint(s.call.Stderr, prompt)
		typed, err := term.ReadPassword(int(tty.Fd()))
		fmt.Fprintln(s.call.Stderr)
		if err != nil {
			return "", err
		}
		said[i] = string(typed)
	}
	if said[0] != said[1] {
		return "", errors.New("the two are not the same")
	}
	return said[0], nil
}

func (s *session) hash(scheme, password string) error {
	h, err := crypt.Make(scheme, password)
	if err != nil {
		return err
	}
	if _, err = fmt.Fprintln(s.out, h); err == nil {
		err = s.out.Flush()
	}
	return err
}
