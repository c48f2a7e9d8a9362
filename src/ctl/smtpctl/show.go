package smtpctl

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"opensmtpd/src/ctl"
	"opensmtpd/src/privsep/msg"
)

// outcome is what -j writes for a command that has nothing to list.
type outcome struct {
	OK    bool   `json:"ok"`
	Error string `json:"error,omitempty"`
}

// result runs a command that succeeds or fails.
func result(s *session, c *command, params []string) error {
	_, err := s.ask(c, params, ctl.Answer{})
	var refused *ctl.Refused
	if err != nil && !errors.As(err, &refused) {
		return err
	}
	switch {
	case s.json && refused == nil:
		return s.jsonValue(outcome{OK: true})
	case s.json:
		if err := s.jsonValue(outcome{Error: refused.Text}); err != nil {
			return err
		}
		return exit(1)
	case refused == nil:
		fmt.Fprintln(s.out, "command succeeded")
		return nil
	case refused.Text == "":
		fmt.Fprintln(s.out, "command failed")
	default:
		fmt.Fprintf(s.out, "command failed: %s\n", refused.Text)
	}
	return exit(1)
}

// keyword is result for a command whose argument is one of a few words.
func keyword(what string, words []string) func(*session, *command, []string) error {
	return func(s *session, c *command, params []string) error {
		if !slices.Contains(words, params[0]) {
			return fmt.Errorf("invalid %s keyword: %s", what, params[0])
		}
		return result(s, c, params)
	}
}

// counted runs a command that changes envelopes and says how many.
func counted(done string) func(*session, *command, []string) error {
	return func(s *session, c *command, params []string) error {
		n, err := s.ask(c, params, ctl.Answer{})
		if err != nil {
			return err
		}
		return s.sayCount(n, n > 1, done)
	}
}

func discover(s *session, c *command, params []string) error {
	n, err := s.ask(c, params, ctl.Answer{})
	if err != nil {
		return err
	}
	return s.sayCount(n, n != 1, "discovered")
}

func (s *session) sayCount(n uint32, plural bool, done string) error {
	if s.json {
		return s.jsonValue(ctl.CountRow{Count: n})
	}
	ending := ""
	if plural {
		ending = "s"
	}
	_, err := fmt.Fprintf(s.out, "%d envelope%s %s\n", n, ending, done)
	return err
}

func showRaw(s *session, c *command, params []string) error {
	_, err := s.ask(c, params, ctl.Answer{Raw: func(p []byte) error {
		_, err := s.out.Write(p)
		return err
	}})
	if err == nil {
		return nil
	}
	d, err := s.onDisk(err)
	if err != nil {
		return err
	}
	defer d.Close()
	if c.verb == msg.VerbEnvelope {
		return d.showEnvelope(s, params[0])
	}
	return d.showMessage(s, params[0])
}

// showMessageOf shows the message that an envelope belongs to.
func showMessageOf(s *session, c *command, params []string) error {
	return showRaw(s, c, []string{params[0][:8]})
}

func showQueue(s *session, c *command, params []string) error {
	print := func(row *ctl.QueueRow) error {
		_, err := s.out.WriteString(queueLine(row))
		return err
	}
	_, err := s.ask(c, params, ctl.Answer{Row: rowOf(s, print)})
	if err == nil {
		return nil
	}
	d, err := s.onDisk(err)
	if err != nil {
		return err
	}
	defer d.Close()
	return d.list(s, params, print)
}

// queueLine is a line of "show queue", as smtpctl(8) describes it.
func queueLine(r *ctl.QueueRow) string {
	state := r.State + "|"
	if r.State == "pending" || r.State == "inflight" {
		state = fmt.Sprintf("%s|%d", r.State, r.Seconds)
	}
	return fmt.Sprintf("%s|%s|%s|%s|%s|%s|%s|%d|%d|%d|%d|%s|%s\n",
		r.ID, r.Source, r.Type, strings.Join(r.Flags, ","),
		address(r.Sender), address(r.Rcpt), address(r.Dest),
		r.Created, r.Expires, r.LastTry, r.Retry, state, visible(r.Error))
}

// address always shows an at-sign; alone it is the null sender.
func address(a string) string {
	if !strings.Contains(a, "@") {
		a += "@"
	}
	return visible(a)
}

