package mda

import (
	"opensmtpd/src/privsep/imsg"
	"opensmtpd/src/privsep/msg"
)

// read takes the agent's results until the connection ends.
func (s *slot) read() {
	p := s.p
	for {
		f, err := s.conn.Next()
		if err != nil {
			break
		}
		var m msg.DeliverResult
		if msg.Type(f.Type) != msg.TypeDeliverResult || m.Parse(f.Body) != nil {
			p.o.Log.Warnf("mda: agent of uid %d sent what is no result", s.key.uid)
			break
		}
		if it := s.took(f.Call); it != nil {
			it.Done(Result{m.Err, m.Stat})
			p.mu.Lock()
			p.done(1)
			p.mu.Unlock()
		}
	}
	s.gone()
}

// took notes a result and goes on with the next delivery.
func (s *slot) took(call uint64) *item {
	p := s.p
	p.mu.Lock()
	defer p.mu.Unlock()
	it := s.inflight[call]
	if it == nil {
		return nil
	}
	delete(s.inflight, call)
	s.served++
	s.since = p.o.Clock.Mono()
	p.ended(s, it)
	s.makeRoom()
	s.pump()
	return it
}

// makeRoom ends the agent in favour of those who wait for a permit; p.mu is
// held.
func (s *slot) makeRoom() {
	if len(s.p.waiting) == 0 {
		return
	}
	s.retire = s.retire || s.served >= quantum
	if len(s.inflight) == 0 && (s.retire || len(s.queue) == 0) {
		s.end()
	}
}

// gone is the end of an agent, whoever wanted it.
func (s *slot) gone() {
	p := s.p
	s.conn.Close()
	p.mu.Lock()
	res := lost
	if p.closing {
		res = shutdown
	}
	if s.cut != nil {
		res = *s.cut
	}
	over := make([]*Delivery, 0, len(s.inflight))
	for _, it := range s.inflight {
		over = append(over, it.Delivery)
		p.ended(s, it)
	}
	s.inflight = nil
	delete(p.blocked, s)
	if s.state == live && s.served == 0 {
		// It ended by itself and did nothing: another would do no better.
		over = append(over, s.takeQueue()...)
	}
	s.conn = nil
	s.release()
	p.mu.Unlock()
	p.finish(over, res)
}

// feed sends a body that does not fit into a frame.
func (s *slot) feed(conn *imsg.Conn, call uint64, it *item) {
	p := s.p
	m := it.frame()
	put := func(m msg.Message) bool {
		_, err := conn.Put(imsg.Header{Type: uint16(m.Type()), Call: call}, m, nil)
		conn.WaitBelow(ahead / 2)
		return err == nil
	}
	sound := put(m)
	var failure error
	buf := make([]byte, chunk)
	for at := int64(0); sound && at < it.Size; {
		n := int(min(it.Size-at, chunk))
		piece := buf[:n]
		if it.Body != nil {
			piece = it.Body[at : at+int64(n)]
		} else if got, err := it.Reader.ReadAt(piece, at); got < n {
			failure = err
			put(&msg.DeliverChunk{Abort: true})
			break
		}
		sound = put(&msg.DeliverChunk{Data: piece})
		at += int64(n)
	}
	p.mu.Lock()
	if s.conn == conn {
		s.feeding = false
		if failure != nil && s.inflight[call] == it {
			delete(s.inflight, call)
			p.ended(s, it)
		} else {
			failure = nil
		}
		s.pump()
	} else {
		failure = nil // gone has reported it
	}
	p.mu.Unlock()
	if failure != nil {
		p.finish([]*Delivery{it.Delivery}, unreadable(failure))
	}
}

// tend starts the goroutine that looks after agents, which runs while there are
// any; p.mu is held.
func (p *Pool) tend() {
	if p.tending {
		return
	}
	p.tending = true
	p.wg.Go(func() {
		for {
			tick, stop := p.o.Clock.After(p.o.Idle / 4)
			select {
			case <-tick:
			case <-p.ctx.Done():
				stop()
				return
			}
			if !p.look() {
				return
			}
		}
	})
}

// look ends agents that have been idle long enough, gives those up that do not
// answer, and tells whether there are any left.
func (p *Pool) look() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	now := p.o.Clock.Mono()
	for _, s := range p.slots {
		switch {
		case s.idle() && now-s.since >= p.o.Idle:
			s.end()
		case s.state == live && len(s.inflight) > 0 && now-s.since >= p.o.Patience:
			s.cut = &silent
			s.end()
			id := s.id
			p.wg.Go(func() { p.parent.Send(p.ctx, &msg.AgentEnd{ID: id}) })
		}
	}
	p.tending = p.agents > 0
	return p.tending
}
