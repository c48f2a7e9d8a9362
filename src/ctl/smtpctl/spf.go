package smtpctl

import (
	"bufio"
	"fmt"
	"net"
	"net/netip"
	"strings"

	"opensmtpd/src/mail/spf"
)

// spfWalk lists the networks that the domains on stdin send from by their SPF
// records.
func spfWalk(keep func(netip.Addr) bool) func(*session, *command, []string) error {
	return func(s *session, _ *command, _ []string) error {
		return s.walk(&net.Resolver{PreferGo: true}, keep)
	}
}

func (s *session) walk(r spf.Resolver, keep func(netip.Addr) bool) error {
	w := &spf.Walk{
		Resolver: r,
		Found: func(p netip.Prefix) error {
			if keep != nil && !keep(p.Addr()) {
				return nil
			}
			return s.network(p)
		},
		Trouble: func(domain string, err error) { s.call.Errorf("%s: %v", domain, err) },
	}
	lines := bufio.NewScanner(s.call.Stdin)
	for lines.Scan() {
		domain := strings.TrimSpace(lines.Text())
		if domain == "" {
			continue
		}
		if err := w.Domain(s.ctx, domain); err != nil {
			return err
		}
		if err := s.out.Flush(); err != nil {
			return err
		}
	}
	return lines.Err()
}

// network writes a network as tables have it: a single address alone.
func (s *session) network(p netip.Prefix) error {
	text := p.String()
	if p.IsSingleIP() {
		text = p.Addr().String()
	}
	if s.json {
		return s.jsonValue(struct {
			Network string `json:"network"`
		}{text})
	}
	_, err := fmt.Fprintln(s.out, text)
	return err
}
