package lka

import (
	"cmp"
	"context"
	"fmt"
	"net/netip"
	"os"
	"strconv"

	"opensmtpd/src/ctl"
	"opensmtpd/src/lookup/expand"
	"opensmtpd/src/lookup/program"
	"opensmtpd/src/lookup/ruleset"
	"opensmtpd/src/lookup/table"
	"opensmtpd/src/mail"
	"opensmtpd/src/mail/addr"
	"opensmtpd/src/mailerr"
	"opensmtpd/src/privsep/msg"
	"opensmtpd/src/privsep/proc"
	"opensmtpd/src/queue/envelope"
)

// noName is what OpenSMTPD calls a client without a name, in rules and
// envelopes.
const noName = "<unknown>"

// expand answers who receives the mail for a recipient. The envelopes go to
// queue before the answer, so that they are there when dispatcher commits.
func (r *Role) expand(ctx context.Context, q proc.Request) {
	var m msg.Expand
	if err := q.Parse(&m); err != nil {
		q.Fail(mailerr.Local(err))
		return
	}
	g := r.at(m.Gen)
	waiting, enough := r.patiently(ctx)
	list, refused := expand.Expand(waiting, &g.expand, r.world(), subject(&m))
	enough()
	if refused != nil {
		if refused.Cause != nil {
			r.log.RecipientTrouble(m.Session, m.Rcpt.String(), refused)
		}
		q.Reply(&msg.Expanded{Err: refused})
		return
	}
	// Nothing but the death of queue may stop this half-way: the envelopes that
	// had gone would be taken for those of the next recipient.
	ctx = context.WithoutCancel(ctx)
	reply := msg.Expanded{Added: uint32(len(list)), Dests: make([]addr.Address, len(list))}
	add := msg.AddEnvelope{Envelope: template(&m)}
	for i := range list {
		fill(&add.Envelope, &list[i], mail.EnvelopeAt(m.Message, m.First+uint32(i)))
		if err := r.queue.Send(ctx, &add); err != nil {
			q.Reply(&msg.Expanded{Err: mailerr.From(err)})
			return
		}
		reply.Dests[i] = list[i].Dest
	}
	q.Reply(&reply)
}

// subject is a recipient as the rules see it. A report is from this machine, by
// the local socket as OpenSMTPD sends it.
func subject(m *msg.Expand) *ruleset.Subject {
	s := &ruleset.Subject{
		Tag: m.Client.Tag, RDNS: m.Client.RDNS, Helo: m.Client.Helo, TLS: m.Client.TLS,
		Authenticated: m.Flags&envelope.Authenticated != 0 || m.Client.Socket && m.Flags&envelope.IsBounce != 0,
		AuthUser:      m.Client.AuthUser, Sender: m.Sender, Rcpt: m.Rcpt,
		Internal: m.Flags&envelope.Internal != 0 && !m.Client.Socket,
	}
	if !m.Client.Socket {
		s.Addr = m.Client.Addr.Addr()
	}
	if !m.Client.Socket && !s.Addr.IsValid() {
		// Without an address a client is nobody, and not the local socket.
		s.Addr = netip.IPv6Unspecified()
	}
	if s.RDNS == noName {
		s.RDNS = ""
	}
	return s
}

// template is what all envelopes of a recipient have in common.
func template(m *msg.Expand) envelope.Envelope {
	e := envelope.Envelope{
		Flags: m.Flags, Tag: m.Client.Tag,
		SMTPName: m.Client.SMTPName, Helo: m.Client.Helo, Hostname: m.Client.RDNS, Username: m.Client.AuthUser,
		Sender: m.Sender, Rcpt: m.Rcpt, Created: m.Now,
		DSNNotify: m.Notify, DSNRet: m.Return, DSNEnvID: m.EnvID, DSNORcpt: m.ORcpt,
	}
	if e.Hostname == "" {
		e.Hostname = noName
	}
	if m.Client.Socket {
		e.LocalUID = m.Client.UID
	} else {
		e.Source = m.Client.Addr
	}
	return e
}

func fill(e *envelope.Envelope, d *expand.Delivery, id mail.EnvelopeID) {
	e.ID, e.Type, e.Action, e.TTL = id, d.Type, d.Action.Name, d.Action.TTL
	e.Dest, e.MDAExec, e.MDAUser, e.MDASubaddress = d.Dest, d.Exec, d.User, d.Subaddress
}

// rdns answers what a client is called.
func (r *Role) rdns(ctx context.Context, q proc.Request) {
	var m msg.RDNS
	if err := q.Parse(&m); err != nil || !m.Addr.IsValid() {
		q.Fail(mailerr.Local(fmt.Errorf("rdns: %v: %w", m.Addr, err)))
		return
	}
	n := r.dns.RDNS(ctx, m.Addr)
	q.Reply(&msg.RDNSReply{Name: n.Name, Forward: n.Forward, Temp: n.Temp})
}

