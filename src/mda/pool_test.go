package mda

import (
	"context"
	"fmt"
	"sync"
	"testing"
	"time"

	"opensmtpd/src/clock"
	"opensmtpd/src/conf"
	"opensmtpd/src/mailerr"
	"opensmtpd/src/privsep/imsg"
	"opensmtpd/src/privsep/msg"
)

// puppet is an agent whose results the test decides.
type puppet struct {
	conn *imsg.Conn
	came chan uint64 // call numbers of deliveries
	gone chan struct{}
}

func (a *puppet) reply(call uint64) {
	a.conn.Put(imsg.Header{Type: uint16(msg.TypeDeliverResult), Flags: imsg.FlagReply, Call: call}, &msg.DeliverResult{Stat: "Delivered"}, nil)
}

// puppets makes the office start puppets, which come out of the channel.
func puppets(o *office) <-chan *puppet {
	out := make(chan *puppet, 100)
	o.agent = func(c *imsg.Conn) {
		a := &puppet{conn: c, came: make(chan uint64, 10000), gone: make(chan struct{})}
		defer close(a.gone)
		out <- a
		for {
			f, err := c.Next()
			if err != nil {
				return
			}
			if msg.Type(f.Type) == msg.TypeDeliver {
				a.came <- f.Call
			}
		}
	}
	return out
}

// many gives n deliveries for a user and returns where their results come.
func many(p *Pool, user string, n int) <-chan Result {
	ch := make(chan Result, n)
	for range n {
		p.Deliver(&Delivery{Gen: 1, Envelope: newEnvelope(user), Size: 2, Body: []byte("x\n"), Done: func(r Result) { ch <- r }})
	}
	return ch
}

// uidOf gives each user his own uid: the last digits of his name.
func uidOf(user string) (uid uint32) {
	fmt.Sscanf(user, "user%d", &uid)
	return uid
}

func TestRefusedByParent(t *testing.T) {
	o := newOffice(t, msg.AgentConf{Method: uint8(conf.Maildir)})
	for name, err := range map[string]*mailerr.Error{
		"gone": mailerr.Permanent(550, 1, 6, "Permanent failure in user lookup", nil),
		"busy": mailerr.Temporary(451, 1, 0, "Temporary failure in user lookup", nil),
	} {
		for _, spawn := range []bool{false, true} {
			o.refuse = func(m *msg.Agent) *mailerr.Error {
				if m.User == name && m.Spawn == spawn {
					return err
				}
				return nil
			}
			p := o.pool(Options{})
			ch := many(p, name, 3)
			for range 3 {
				check(t, name, <-ch, err.Class, err.Text)
			}
			// Another user of the same uid is none the worse.
			check(t, "other", deliver(p, newEnvelope("other"), "x\n"), 0, "")
		}
	}
}

func TestAgentDies(t *testing.T) {
	o := newOffice(t, msg.AgentConf{})
	// One that does nothing at all: what waits is failed, not tried for ever.
	o.agent = func(c *imsg.Conn) { c.Next() }
	ch := many(o.pool(Options{}), "eve", 2*window)
	for range 2 * window {
		check(t, "useless", <-ch, mailerr.Temp, "ended too early")
	}
	// One that dies on the way: what it had is failed, the rest gets another.
	o = newOffice(t, msg.AgentConf{})
	agents := puppets(o)
	ch = many(o.pool(Options{}), "eve", window+1)
	a := <-agents
	for i := range window {
		if call := <-a.came; i == 0 {
			a.reply(call)
		}
	}
	check(t, "first", <-ch, 0, "")
	<-a.came // the last one of the queue
	a.conn.Close()
	for range window {
		check(t, "lost", <-ch, mailerr.Temp, "ended too early")
	}
	ch = many(o.pool(Options{}), "eve", 1)
	a = <-agents
	a.reply(<-a.came)
	check(t, "after", <-ch, 0, "")
}

func TestIdleAndPatience(t *testing.T) {
	o := newOffice(t, msg.AgentConf{})
	c := clock.NewFake(time.Unix(0, 0))
	o.clock = c
	agents := puppets(o)
	p := o.pool(Options{Idle: 4 * time.Second, Patience: 100 * time.Second})
	ch := many(p, "eve", 1)
	a := <-agents
	a.reply(<-a.came)
	check(t, "first", <-ch, 0, "")
	for range 3 {
		c.BlockUntil(1)
		c.Advance(time.Second)
	}
	select {
	case <-a.gone:
		t.Error("ended before it was idle long enough")
	default:
	}
	for ended := false; !ended; {
		c.Advance(time.Second)
		select {
		case <-a.gone:
			ended = true
		default:
		}
	}
	// Now one that does not answer.
	ch = many(p, "eve", 2)
	a = <-agents
	<-a.came
	<-a.came
	var r Result
	for got := false; !got; {
		c.Advance(time.Second)
		select {
		case r = <-ch:
			got = true
		default:
		}
	}
	check(t, "silent", r, mailerr.Temp, "does not answer")
	check(t, "silent", <-ch, mailerr.Temp, "does not answer")
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	p.Close(ctx)
	if len(o.ended) > 1 || len(o.ended) == 1 && o.ended[0] != 2 {
		t.Errorf("parent was told of %v", o.ended)
	}
}

