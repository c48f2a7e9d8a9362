package smtpctl

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"

	"github.com/go-crypt/crypt/algorithm/bcrypt"
)

// bcryptRounds is the work of a hash: 2 to this power, some 60 ms.
const bcryptRounds = 10

// maxPassword is how much of a password bcrypt looks at; a longer one would be
// taken for its beginning, and is refused.
const maxPassword = bcrypt.PasswordInputSizeMax

// encrypt writes the hash of its argument, or of each line of stdin.
func encrypt(s *session, _ *command, params []string) error {
	if len(params) > 0 {
		return s.hash([]byte(params[0]))
	}
	lines := bufio.NewScanner(s.call.Stdin)
	for lines.Scan() {
		if err := s.hash(bytes.TrimSuffix(lines.Bytes(), []byte("\r"))); err != nil {
			return err
		}
	}
	return lines.Err()
}

func (s *session) hash(password []byte) error {
	if len(password) > maxPassword {
		return fmt.Errorf("password longer than %d bytes", maxPassword)
	}
	if bytes.IndexByte(password, 0) >= 0 {
		return errors.New("password with a NUL byte")
	}
	h, err := bcrypt.New(bcrypt.WithVariant(bcrypt.VariantStandard), bcrypt.WithIterations(bcryptRounds))
	if err != nil {
		return err
	}
	d, err := h.Hash(string(password))
	if err != nil {
		return err
	}
	_, err = fmt.Fprintln(s.out, d.Encode())
	if err == nil {
		err = s.out.Flush()
	}
	return err
}
