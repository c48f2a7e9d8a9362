package filter

import (
	"context"

	"opensmtpd/src/filter/greylist"
	"opensmtpd/src/smtp"
	"opensmtpd/src/smtp/server"
)

// Greylist remembers who has come again.
type Greylist interface {
	// Allow tells whether a recipient may be accepted. An error is temporary.
	Allow(ctx context.Context, r greylist.Rule, t greylist.Try) (greylist.Answer, error)
}

// comeAgain is what a client is told that is to come again.
func comeAgain() server.Verdict {
	return server.Verdict{Action: server.Reject, Reply: smtp.Fail(451, 7, 1,
		"Greylisted: this server does not know yours yet, please try again later")}
}

// greylist is true when nobody else is asked about a recipient, because the client
// is to come again.
//
// With the null sender it is told so at DATA: who only asks whether an address
// exists, as servers do that look back at the sender of our mail, does not get
// there, and would hold our mail up were he told to come again.
func (c *chain) greylist(b *builtin, q *question) bool {
	if c.o.Greylist == nil || trusted(q.s) {
		return false
	}
	from, _ := senderOf(q.s, "")
	t := greylist.Try{Addr: q.s.Client.Addr.Addr(), From: from, To: q.param}
	if n := &q.s.Client.Name; n.Forward {
		t.Name = n.Host
	}
	a, err := c.o.Greylist.Allow(q.ctx, b.rule, t)
	switch {
	case err != nil:
		c.o.Log.FilterFailed(q.s.ID, b.name, err)
		return q.refuse(temporary())
	case a.Pass && a.Proven.IsValid():
		c.o.Log.FilterGreylist(q.s.ID, b.name, a.Proven, a.After)
		return false
	case a.Pass:
		return false
	case from == "":
		q.st.greyed = q.s.Transaction().ID
		return false
	}
	return q.refuse(comeAgain())
}

// greyed is greylist at DATA.
func (c *chain) greyed(q *question) bool {
	if t := q.s.Transaction(); t == nil || t.ID != q.st.greyed {
		return false
	}
	return q.refuse(comeAgain())
}

// trusted tells whether a client is one of ours, who need not prove anything: it
// has authenticated, or is on this machine. One that reaches one of our addresses
// from the same address is.
func trusted(s *server.Session) bool {
	a := s.Client.Addr.Addr().Unmap()
	return s.User != "" || s.Listener.Socket || !a.IsValid() || a.IsLoopback() || a == s.Client.To.Unmap()
}