// userBase tells parent who a virtual user is.
func (r *Role) userBase(ctx context.Context, q proc.Request) {
	var m msg.UserBase
	if err := q.Parse(&m); err != nil {
		q.Fail(mailerr.Local(err))
		return
	}
	t := r.at(m.Gen).tables[m.Table]
	if t == nil {
		q.Fail(mailerr.Local(fmt.Errorf("no table %s", m.Table)))
		return
	}
	value, found, err := t.Lookup(ctx, table.UserInfo, m.Name)
	if err != nil {
		q.Fail(mailerr.Local(fmt.Errorf("table %s: %w", m.Table, err)))
		return
	}
	if !found {
		q.Reply(&msg.UserInfoReply{})
		return
	}
	u, err := table.ParseUser(m.Name, value)
	if err != nil {
		q.Fail(mailerr.Local(fmt.Errorf("table %s: %s: %w", m.Table, m.Name, err)))
		return
	}
	q.Reply(&msg.UserInfoReply{Found: true, Name: u.Name, UID: u.UID, GID: u.GID, Home: u.Home})
}

// control serves smtpctl.
func (r *Role) control(ctx context.Context, q proc.Request) {
	var m msg.Control
	if err := q.Parse(&m); err != nil {
		q.Fail(mailerr.Permanent(500, 5, 2, "Syntax error", err))
		return
	}
	switch {
	case m.Verb == msg.VerbExplain:
		r.explain(ctx, q, &m)
	case m.Verb == msg.VerbUpdateTable && len(m.Args) == 1:
		if err := r.updateTable(ctx, m.Args[0]); err != nil {
			q.Fail(err)
			return
		}
		q.Reply(&msg.ControlRows{})
	default:
		q.Fail(mailerr.Permanent(500, 5, 1, "lookup does not know "+string(m.Verb), nil))
	}
}

// explain tells what the rules would do with a recipient, a page at a time; the
// cursor is the number of rows that went before.
func (r *Role) explain(ctx context.Context, q proc.Request, m *msg.Control) {
	subject, err := expand.Question(m.Args)
	if err != nil {
		q.Fail(mailerr.Permanent(501, 5, 4, err.Error(), nil))
		return
	}
	from := 0
	if m.Cursor != "" {
		if from, err = strconv.Atoi(m.Cursor); err != nil || from < 0 {
			q.Fail(mailerr.Permanent(501, 5, 4, "no such page", nil))
			return
		}
	}
	var page ctl.Page
	waiting, enough := r.patiently(ctx)
	rows := expand.Explain(waiting, &r.at(0).expand, r.world(), subject)
	enough()
	for i := min(from, len(rows)); i < len(rows); i++ {
		room, err := page.Add(rows[i])
		switch {
		case err != nil:
			q.Fail(mailerr.Local(err))
			return
		case !room && i+1 < len(rows):
			q.Reply(page.More(strconv.Itoa(i + 1)))
			return
		}
	}
	q.Reply(page.Done())
}

// updateTable reads a table again. One that is not in a file has nothing to
// read.
func (r *Role) updateTable(ctx context.Context, name string) *mailerr.Error {
	g := r.at(0)
	t := g.tables[name]
	if t == nil {
		r.log.TableUnknown(name)
		return mailerr.Permanent(550, 3, 0, "there is no table "+name, nil)
	}
	if err := r.reread(ctx, g, name, t); err != nil {
		r.log.TableNotUpdated(name, err)
		return mailerr.Permanent(550, 3, 0, "the old content stays: "+err.Error(), nil)
	}
	r.log.TableUpdated(name)
	r.complain(g, name)
	return nil
}

// reread has a file opened again and reads it, or a program do what it does
// instead.
func (r *Role) reread(ctx context.Context, g *generation, name string, t table.Table) error {
	if p, ok := t.(program.Table); ok {
		return p.Update(ctx)
	}
	if s := static(t); s == nil || s.Path() == "" {
		return nil
	}
	f, err := r.openTable(ctx, g.gen, name)
	if err != nil {
		return err
	}
	if m, ok := t.(mapFile); ok {
		return m.watch.use(f)
	}
	defer f.Close()
	return g.update(static(t), f)
}

// openTable asks parent for the file of a table.
func (r *Role) openTable(ctx context.Context, gen mail.Gen, name string) (*os.File, error) {
	var reply msg.TableFileReply
	f, err := r.parent.CallFile(ctx, &msg.TableFile{Gen: gen, Name: name}, &reply)
	if err == nil && reply.Err != nil {
		err = cmp.Or(reply.Err.Cause, error(reply.Err))
	}
	if err == nil && f == nil {
		err = fmt.Errorf("table %s: no descriptor came", name)
	}
	if err != nil && f != nil {
		f.Close()
	}
	return f, err
}
