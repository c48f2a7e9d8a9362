package mda

import (
	"errors"
	"fmt"
	"time"

	"opensmtpd/src/mail"
	"opensmtpd/src/mailerr"
	"opensmtpd/src/privsep/imsg"
	"opensmtpd/src/privsep/msg"
)

const (
	// window is how many deliveries an agent has at a time: a batch in work and
	// one that gathers.
	window = 2 * maxBatch
	// ahead is how many bytes may wait for an agent to read them.
	ahead = 1 << 20
	// chunk is the largest body that travels in one frame, and the size of the
	// pieces of others: an agent keeps a window of them in memory.
	chunk = 64 << 10
	// quantum is how many deliveries an agent does before it makes room for one
	// that somebody else waits for.
	quantum = 256
)

type slotKey struct {
	gen      mail.Gen
	action   string
	uid, gid uint32
}

type slotState uint8

const (
	asleep   slotState = iota // no agent
	waiting                   // for a permit
	spawning                  // for parent
	live
	ending // the connection is closed, the reader has not noticed
)

// slot is the place of one agent: its queue, and the agent while there is one.
// Pool.mu guards it.
type slot struct {
	p   *Pool
	key slotKey

	queue []*item
	state slotState

	// While live.
	conn     *imsg.Conn
	id       uint64
	inflight map[uint64]*item
	last     uint64 // call
	served   int
	since    time.Duration // of the last result or delivery
	feeding  bool          // a large body is being sent
	retire   bool          // takes nothing new
	cut      *Result       // what to report when the connection ends; nil: lost
	turn     turn          // to write
}

// item is a delivery in a slot.
type item struct {
	*Delivery
	user    string          // the envelope's, for parent
	who     *msg.AgentReply // what parent said of him
	command bool
}

// enqueue puts a delivery into the slot of its user; p.mu is held.
func (p *Pool) enqueue(k userKey, u *user, d *Delivery) {
	sk := slotKey{k.gen, k.action, u.reply.UID, u.reply.GID}
	s := p.slots[sk]
	if s == nil {
		s = &slot{p: p, key: sk}
		p.slots[sk] = s
	}
	s.queue = append(s.queue, &item{
		Delivery: d, user: k.name, who: &u.reply,
		command: u.reply.Command || d.Envelope.MDAExec != "",
	})
	if s.state == live {
		s.pump()
	} else {
		s.want()
	}
}

// Load tells how many deliveries there are, how many of them agents have, and
// for how many users.
func (p *Pool) Load() (all, running, users int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	uids := make(map[uint32]bool)
	for _, s := range p.slots {
		running += len(s.inflight)
		if len(s.inflight)+len(s.queue) > 0 {
			uids[s.key.uid] = true
		}
	}
	return p.pending, running, len(uids)
}

// takeQueue empties the queue; p.mu is held.
func (s *slot) takeQueue() []*Delivery {
	list := make([]*Delivery, 0, len(s.queue))
	for _, it := range s.queue {
		list = append(list, it.Delivery)
	}
	s.queue = nil
	return list
}

// want asks for a permit to have an agent; p.mu is held.
func (s *slot) want() {
	if s.state != asleep || len(s.queue) == 0 || s.p.closing {
		return
	}
	s.state = waiting
	s.p.waiting = append(s.p.waiting, s)
	s.p.grant()
}

// grant gives the permits that are free to those who wait; when there are none,
// idle agents are ended. p.mu is held.
func (p *Pool) grant() {
	kept := p.waiting[:0]
	for _, s := range p.waiting {
		if p.agents >= p.o.Limits.MaxSession || p.perUser[s.key.uid] >= p.o.AgentsPerUser {
			kept = append(kept, s)
			continue
		}
		p.agents++
		p.perUser[s.key.uid]++
		s.state = spawning
		p.wg.Go(s.spawn)
	}
	p.waiting = kept
	for _, s := range kept {
		p.evict(s.key.uid)
	}
}

// evict ends the agent that was idle the longest: one of this user when he has
// too many, otherwise anybody's. p.mu is held.
func (p *Pool) evict(uid uint32) {
	own := p.perUser[uid] >= p.o.AgentsPerUser
	var oldest *slot
	for _, s := range p.slots {
		if s.idle() && (!own || s.key.uid == uid) && (oldest == nil || s.since < oldest.since) {
			oldest = s
		}
	}
	if oldest != nil {
		oldest.end()
	}
}

func (s *slot) idle() bool { return s.state == live && len(s.inflight) == 0 && len(s.queue) == 0 }

// release gives the permit back; p.mu is held.
func (s *slot) release() {
	p := s.p
	p.agents--
	if p.perUser[s.key.uid]--; p.perUser[s.key.uid] == 0 {
		delete(p.perUser, s.key.uid)
	}
	s.state = asleep
	if len(s.queue) == 0 {
		delete(p.slots, s.key)
	}
	s.want()
	p.grant()
}

