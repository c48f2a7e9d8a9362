package queue

import (
	"context"
	"errors"
	"fmt"
	"time"

	"opensmtpd/src/mail"
	"opensmtpd/src/mailerr"
	"opensmtpd/src/privsep/msg"
	"opensmtpd/src/privsep/proc"
	store "opensmtpd/src/queue"
	"opensmtpd/src/queue/envelope"
)

// Bounds on mail that is being received.
const (
	// maxReserved bounds the identifiers that dispatcher holds, and so the
	// transactions: more than it can have sessions.
	maxReserved = 1 << 17
	// maxEnvelopeMemory bounds what the envelopes of all transactions take, in
	// bytes: some 200,000 recipients.
	maxEnvelopeMemory = 128 << 20
	// envelopeSize is what an envelope takes beside its strings.
	envelopeSize = 640
	// patience is how long a commit waits for envelopes that lookup has sent
	// before its reply: they are on their way on another socket.
	patience = 10 * time.Second
)

// The answers when mail cannot be taken.
var (
	errFull   = errors.New("too many envelopes of unfinished messages in memory")
	errTooFew = errors.New("not all envelopes came from lookup")
)

// transaction is a message that is being received.
type transaction struct {
	id     mail.MessageID
	ours   bool // a report, not a message of dispatcher
	envs   []envelope.Envelope
	memory int
	body   *store.Body    // a large one, being written
	bad    *mailerr.Error // why it cannot be committed any more
	commit *commit        // asked for, and waiting for envelopes
}

// commit is what is to be made durable.
type commit struct {
	envelopes uint32
	message   store.Message
	streamed  bool
	optional  bool // TLS is, says the header
	deadline  time.Duration
	done      func(error)
}

// incoming holds the transactions. An identifier is in reserved from ReserveIDs
// to the reply of Commit, or Discard; what comes for any other is dropped.
type incoming struct {
	reserved map[mail.MessageID]*transaction // nil: nothing came yet
	waiting  []*transaction                  // for envelopes; the oldest first
	memory   int
}

func (in *incoming) init() { in.reserved = make(map[mail.MessageID]*transaction) }

// transaction returns that of an identifier which is reserved, else nil.
func (in *incoming) transaction(id mail.MessageID) *transaction {
	t, ok := in.reserved[id]
	if ok && t == nil {
		t = &transaction{id: id}
		in.reserved[id] = t
	}
	return t
}

// end forgets a transaction, which is finished one way or the other.
func (in *incoming) end(t *transaction) {
	delete(in.reserved, t.id)
	in.memory -= t.memory
	t.memory = 0
}

// deadline is when the oldest waiting commit is given up. Those that were
// settled stay in the list until then: their commit is nil.
func (in *incoming) deadline() (time.Duration, bool) {
	for len(in.waiting) > 0 && in.waiting[0].commit == nil {
		in.waiting[0] = nil
		in.waiting = in.waiting[1:]
	}
	if len(in.waiting) == 0 {
		return 0, false
	}
	return in.waiting[0].commit.deadline, true
}