// visible makes one line of s, on which no byte acts on a terminal, in the
// notation of vis(3).
func visible(s string) string {
	if !strings.ContainsFunc(s, func(r rune) bool { return r < ' ' && r != '\t' || r >= 0x7f || r == '\\' }) {
		return s
	}
	var b strings.Builder
	for _, c := range []byte(s) {
		visibleByte(&b, c)
	}
	return b.String()
}

func visibleByte(b *strings.Builder, c byte) {
	if c == '\\' {
		b.WriteString(`\\`)
		return
	}
	meta := c >= 0x80
	low := c & 0x7f
	control := low < ' ' || low == 0x7f
	switch {
	case c == '\t' || !meta && !control:
		b.WriteByte(c)
	case meta && control:
		fmt.Fprintf(b, `\M^%c`, low^0x40)
	case meta:
		fmt.Fprintf(b, `\M-%c`, low)
	default:
		fmt.Fprintf(b, `\^%c`, low^0x40)
	}
}

func showStatus(s *session, c *command, params []string) error {
	_, err := s.ask(c, params, ctl.Answer{Row: rowOf(s, func(row *ctl.StatusRow) error {
		_, err := fmt.Fprintf(s.out, "MDA %s\nMTA %s\nSMTP %s\n", row.MDA, row.MTA, row.SMTP)
		return err
	})})
	return err
}

func showStats(s *session, c *command, params []string) error {
	_, err := s.ask(c, params, ctl.Answer{Row: rowOf(s, func(row *ctl.StatRow) error {
		_, err := fmt.Fprintf(s.out, "%s=%d\n", row.Key, row.Value)
		if row.Key == "uptime" {
			_, err = fmt.Fprintf(s.out, "uptime.human=%s\n", duration(row.Value))
		}
		return err
	})})
	return err
}

// duration writes seconds as 1d2h3m4s, leaving out what is zero.
func duration(sec int64) string {
	if sec == 0 {
		return "0s"
	}
	var b strings.Builder
	if sec < 0 {
		b.WriteByte('-')
		sec = -sec
	}
	for _, u := range []struct {
		seconds int64
		letter  string
	}{{86400, "d"}, {3600, "h"}, {60, "m"}, {1, "s"}} {
		if n := sec / u.seconds; n > 0 {
			fmt.Fprintf(&b, "%d%s", n, u.letter)
			sec %= u.seconds
		}
	}
	return b.String()
}

// monitor shows what changed, every second, until the user or the daemon ends
// it.
func monitor(s *session, c *command, params []string) error {
	var last ctl.DigestRow
	for n := 0; ; n++ {
		var now ctl.DigestRow
		_, err := s.ask(c, params, ctl.Answer{Row: rowOf(s, func(row *ctl.DigestRow) error {
			now = *row
			return nil
		})})
		if err != nil {
			return err
		}
		if !s.json {
			s.out.WriteString(monitorLine(n, last, now))
		}
		if err := s.out.Flush(); err != nil {
			return err
		}
		last = now
		tick, cancel := s.call.Clock.After(time.Second)
		select {
		case <-tick:
		case <-s.ctx.Done():
			cancel()
			return nil
		}
	}
}

const monitorHead = "--- client ---  -- envelope --   ---- relay/delivery --- ------- misc -------\n" +
	"curr conn disc  curr  enq  deq   ok tmpfail prmfail loop expire remove bounce\n"

// monitorEvery is after how many lines the head is repeated.
const monitorEvery = 25

func monitorLine(n int, last, now ctl.DigestRow) string {
	head := ""
	if n%monitorEvery == 0 {
		head = monitorHead
		if n > 0 {
			head = "\n" + head
		}
	}
	return head + fmt.Sprintf("%4d %4d %4d  %4d %4d %4d %4d    %4d    %4d %4d   %4d   %4d   %4d\n",
		now.ClientConnect-now.ClientDisconnect,
		now.ClientConnect-last.ClientConnect,
		now.ClientDisconnect-last.ClientDisconnect,
		now.Enqueued-now.Dequeued,
		now.Enqueued-last.Enqueued,
		now.Dequeued-last.Dequeued,
		now.OK-last.OK,
		now.TempFail-last.TempFail,
		now.PermFail-last.PermFail,
		now.Loop-last.Loop,
		now.Expired-last.Expired,
		now.Removed-last.Removed,
		now.Bounce-last.Bounce)
}