// spawn asks parent for the agent.
func (s *slot) spawn() {
	p := s.p
	p.mu.Lock()
	asked := ""
	if len(s.queue) > 0 {
		asked = s.queue[0].user
	}
	p.mu.Unlock()
	var reply msg.AgentReply
	f, err := p.parent.CallFile(p.ctx, &msg.Agent{Gen: s.key.gen, Action: s.key.action, User: asked, Spawn: true}, &reply)
	res := answered(&reply, err)
	var conn *imsg.Conn
	switch {
	case f == nil && res.Err == nil:
		err = errors.New("parent sent no socket")
	case res.Err == nil && (reply.UID != s.key.uid || reply.GID != s.key.gid):
		// The user has changed since he was asked for.
		err = fmt.Errorf("delivery user %s has become uid %d", asked, reply.UID)
	case res.Err == nil:
		conn, err = imsg.NewConn(f)
	}
	if res.Err == nil && err != nil {
		res = answered(nil, mailerr.Local(err))
	}
	if conn == nil && f != nil {
		f.Close()
	}
	if conn == nil {
		s.refused(asked, res)
		return
	}
	p.mu.Lock()
	s.conn, s.id, s.inflight = conn, reply.ID, make(map[uint64]*item)
	s.served, s.retire, s.feeding, s.cut = 0, false, false, nil
	s.state, s.since = live, p.o.Clock.Mono()
	p.wg.Go(s.read)
	p.tend()
	if p.closing {
		s.end()
	} else {
		s.pump()
	}
	p.mu.Unlock()
}

// refused reports that there is no agent. What is wrong with one user for good
// says nothing about the others who share his uid.
func (s *slot) refused(asked string, res Result) {
	p := s.p
	var over []*Delivery
	p.mu.Lock()
	rest := s.queue
	s.queue = nil
	for _, it := range rest {
		if res.Err.Class == mailerr.Temp || it.user == asked {
			over = append(over, it.Delivery)
		} else {
			s.queue = append(s.queue, it)
		}
	}
	delete(p.users, userKey{s.key.gen, s.key.action, asked})
	s.release()
	p.mu.Unlock()
	p.finish(over, res)
}

// pump sends what the agent may have; p.mu is held.
func (s *slot) pump() {
	for s.state == live && !s.feeding && !s.retire && len(s.queue) > 0 && len(s.inflight) < window && s.conn.Waiting() < ahead {
		it := s.queue[0]
		if it.command && !s.p.command(s) || !it.command && !s.mayWrite() {
			return
		}
		s.queue[0] = nil
		if s.queue = s.queue[1:]; len(s.queue) == 0 {
			s.queue = nil
		}
		s.last++
		s.inflight[s.last] = it
		s.since = s.p.o.Clock.Mono()
		if it.Size == 0 || it.Body != nil && len(it.Body) <= chunk {
			m := it.frame()
			m.Inline, m.Body = true, it.Body
			s.put(s.last, m)
			continue
		}
		s.feeding = true
		call := s.last
		conn := s.conn
		s.p.wg.Go(func() { s.feed(conn, call, it) })
	}
}

func (s *slot) put(call uint64, m msg.Message) {
	// When the connection is gone the reader knows, and reports.
	s.conn.Put(imsg.Header{Type: uint16(m.Type()), Call: call}, m, nil)
}

// frame returns the message for the agent, without a body.
func (it *item) frame() *msg.Deliver {
	e := it.Envelope
	return &msg.Deliver{
		Envelope: e.ID, Name: it.who.Name, Home: it.who.Home, RunHome: it.who.RunHome, Sender: e.Sender, Rcpt: e.Rcpt, Dest: e.Dest,
		Subaddress: e.MDASubaddress, Exec: e.MDAExec, Size: uint64(it.Size),
	}
}

// command counts a command that is about to run, or makes the slot wait for
// another to end; p.mu is held.
func (p *Pool) command(s *slot) bool {
	if p.commands >= p.o.Limits.MaxSession || p.commandsOf[s.key.uid] >= p.o.Limits.MaxSessionPerUser {
		p.blocked[s] = struct{}{}
		return false
	}
	p.commands++
	p.commandsOf[s.key.uid]++
	return true
}

// ended counts the end of a delivery; p.mu is held.
func (p *Pool) ended(s *slot, it *item) {
	if !it.command {
		s.written()
		return
	}
	p.commands--
	if p.commandsOf[s.key.uid]--; p.commandsOf[s.key.uid] == 0 {
		delete(p.commandsOf, s.key.uid)
	}
	p.unblock()
}

// unblock lets those try that waited for a command to end; p.mu is held.
func (p *Pool) unblock() {
	for s := range p.blocked {
		delete(p.blocked, s)
		s.pump()
	}
}

// end closes the agent's connection; p.mu is held.
func (s *slot) end() {
	if s.state != live {
		return
	}
	s.state = ending
	s.p.wg.Go(s.conn.Close)
}
