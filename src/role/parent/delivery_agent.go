package parent

import (
	"context"
	"errors"
	"fmt"
	"os"
	"sync"

	"opensmtpd/src/mail"
	"opensmtpd/src/mda/mbox"
	"opensmtpd/src/privsep/imsg"
	"opensmtpd/src/privsep/msg"
)

// agent is a process that was started for a user.
type agent struct {
	d     *Deliveries
	id    uint64
	as    User
	conf  msg.AgentConf
	gen   mail.Gen
	proc  AgentProcess
	link  *imsg.Conn
	ended chan struct{} // closed when it was reaped
	over  chan struct{} // closed when it should end by itself
	once  sync.Once     // closes over
}

// errTooMany tells that no agent can be started now.
var errTooMany = errors.New("too many delivery agents")

// spawn starts an agent and tells it what it is for. With queue it returns the
// socket for queue, and the agent's link is served here; otherwise the caller
// speaks on it.
func (d *Deliveries) spawn(ctx context.Context, as User, c *msg.AgentConf, gen mail.Gen, queue bool) (*agent, *os.File, error) {
	a, err := d.admit(as, c, gen)
	if err != nil {
		return nil, nil, err
	}
	socket, err := a.start(ctx, queue)
	if err != nil {
		d.mu.Lock()
		delete(d.agents, a.id)
		d.mu.Unlock()
		d.wg.Done()
		return nil, nil, err
	}
	d.wg.Go(a.attend)
	if queue {
		d.wg.Go(a.serve)
	}
	go func() { // the one that admit counted
		defer d.wg.Done()
		a.reap()
	}()
	return a, socket, nil
}

// admit gives an agent its number, if there may be one more. It counts for
// Close from now on.
func (d *Deliveries) admit(as User, c *msg.AgentConf, gen mail.Gen) (*agent, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.closed || len(d.agents) >= d.o.MaxAgents {
		return nil, errTooMany
	}
	d.last++
	a := &agent{d: d, id: d.last, as: as, conf: *c, gen: gen, proc: noProcess{}, ended: make(chan struct{}), over: make(chan struct{})}
	d.agents[a.id] = a
	d.wg.Add(1)
	return a, nil
}

// noProcess stands for an agent that is being started.
type noProcess struct{}

func (noProcess) Pid() int    { return 0 }
func (noProcess) Wait() error { return nil }
func (noProcess) Kill()       {}

func (a *agent) start(ctx context.Context, queue bool) (*os.File, error) {
	ours, theirs, err := imsg.Pair()
	if err != nil {
		return nil, err
	}
	spec := AgentSpec{UID: a.as.UID, GID: a.as.GID, Parent: theirs, Title: "agent " + a.as.Name}
	var socket *os.File
	if queue {
		if socket, spec.Queue, err = imsg.Pair(); err != nil {
			ours.Close()
			theirs.Close()
			return nil, err
		}
	}
	p, err := a.d.o.Spawn.SpawnAgent(ctx, spec)
	if err == nil {
		a.link, err = imsg.NewConn(ours)
		if err != nil {
			p.Kill()
			p.Wait()
		}
	}
	if err != nil {
		ours.Close()
		if socket != nil {
			socket.Close()
		}
		return nil, err
	}
	a.d.mu.Lock()
	a.proc = p
	if a.d.closed {
		p.Kill()
	}
	a.d.mu.Unlock()
	a.put(imsg.Header{}, &a.conf, nil)
	return socket, nil
}

// put sends on the link; that it is gone, the reaper learns.
func (a *agent) put(h imsg.Header, m msg.Message, f *os.File) {
	h.Type = uint16(m.Type())
	a.link.Put(h, m, f)
}

// reap waits for the end of the process and clears up after it.
func (a *agent) reap() {
	err := a.proc.Wait()
	close(a.ended)
	a.link.Close()
	if err != nil {
		a.d.o.Log.Debugf("debug: smtpd: delivery agent of %s: %v", a.as.Name, err)
	}
	a.d.mu.Lock()
	delete(a.d.agents, a.id)
	a.d.mu.Unlock()
}

// giveUp tells that the agent should end; attend sees that it does.
func (a *agent) giveUp() { a.once.Do(func() { close(a.over) }) }

// attend kills an agent that should have ended and has not.
func (a *agent) attend() {
	select {
	case <-a.ended:
		return
	case <-a.over:
	}
	late, stop := a.d.o.Clock.After(lastWait)
	select {
	case <-a.ended:
		stop()
	case <-late:
		a.d.o.Log.Warnf("warn: smtpd: delivery agent of %s does not end: killed", a.as.Name)
		a.proc.Kill()
	}
}

// serve answers an agent that delivers: it may ask for the system mailbox.
func (a *agent) serve() {
	var box *boxLock
	defer func() { box.unlock() }()
	defer a.giveUp()
	for {
		f, err := a.link.Next()
		if err != nil {
			return
		}
		if f.File != nil {
			f.File.Close()
		}
		switch msg.Type(f.Type) {
		case msg.TypeMailboxDone:
			box.unlock()
			box = nil
		case msg.TypeMailbox:
			var m msg.Mailbox
			err := m.Parse(f.Body)
			var file *os.File
			if err == nil && box != nil {
				err = errors.New("the last mailbox is still locked")
			}
			if err == nil {
				box, file, err = a.mailbox(m.User)
			}
			if err != nil {
				a.d.o.Log.Warnf("warn: smtpd: mailbox of %s: %v", m.User, err)
			}
			a.put(imsg.Header{Flags: imsg.FlagReply, Call: f.Call}, mailboxReply(err), file)
		default:
			a.d.o.Log.Warnf("warn: smtpd: delivery agent of %s sent message %d", a.as.Name, f.Type)
			return
		}
	}
}

// mailbox locks and opens the mailbox of a user. The agent is not trusted: the
// user must be one whom the action delivers to as the agent's own uid.
func (a *agent) mailbox(name string) (*boxLock, *os.File, error) {
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	go func() {
		select {
		case <-a.ended:
			cancel()
		case <-ctx.Done():
		}
	}()
	o, res := a.d.order(ctx, a.gen, a.conf.Action, name)
	if res.Err != nil {
		return nil, nil, res.Err
	}
	if o.as.UID != a.as.UID {
		return nil, nil, fmt.Errorf("belongs to uid %d, not %d", o.as.UID, a.as.UID)
	}
	if !plainName(o.user.Name) {
		return nil, nil, fmt.Errorf("%q cannot be the name of a mailbox", o.user.Name)
	}
	box, err := a.d.lockBox(ctx, o.user.Name)
	if err != nil {
		return nil, nil, err
	}
	f, err := mbox.OpenFor(a.d.o.MailDir+"/"+o.user.Name, o.as.UID, o.as.GID)
	if err != nil {
		box.unlock()
		return nil, nil, err
	}
	return box, f, nil
}
