package smtpctl

import (
	"fmt"
	"time"

	"opensmtpd/src/ctl"
)

// lines runs a command that lists rows, each on a line.
func lines[T any](line func(*T) string) func(*session, *command, []string) error {
	return func(s *session, c *command, params []string) error {
		_, err := s.ask(c, params, ctl.Answer{Row: rowOf(s, func(row *T) error {
			_, err := s.out.WriteString(line(row) + "\n")
			return err
		})})
		return err
	}
}

func mark(on bool, letter byte) byte {
	if on {
		return letter
	}
	return '-'
}

// span is a duration, or "-" for none.
func span(sec, none int64) string {
	if sec == none {
		return "-"
	}
	return duration(sec)
}

func routeLine(r *ctl.RouteRow) string {
	return fmt.Sprintf("%d. %s <-> %s %c%c-- nconn=%d nerror=0 penalty=%d timeout=%s",
		r.ID, visible(r.Source), visible(r.Host), mark(r.New, 'N'), mark(r.Disabled, 'D'), r.Conns, r.Penalty, span(r.Timeout, 0))
}

func hostLine(r *ctl.HostRow) string {
	return fmt.Sprintf("%s %s refcount=%d nconn=%d lastconn=%s", visible(r.Address), visible(r.Name), r.Refs, r.Conns, span(r.LastConn, -1))
}

func relayLine(r *ctl.RelayRow) string {
	if r.Connector != "" {
		return fmt.Sprintf("  connector %s refcount=%d nconn=%d lastconn=%s timeout=%s flags=%s",
			visible(r.Connector), r.Refs, r.Conns, span(r.LastConn, -1), span(r.Timeout, 0), r.Wait)
	}
	return fmt.Sprintf("%s refcount=%d ntask=%d nconn=%d lastconn=%s timeout=%s wait=%s",
		visible(r.Relay), r.Refs, r.Tasks, r.Conns, span(r.LastConn, -1), span(r.Timeout, 0), r.Wait)
}

// hoststatLine has what smtpctl(8) describes: domain, when, and what was said.
func hoststatLine(r *ctl.HoststatRow) string {
	return fmt.Sprintf("%s|%d|%s", visible(r.Domain), time.Unix(r.When, 0).Unix(), visible(r.Status))
}

// greyLine has a network that passes, or a triplet that is to come again.
func greyLine(r *ctl.GreyRow) string {
	if r.State != "grey" {
		return fmt.Sprintf("%s|%s|%s|%d|%d", r.State, r.Net, visible(r.Name), r.First, r.Until)
	}
	return fmt.Sprintf("%s|%s|%s|%d|%d|%s|%s|%d", r.State, r.Net, visible(r.Name), r.First, r.Until, address(r.Sender), address(r.Rcpt), r.Ready)
}

// passLine tells what has been done about a network.
func passLine(r *ctl.PassRow) string {
	switch {
	case r.Done == ctl.PassCovered && r.By == r.Net:
		return r.Net + " passes already"
	case r.Done == ctl.PassCovered:
		return fmt.Sprintf("%s passes already, by %s", r.Net, r.By)
	case r.Done == ctl.PassRemoved && r.Entered:
		return r.Net + " removed, which was entered"
	case r.Done == ctl.PassRemoved:
		return r.Net + " removed, which had proven itself"
	}
	return r.Net + " passes from now on"
}
