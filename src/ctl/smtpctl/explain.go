package smtpctl

import (
	"errors"
	"fmt"
	"strings"

	"opensmtpd/src/ctl"
	"opensmtpd/src/lookup/expand"
)

// explain asks what the rules would do with a recipient: the daemon, or with
// "-f file" those of a file.
func explain(s *session, c *command, args []string) error {
	file, offline := "", len(args) > 0 && args[0] == "-f"
	if offline {
		if len(args) < 2 {
			return errors.New("-f needs the name of a file")
		}
		file, args = args[1], args[2:]
	}
	subject, err := expand.Question(args)
	if err != nil {
		return err
	}
	if !offline {
		_, err := s.ask(c, args, ctl.Answer{Row: rowOf(s, s.explained)})
		return err
	}
	rows, err := s.explainFile(file, subject)
	if err != nil {
		return err
	}
	for i := range rows {
		if s.json {
			err = s.jsonValue(&rows[i])
		} else {
			err = s.explained(&rows[i])
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// explained writes a row in words.
func (s *session) explained(r *expand.Row) error {
	_, err := fmt.Fprintln(s.out, strings.Repeat("  ", r.Depth)+explanation(r))
	return err
}

func explanation(r *expand.Row) string {
	switch r.Kind {
	case "rule":
		if r.Matched {
			return fmt.Sprintf("rule %d, line %d matches: %s", r.Number, r.Line, r.Text)
		}
		return fmt.Sprintf("rule %d, line %d does not, for it wants %s: %s", r.Number, r.Line, r.Failed, r.Text)
	case "delivery":
		return "=> " + r.Text
	case "known":
		return "(" + r.Text + ")"
	case "refused":
		if r.Cause != "" {
			return "refused: " + r.Text + " (" + r.Cause + ")"
		}
		return "refused: " + r.Text
	}
	return r.Kind + " " + r.Text
}