// open waits until the store may be used.
func (r *Role) open(ctx context.Context) error {
	select {
	case <-r.ready:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (r *Role) reserveIDs(ctx context.Context, q proc.Request) {
	var m msg.ReserveIDs
	if err := q.Parse(&m); err != nil {
		q.Fail(mailerr.Local(err))
		return
	}
	if err := r.open(ctx); err != nil {
		q.Fail(mailerr.Local(err))
		return
	}
	ids, err := r.reserve(int(min(m.N, 4096)), false)
	if err != nil {
		q.Fail(mailerr.From(err))
		return
	}
	q.Reply(&msg.ReservedIDs{IDs: ids})
}

// reserve takes identifiers from the store. Those of our own reports do not
// count against what dispatcher may hold.
func (r *Role) reserve(n int, ours bool) ([]mail.MessageID, error) {
	r.mu.Lock()
	room, closed := maxReserved-len(r.incoming.reserved), r.closed
	r.mu.Unlock()
	if closed {
		return nil, closing()
	}
	if !ours {
		n = min(n, room)
	}
	if n <= 0 {
		return nil, mailerr.Temporary(451, 3, 2, "Too many messages are being received", nil)
	}
	ids, err := r.store.Reserve(n)
	if err != nil {
		return nil, err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, id := range ids {
		r.incoming.reserved[id] = nil
		if ours {
			r.incoming.transaction(id).ours = true
		}
	}
	return ids, nil
}

// addEnvelope takes an envelope from lookup.
func (r *Role) addEnvelope(_ context.Context, q proc.Request) {
	var m msg.AddEnvelope
	if err := q.Parse(&m); err != nil {
		q.Fail(mailerr.Local(err))
		return
	}
	if err := r.addOne(&m.Envelope, len(q.Body())); err != nil {
		r.env.Log.Transaction(m.Envelope.ID.Message(), err.Error())
	}
}

func (r *Role) addOne(e *envelope.Envelope, size int) error {
	r.mu.Lock()
	in := &r.incoming
	t := in.transaction(e.ID.Message())
	switch {
	case t == nil:
		r.mu.Unlock()
		// The client went away while lookup was at work.
		return nil
	case e.Type != envelope.MDA && e.Type != envelope.MTA:
		t.bad = mailerr.Local(fmt.Errorf("envelope %v is of a type that lookup cannot make", e.ID))
	case in.memory > maxEnvelopeMemory:
		t.bad = mailerr.Temporary(452, 3, 1, "Too many recipients for now", errFull)
	default:
		t.envs = append(t.envs, *e)
		t.memory += size + envelopeSize
		in.memory += size + envelopeSize
	}
	bad, c := t.bad, t.settled(in)
	r.mu.Unlock()
	if c != nil {
		r.settle(t, c)
	}
	if bad != nil {
		return bad
	}
	return nil
}

// settled returns the commit of t, and ends t, when all that it waited for has
// come or when there is no use in waiting.
func (t *transaction) settled(in *incoming) *commit {
	c := t.commit
	if c == nil || t.bad == nil && len(t.envs) < int(c.envelopes) {
		return nil
	}
	t.commit = nil
	in.end(t)
	return c
}

// bodyChunk takes a piece of a large body.
func (r *Role) bodyChunk(ctx context.Context, q proc.Request) {
	var m msg.BodyChunk
	if err := q.Parse(&m); err != nil {
		q.Fail(mailerr.Local(err))
		return
	}
	r.spend(len(m.Data))
	r.mu.Lock()
	t := r.incoming.transaction(m.Message)
	if t == nil || t.ours || t.bad != nil || t.commit != nil || r.closed {
		r.mu.Unlock()
		return // Commit, if it ever comes, fails
	}
	bad := r.intake.closed()
	body := t.body
	r.mu.Unlock()
	if bad == nil {
		body, bad = r.extend(ctx, m.Message, body, m.Data)
	}
	if bad != nil && body != nil {
		body.Abort()
		body = nil
	}
	// Frames of dispatcher are handled one after the other, so that t can only
	// have changed here and in addOne.
	r.mu.Lock()
	t.body = body
	if bad != nil {
		t.bad = bad
	}
	r.mu.Unlock()
}

// extend adds to a body, beginning it if need be.
func (r *Role) extend(ctx context.Context, id mail.MessageID, body *store.Body, p []byte) (*store.Body, *mailerr.Error) {
	if body == nil {
		var err error
		if body, err = r.store.NewBody(ctx, id); err != nil {
			return nil, mailerr.From(err)
		}
	}
	if _, err := body.Write(p); err != nil {
		return body, mailerr.From(err)
	}
	return body, nil
}

// discard forgets a message that will not be committed.
func (r *Role) discard(_ context.Context, q proc.Request) {
	var m msg.Discard
	if err := q.Parse(&m); err != nil {
		q.Fail(mailerr.Local(err))
		return
	}
	r.mu.Lock()
	t := r.incoming.transaction(m.Message)
	if t == nil || t.ours || r.closed {
		r.mu.Unlock()
		return
	}
	c := t.commit
	t.commit = nil
	r.incoming.end(t)
	r.mu.Unlock()
	r.abandon(t)
	if c != nil {
		c.done(mailerr.Local(errors.New("the message was discarded while it waited to be committed")))
	}
}

// lateCommits gives up those whose envelopes did not come.
func (r *Role) lateCommits() {
	for {
		r.mu.Lock()
		at, ok := r.incoming.deadline()
		if !ok || at > r.env.Clock.Mono() {
			r.mu.Unlock()
			return
		}
		t := r.incoming.waiting[0]
		t.bad = mailerr.Local(fmt.Errorf("%w: %d of %d", errTooFew, len(t.envs), t.commit.envelopes))
		c := t.settled(&r.incoming)
		r.mu.Unlock()
		r.settle(t, c)
	}
}

// giveUpIncoming ends what is being received, before the store is closed.
func (r *Role) giveUpIncoming() {
	r.mu.Lock()
	r.closed = true
	var bodies []*store.Body
	var commits []*commit
	for _, t := range r.incoming.reserved {
		if t != nil && t.body != nil {
			bodies = append(bodies, t.body)
		}
		if t != nil && t.commit != nil {
			commits = append(commits, t.commit)
		}
	}
	clear(r.incoming.reserved)
	r.mu.Unlock()
	for _, b := range bodies {
		b.Abort()
	}
	for _, c := range commits {
		c.done(closing())
	}
}
