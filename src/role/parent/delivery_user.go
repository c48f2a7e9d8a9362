package parent

import (
	"context"
	"fmt"
	"os"

	"opensmtpd/src/conf"
	"opensmtpd/src/mail"
	"opensmtpd/src/mailerr"
	"opensmtpd/src/mda"
	"opensmtpd/src/privsep/msg"
	"opensmtpd/src/privsep/proc"
)

// order is a delivery that parent agrees to: by what action, for whom, as whom.
type order struct {
	cfg    *conf.Config
	action *conf.Action
	user   User // of the envelope
	as     User
}

// order resolves what queue asks for. The Result says why it cannot be.
func (d *Deliveries) order(ctx context.Context, gen mail.Gen, action, user string) (o order, _ mda.Result) {
	if o.cfg = d.o.Config(gen); o.cfg != nil {
		for _, a := range o.cfg.Actions {
			if a.Name == action {
				o.action = a
			}
		}
	}
	if o.action == nil {
		return o, mda.Failure(mailerr.Temp, 0, fmt.Sprintf("action %s does not exist", action), nil)
	}
	if !o.action.Method.Local() {
		return o, mda.Failure(mailerr.Temp, 0, fmt.Sprintf("action %s does not deliver to this machine", action), nil)
	}
	var found bool
	var err error
	if table := o.action.UserBase; table != "" {
		o.user, found, err = d.o.UserBase(ctx, gen, string(table), user)
	} else {
		o.user, found, err = d.o.Users.Lookup(ctx, user)
	}
	const lookup = " failure in user lookup"
	switch {
	case err != nil:
		return o, mda.Result{Err: mailerr.Temporary(451, 1, 0, "Temporary"+lookup, err), Stat: "Temporary" + lookup}
	case !found:
		return o, mda.Result{Err: mailerr.Permanent(550, 1, 6, "Permanent"+lookup, nil), Stat: "Permanent" + lookup}
	}
	o.as = o.user
	if name := o.action.User; name != "" {
		if o.as, found, err = d.o.Users.Lookup(ctx, name); err != nil {
			return o, mda.Failure(mailerr.Temp, mda.ExTempFail, fmt.Sprintf("delivery user '%s' cannot be looked up", name), err)
		} else if !found {
			return o, mda.Failure(mailerr.Perm, mda.ExNoUser, fmt.Sprintf("delivery user '%s' does not exist", name), nil)
		}
	}
	return o, d.allowed(o)
}

// allowed says whom agents may run as: root for the system mailbox only; and in
// unprivileged mode nobody but who we are.
func (d *Deliveries) allowed(o order) mda.Result {
	switch {
	case d.o.Unprivileged && o.as.UID != uint32(os.Getuid()):
		return mda.Failure(mailerr.Temp, mda.ExNoPerm, fmt.Sprintf("cannot deliver as uid %d without being root", o.as.UID), nil)
	case o.as.UID == 0 && !d.o.Unprivileged && (o.action.Method != conf.MBOX || o.action.Wrapper != ""):
		return mda.NotAllowed(o.user.Name)
	}
	return mda.Result{}
}

// agent answers queue: who delivers, and an agent when it wants one.
func (d *Deliveries) agent(ctx context.Context, r proc.Request) {
	var m msg.Agent
	if err := r.Parse(&m); err != nil {
		r.Fail(mailerr.Local(err))
		return
	}
	o, res := d.order(ctx, m.Gen, m.Action, m.User)
	if res.Err != nil {
		r.Reply(&msg.AgentReply{Err: res.Err, Stat: res.Stat})
		return
	}
	reply := &msg.AgentReply{
		UID: o.as.UID, GID: o.as.GID, Name: o.user.Name, Home: o.user.Home, RunHome: o.as.Home,
		Command: o.action.Method == conf.MDA || o.action.Method == conf.LMTP || o.action.Wrapper != "",
	}
	if !m.Spawn {
		r.Reply(reply)
		return
	}
	c, res := d.agentConf(o)
	if res.Err != nil {
		r.Reply(&msg.AgentReply{Err: res.Err, Stat: res.Stat})
		return
	}
	a, socket, err := d.spawn(ctx, o.as, &c, m.Gen, true)
	if err != nil {
		d.o.Log.Warnf("warn: smtpd: delivery agent for %s: %v", o.as.Name, err)
		res := mda.Failure(mailerr.Temp, mda.ExOSErr, "cannot start a delivery agent", err)
		r.Reply(&msg.AgentReply{Err: res.Err, Stat: res.Stat})
		return
	}
	reply.ID = a.id
	r.ReplyFile(reply, socket)
}

// agentConf is what the agent is told of the action.
func (d *Deliveries) agentConf(o order) (msg.AgentConf, mda.Result) {
	a := o.action
	root := o.as.UID == 0
	c := msg.AgentConf{
		Action: a.Name, Method: uint8(a.Method), Path: a.Path, Junk: a.Junk, Command: a.Command,
		NoExec: root, NoCommand: root && !d.o.Unprivileged,
		LibExec: d.o.LibExec, SubAddrDelim: o.cfg.Server.SubAddrDelim.Value, Timeout: commandTime, UID: o.as.UID,
		LMTPDest: a.LMTPDest, RcptTo: a.RcptTo,
	}
	if a.Wrapper == "" {
		return c, mda.Result{}
	}
	for _, w := range o.cfg.Server.Wrappers {
		if w.Name == a.Wrapper {
			c.HasWrapper, c.Wrapper = true, w.Command
			return c, mda.Result{}
		}
	}
	return c, mda.Failure(mailerr.Temp, 0, "could not find wrapper "+a.Wrapper, nil)
}

// agentEnd is queue giving up an agent.
func (d *Deliveries) agentEnd(_ context.Context, r proc.Request) {
	var m msg.AgentEnd
	if err := r.Parse(&m); err != nil {
		r.Fail(mailerr.Local(err))
		return
	}
	d.mu.Lock()
	a := d.agents[m.ID]
	d.mu.Unlock()
	if a != nil {
		a.giveUp()
	}
}
