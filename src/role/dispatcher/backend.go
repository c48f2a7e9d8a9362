package dispatcher

import (
	"context"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"opensmtpd/src/clock"
	"opensmtpd/src/lookup/table"
	"opensmtpd/src/mail"
	"opensmtpd/src/mailerr"
	"opensmtpd/src/mlog"
	"opensmtpd/src/privsep/msg"
	"opensmtpd/src/privsep/proc"
	"opensmtpd/src/queue/envelope"
	"opensmtpd/src/smtp"
	"opensmtpd/src/smtp/server"
)

// backend is what sessions see of the rest of the daemon: lookup decides about
// recipients and tells queue, queue keeps messages.
type backend struct {
	queue, lka proc.Caller
	clock      clock.Clock
	log        *mlog.Logger
	ids        *idPool
	names      *names
	crowd      crowd
	over       func(*server.Session)
	verifying  chan struct{}                 // a place for each password that lookup verifies
	closed     atomic.Pointer[mailerr.Error] // why queue takes no mail; nil: it does
	tainted    tainted
}

// tainted are messages about which lookup did not answer in time: envelopes of
// theirs may still reach queue, so their identifiers rest before they return to
// the pool.
type tainted struct {
	mu   sync.Mutex
	ids  map[mail.MessageID]time.Duration // since when, monotonic
	some atomic.Bool
}

// taintedTime is longer than any call of lookup's on the way to queue takes.
const taintedTime = 2 * time.Minute

func (x *tainted) add(id mail.MessageID, now time.Duration) {
	x.mu.Lock()
	defer x.mu.Unlock()
	if x.ids == nil {
		x.ids = make(map[mail.MessageID]time.Duration)
	}
	x.ids[id] = now
	x.some.Store(true)
}

// rested returns which identifiers may be given back, of id and those that were
// tainted before.
func (x *tainted) rested(id mail.MessageID, now time.Duration) []mail.MessageID {
	if !x.some.Load() {
		return []mail.MessageID{id}
	}
	x.mu.Lock()
	defer x.mu.Unlock()
	var back []mail.MessageID
	if _, is := x.ids[id]; !is {
		back = append(back, id)
	}
	for old, since := range x.ids {
		if now-since >= taintedTime {
			back = append(back, old)
			delete(x.ids, old)
		}
	}
	x.some.Store(len(x.ids) > 0)
	return back
}

func newBackend(env proc.Env, over func(*server.Session)) *backend {
	queue, lka := env.Peers[proc.Queue], env.Peers[proc.Lookup]
	return &backend{
		queue: queue, lka: lka, clock: env.Clock, log: env.Log, over: over,
		ids: newIDPool(queue), verifying: make(chan struct{}, maxVerifying),
		names: &names{lka: lka, clock: env.Clock},
	}
}

// Admit implements server.Backend.
func (b *backend) Admit(s *server.Session) *mailerr.Error {
	return b.crowd.enter(guestOf(s))
}

// Hostname implements server.Backend.
func (b *backend) Hostname(ctx context.Context, s *server.Session) string {
	q := msg.Query{
		Gen: s.Listener.Gen, Service: uint8(table.AddrName),
		Table: s.Listener.Hostnames, Key: table.AddrKey(s.Client.To),
	}
	var got msg.Answer
	err := b.lka.Call(ctx, &q, &got)
	if err == nil && got.Err != nil {
		err = got.Err
	}
	switch {
	case err != nil:
		b.log.Warnf("warn: smtp: hostnames: %v", err)
	case got.Found && !smtp.ValidHost(got.Value):
		b.log.Warnf("warn: smtp: hostnames: table %s: %q is no host name", q.Table, got.Value)
	case got.Found:
		return got.Value
	}
	return ""
}

// Lookup implements server.Backend.
func (b *backend) Lookup(ctx context.Context, a netip.Addr) server.Name { return b.names.find(ctx, a) }

// Begin implements server.Backend. No other process is asked.
func (b *backend) Begin(ctx context.Context) (mail.MessageID, *mailerr.Error) {
	if err := b.closed.Load(); err != nil {
		return 0, err
	}
	return b.ids.take(ctx)
}

// Rcpt implements server.Backend.
func (b *backend) Rcpt(ctx context.Context, s *server.Session, t *server.Transaction, r *smtp.Rcpt) (uint32, *mailerr.Error) {
	m := msg.Expand{
		Gen: s.Listener.Gen, Session: s.ID, Message: t.ID, First: t.Envelopes,
		Client: msg.Client{
			Listener: s.Listener.Identity, Tag: s.Listener.Tag, Socket: s.Listener.Socket,
			Addr: s.Client.Addr, RDNS: s.Client.Name.Host,
			Helo: s.Helo, SMTPName: s.Hostname, UID: s.Client.UID,
			TLS: s.TLS != nil, AuthUser: s.User,
		},
		Sender: t.Mail.From, Rcpt: r.To,
		Notify: r.Notify, Return: t.Mail.Return, EnvID: t.Mail.EnvID, ORcpt: r.ORcpt,
		Now: b.clock.Now(),
	}
	if s.Listener.Socket || s.User != "" {
		m.Flags |= envelope.Authenticated // of a local client the kernel has told who it is
	}
	if t.Mail.UTF8 {
		m.Flags |= envelope.SMTPUTF8
	}
	if t.Mail.RequireTLS {
		m.Flags |= envelope.RequireTLS
	}
	var got msg.Expanded
	if err := b.lka.Call(ctx, &m, &got); err != nil {
		// Nobody knows what queue has got or will get: the transaction is void,
		// and with it the session, which cannot be told so otherwise.
		b.tainted.add(t.ID, b.clock.Mono())
		return 0, &mailerr.Error{
			Class: mailerr.Drop, Code: 421, Enhanced: mailerr.Enhanced{4, 3, 0}, Text: "Temporary failure", Cause: err,
		}
	}
	return got.Added, got.Err
}

// Chunk implements server.Backend.
func (b *backend) Chunk(ctx context.Context, t *server.Transaction, data []byte) *mailerr.Error {
	return mailerr.From(b.queue.Send(ctx, &msg.BodyChunk{Message: t.ID, Data: data}))
}

// Commit implements server.Backend.
func (b *backend) Commit(ctx context.Context, t *server.Transaction, body []byte) *mailerr.Error {
	m := msg.Commit{Message: t.ID, Envelopes: t.Envelopes, Size: uint64(t.Size), Streamed: t.Streamed, TLSOptional: t.TLSOptional, Body: body}
	var got msg.Committed
	if err := b.queue.Call(ctx, &m, &got); err != nil {
		return mailerr.From(err)
	}
	return got.Err
}

// Discard implements server.Backend.
func (b *backend) Discard(id mail.MessageID) {
	for _, id := range b.tainted.rested(id, b.clock.Mono()) {
		// Not under the context of the session, which may be what has ended.
		// It waits only while queue takes nothing, and fails when queue is gone.
		if err := b.queue.Send(context.Background(), &msg.Discard{Message: id}); err != nil {
			b.log.Debugf("debug: smtp: discard %v: %v", id, err)
		}
	}
}

// Done implements server.Backend.
func (b *backend) Done(s *server.Session) {
	if s.Admitted {
		b.crowd.leave(guestOf(s))
	}
	b.over(s)
}