func TestAgentLimits(t *testing.T) {
	o := newOffice(t, msg.AgentConf{})
	o.uid = uidOf
	agents := puppets(o)
	p := o.pool(Options{Limits: Limits{MaxSession: 3}})
	const users = 10
	var results []<-chan Result
	for i := range users {
		results = append(results, many(p, fmt.Sprintf("user%d", i), 2*window))
	}
	var live sync.WaitGroup
	for range users {
		a := <-agents
		o.mu.Lock()
		if n := o.spawned; n > users {
			t.Errorf("%d agents started for %d users", n, users)
		}
		o.mu.Unlock()
		live.Go(func() {
			for {
				select {
				case call := <-a.came:
					p.mu.Lock()
					if p.agents > 3 {
						t.Errorf("%d agents", p.agents)
					}
					p.mu.Unlock()
					a.reply(call)
				case <-a.gone:
					return
				}
			}
		})
	}
	for _, ch := range results {
		for range 2 * window {
			check(t, "delivery", <-ch, 0, "")
		}
	}
	p.Close(t.Context())
	live.Wait()
}

// An agent that always has work makes room for those who wait.
func TestQuantum(t *testing.T) {
	o := newOffice(t, msg.AgentConf{})
	o.uid = uidOf
	agents := puppets(o)
	p := o.pool(Options{Limits: Limits{MaxSession: 1}})
	busy := many(p, "user1", 3*quantum)
	a := <-agents
	first := <-a.came
	waiting := many(p, "user2", 1)
	for { // until the pool has noticed that user2 waits
		p.mu.Lock()
		n := len(p.waiting)
		p.mu.Unlock()
		if n > 0 {
			break
		}
	}
	a.reply(first)
	served := 1
	for gone := false; !gone; {
		select {
		case call := <-a.came:
			a.reply(call)
			served++
		case <-a.gone:
			gone = true
		}
	}
	if served < quantum || served > quantum+window {
		t.Errorf("made room after %d deliveries", served)
	}
	b := <-agents
	b.reply(<-b.came)
	check(t, "who waited", <-waiting, 0, "")
	c := <-agents
	for served < 3*quantum {
		c.reply(<-c.came)
		served++
	}
	for range 3 * quantum {
		check(t, "busy", <-busy, 0, "")
	}
}

func TestCommandLimits(t *testing.T) {
	o := newOffice(t, msg.AgentConf{})
	o.uid, o.command = uidOf, true
	agents := puppets(o)
	p := o.pool(Options{Limits: Limits{MaxSession: 5, MaxSessionPerUser: 3}})
	one := many(p, "user1", 10)
	a := <-agents
	var held []uint64
	for range 3 {
		held = append(held, <-a.came)
	}
	two := many(p, "user2", 10)
	b := <-agents
	var heldB []uint64
	for range 2 {
		heldB = append(heldB, <-b.came)
	}
	if len(a.came) > 0 || len(b.came) > 0 {
		t.Errorf("%d and %d commands beyond the limits", len(a.came), len(b.came))
	}
	if all, running, users := p.Load(); all != 20 || running != 5 || users != 2 {
		t.Errorf("a load of %d, %d running, for %d users", all, running, users)
	}
	for _, call := range heldB {
		b.reply(call)
	}
	for i := range 8 {
		call := <-b.came
		if n := len(b.came); n > 2 {
			t.Errorf("%d: %d at a time", i, n+1)
		}
		b.reply(call)
	}
	for range 10 {
		check(t, "two", <-two, 0, "")
	}
	// A higher limit is obeyed at once.
	p.SetLimits(Limits{MaxSession: 50, MaxSessionPerUser: 10})
	for range 7 {
		held = append(held, <-a.came)
	}
	for _, call := range held {
		a.reply(call)
	}
	for range 10 {
		check(t, "one", <-one, 0, "")
	}
}

func TestClose(t *testing.T) {
	o := newOffice(t, msg.AgentConf{})
	agents := puppets(o)
	p := o.pool(Options{})
	ch := many(p, "eve", window+5)
	a := <-agents
	var calls []uint64
	for range window {
		calls = append(calls, <-a.came)
	}
	closed := make(chan struct{})
	ctx, cancel := context.WithCancel(t.Context())
	go func() {
		defer close(closed)
		p.Close(ctx)
	}()
	for range 5 {
		if r := <-ch; r != shutdown {
			t.Errorf("not begun: %+v", r)
		}
	}
	for _, call := range calls[1:] {
		a.reply(call)
	}
	for range window - 1 {
		check(t, "begun", <-ch, 0, "")
	}
	select {
	case <-closed:
		t.Error("closed while a delivery was under way")
	default:
	}
	cancel()
	if r := <-ch; r != shutdown {
		t.Errorf("cut short: %+v", r)
	}
	<-closed
	if r := deliver(p, newEnvelope("eve"), "x\n"); r != shutdown {
		t.Errorf("after the end: %+v", r)
	}
}

func TestGarbageFromAgent(t *testing.T) {
	for name, h := range map[string]imsg.Header{
		"type":  {Type: uint16(msg.TypeAgent)},
		"empty": {Type: uint16(msg.TypeDeliverResult)},
	} {
		o := newOffice(t, msg.AgentConf{})
		o.agent = func(c *imsg.Conn) {
			c.Next()
			c.Put(h, nil, nil)
			c.WaitBelow(0)
			c.Next()
		}
		check(t, name, deliver(o.pool(Options{}), newEnvelope("eve"), "x\n"), mailerr.Temp, "ended too early")
	}
	// A result that nobody waits for is nothing.
	o := newOffice(t, msg.AgentConf{})
	agents := puppets(o)
	ch := many(o.pool(Options{}), "eve", 1)
	a := <-agents
	call := <-a.came
	a.reply(call + 7)
	a.reply(call)
	a.reply(call)
	check(t, "twice", <-ch, 0, "")
}
