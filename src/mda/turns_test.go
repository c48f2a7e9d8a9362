package mda

import (
	"testing"
	"time"

	"opensmtpd/src/clock"
	"opensmtpd/src/privsep/msg"
)

// lined waits until n agents wait for their turn.
func lined(p *Pool, n int) {
	for {
		p.mu.Lock()
		have := len(p.turns.line)
		p.mu.Unlock()
		if have == n {
			return
		}
	}
}

// writers starts a pool with one turn, whose end c alone brings, and users with an
// agent each, whose first delivery is answered.
func writers(t *testing.T, users ...string) (p *Pool, list []*puppet, c *clock.Fake) {
	o := newOffice(t, msg.AgentConf{})
	c = clock.NewFake(time.Unix(0, 0))
	o.uid, o.clock = uidOf, c
	agents := puppets(o)
	p = o.pool(Options{Writers: 1, Idle: time.Hour})
	for _, u := range users {
		ch := many(p, u, 1)
		a := <-agents
		a.reply(<-a.came)
		check(t, "first of "+u, <-ch, 0, "")
		list = append(list, a)
	}
	return p, list, c
}

// What comes while another writes gathers, and is given as one batch.
func TestTurnGathers(t *testing.T) {
	p, agents, _ := writers(t, "user1", "user2")
	one, two := agents[0], agents[1]
	first := many(p, "user1", 1)
	call := <-one.came // nobody else writes: at once
	rest := many(p, "user2", 5)
	lined(p, 1)
	if n := len(two.came); n != 0 {
		t.Fatalf("%d deliveries out of turn", n)
	}
	one.reply(call)
	check(t, "first", <-first, 0, "")
	for range 5 {
		two.reply(<-two.came)
	}
	for range 5 {
		check(t, "rest", <-rest, 0, "")
	}
}

// Who has much to write makes way after a batch.
func TestTurnIsABatch(t *testing.T) {
	p, agents, _ := writers(t, "user1", "user2")
	one, two := agents[0], agents[1]
	much := many(p, "user1", 1)
	call := <-one.came
	little := many(p, "user2", 2*maxBatch)
	lined(p, 1)
	rest := many(p, "user1", 3*maxBatch-1)
	one.reply(call)
	var last *puppet
	run, longest := 1, 1
	for range 5*maxBatch - 1 {
		from := one
		select {
		case call = <-one.came:
		case call = <-two.came:
			from = two
		}
		if from != last {
			run, last = 0, from
		}
		run++
		longest = max(longest, run)
		from.reply(call)
	}
	if longest > maxBatch {
		t.Errorf("%d deliveries in a turn while another waited", longest)
	}
	check(t, "much", <-much, 0, "")
	for range 2 * maxBatch {
		check(t, "little", <-little, 0, "")
	}
	for range 3*maxBatch - 1 {
		check(t, "rest", <-rest, 0, "")
	}
}

// A home that does not answer holds nobody up, the second time not at all.
func TestTurnWithoutEnd(t *testing.T) {
	p, agents, c := writers(t, "user1", "user2")
	one, two := agents[0], agents[1]
	hung := many(p, "user1", 1)
	stuck := <-one.came
	other := many(p, "user2", 1)
	lined(p, 1)
	c.BlockUntil(2) // the watch, and the one for idle agents
	c.Advance(turnTime)
	two.reply(<-two.came)
	check(t, "other", <-other, 0, "")
	one.reply(stuck)
	check(t, "hung", <-hung, 0, "")

	hung = many(p, "user1", 1)
	stuck = <-one.came
	other = many(p, "user2", 1)
	two.reply(<-two.came)
	check(t, "other, again", <-other, 0, "")
	one.reply(stuck) // in time: it is as any other from now on
	check(t, "hung, again", <-hung, 0, "")
	p.mu.Lock()
	defer p.mu.Unlock()
	for k, s := range p.slots {
		if s.turn.slow || s.turn.counted {
			t.Errorf("uid %d: %+v", k.uid, s.turn)
		}
	}
}

// The turn of an agent that dies goes to the next.
func TestTurnOfTheDead(t *testing.T) {
	p, agents, _ := writers(t, "user1", "user2")
	one, two := agents[0], agents[1]
	lost := many(p, "user1", 1)
	<-one.came
	other := many(p, "user2", 1)
	lined(p, 1)
	one.conn.Close()
	if r := <-lost; r.Err == nil {
		t.Error("delivered by a dead agent")
	}
	two.reply(<-two.came)
	check(t, "other", <-other, 0, "")
}

// Commands do not wait for those who write, nor the other way round.
func TestCommandNeedsNoTurn(t *testing.T) {
	p, agents, _ := writers(t, "user1")
	writing := many(p, "user1", 1)
	call := <-agents[0].came
	e := newEnvelope("user1")
	e.MDAExec = "prog"
	ran := make(chan Result, 1)
	p.Deliver(&Delivery{Gen: 1, Envelope: e, Size: 2, Body: []byte("x\n"), Done: func(r Result) { ran <- r }})
	agents[0].reply(<-agents[0].came)
	check(t, "command", <-ran, 0, "")
	agents[0].reply(call)
	check(t, "writing", <-writing, 0, "")
}
