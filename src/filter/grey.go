package filter

import (
	"context"
	"strings"

	"opensmtpd/src/filter/greylist"
	"opensmtpd/src/smtp"
	"opensmtpd/src/smtp/server"
)

// Greylist remembers who has come again.
type Greylist interface {
	// Allow tells whether a recipient may be accepted. An error is temporary.
	Allow(ctx context.Context, r greylist.Rule, t greylist.Try) (bool, error)
}

// greyReply is what a client is told that is to come again.
func greyReply() smtp.Reply {
	return smtp.Fail(451, 7, 1, "Greylisted: this server does not know yours yet, please try again later")
}

// greylist lets a recipient pass, or tells the client to come again.
func (c *chain) greylist(b *builtin, q *question) (server.Verdict, bool) {
	from, _ := senderOf(q.s, "")
	if c.o.Greylist == nil || trusted(q.s) || from == "" && isPostmaster(q.param) {
		return server.Verdict{}, true
	}
	t := greylist.Try{Addr: q.s.Client.Addr.Addr(), From: from, To: q.param}
	if n := &q.s.Client.Name; n.Forward {
		t.Name = n.Host
	}
	yes, err := c.o.Greylist.Allow(q.ctx, b.rule, t)
	if err != nil {
		c.o.Log.FilterFailed(q.s.ID, b.name, err)
	}
	return server.Verdict{Action: server.Reject, Reply: greyReply()}, yes && err == nil
}

// trusted tells whether a client is one of ours, who need not prove anything.
func trusted(s *server.Session) bool {
	a := s.Client.Addr.Addr()
	return s.User != "" || s.Listener.Socket || !a.IsValid() || a.Unmap().IsLoopback()
}

// isPostmaster tells whether an address is the postmaster's. A server that asks
// with the null sender whether there is one checks us, and would take an answer
// that it is to come again for a bad sign.
func isPostmaster(a string) bool {
	local, _, _ := strings.Cut(a, "@")
	return strings.EqualFold(local, "postmaster")
}
