package parent

import (
	"context"
	"errors"
	"os"
	"sync"
	"time"

	"opensmtpd/src/clock"
	"opensmtpd/src/conf"
	"opensmtpd/src/mail"
	"opensmtpd/src/mailerr"
	"opensmtpd/src/mlog"
	"opensmtpd/src/privsep/msg"
	"opensmtpd/src/privsep/proc"
)

// AgentSpec says which agent to start: smtpd re-executed with these ids, one
// supplementary group (GID), a session and process group of its own, an
// environment of PATH alone, and no confinement that a command would inherit.
type AgentSpec struct {
	UID, GID uint32
	// Parent is the agent's end of the link to us, Queue its end of the link to
	// queue or nil: the arguments of mda.Serve. The spawner closes both here.
	Parent, Queue *os.File
	// Title is what ps shows, as "smtpd: " + Title.
	Title string
}

// AgentProcess is a started agent.
type AgentProcess interface {
	Pid() int
	// Wait returns when the process has ended and was reaped; it is called once.
	Wait() error
	// Kill kills the process and its process group.
	Kill()
}

// AgentSpawner starts agents.
type AgentSpawner interface {
	SpawnAgent(ctx context.Context, s AgentSpec) (AgentProcess, error)
}

// DeliveryOptions are what Deliveries needs.
type DeliveryOptions struct {
	Clock clock.Clock
	Log   *mlog.Logger
	Spawn AgentSpawner
	// Config returns the configuration of a generation, nil when it is gone.
	Config func(mail.Gen) *conf.Config
	// UserBase asks lookup for a user of a userbase table (msg.UserBase).
	UserBase func(ctx context.Context, gen mail.Gen, table, name string) (User, bool, error)
	Users    *Users
	// MailDir holds the system mailboxes, /var/mail; LibExec holds mail.maildir
	// and its like.
	MailDir, LibExec string
	// Daemon is whose rights :include: files are read with: _smtpd.
	Daemon User
	// Unprivileged tells that the daemon runs as one ordinary user: agents run as
	// that user and mail for anybody else is refused.
	Unprivileged bool
	// MaxAgents bounds the agents of all kinds; default 80. Pool keeps the
	// tighter limit of the configuration.
	MaxAgents int
}

const (
	// commandTime is how long a delivery command may run.
	commandTime = 300 * time.Second
	// readerIdle is how long an agent that reads files stays without work.
	readerIdle = 5 * time.Second
	// readTime is how long it may take to read a file of a user: his home may be
	// on another machine.
	readTime = 15 * time.Second
	// lastWait is how long an agent without links may take to end.
	lastWait = 5 * time.Second
)

// Deliveries is parent's part in local delivery: it knows the users, starts
// agents as them, locks system mailboxes for them, and ends agents that do not
// end by themselves.
type Deliveries struct {
	o  DeliveryOptions
	wg sync.WaitGroup

	mu      sync.Mutex
	closed  bool
	last    uint64
	agents  map[uint64]*agent
	readers map[readerKey]*reader
	boxes   map[string]*boxLock
}

// NewDeliveries returns a Deliveries without agents.
func NewDeliveries(o DeliveryOptions) *Deliveries {
	if o.MaxAgents <= 0 {
		o.MaxAgents = 80
	}
	return &Deliveries{
		o: o, agents: make(map[uint64]*agent), readers: make(map[readerKey]*reader), boxes: make(map[string]*boxLock),
	}
}

// Handlers returns the rows for parent's table: UserInfo and Include from
// lookup; Agent and AgentEnd from queue, and from nobody else.
func (d *Deliveries) Handlers() []proc.Handler {
	return []proc.Handler{
		{From: proc.Lookup, Type: msg.TypeUserInfo, Concurrent: true, Do: d.userInfo},
		{From: proc.Lookup, Type: msg.TypeInclude, Concurrent: true, Do: d.include},
		{From: proc.Queue, Type: msg.TypeAgent, Concurrent: true, Do: d.agent},
		{From: proc.Queue, Type: msg.TypeAgentEnd, Do: d.agentEnd},
	}
}

// Close ends all agents and returns when they were reaped.
func (d *Deliveries) Close() {
	d.mu.Lock()
	d.closed = true
	for _, a := range d.agents {
		a.proc.Kill()
	}
	d.mu.Unlock()
	d.wg.Wait()
}

// userInfo answers lookup: who is this, and what does his .forward hold.
func (d *Deliveries) userInfo(ctx context.Context, r proc.Request) {
	var m msg.UserInfo
	if err := r.Parse(&m); err != nil {
		r.Fail(mailerr.Local(err))
		return
	}
	u, found := User{Name: m.Name, UID: m.UID, GID: m.GID, Home: m.Home}, true
	if !m.Virtual {
		var err error
		if u, found, err = d.o.Users.Lookup(ctx, m.Name); err != nil {
			d.o.Log.Warnf("warn: smtpd: user %s: %v", m.Name, err)
			r.Reply(&msg.UserInfoReply{Err: mailerr.Local(err)})
			return
		}
	}
	if !found {
		r.Reply(&msg.UserInfoReply{})
		return
	}
	reply := &msg.UserInfoReply{Found: true, Name: u.Name, UID: u.UID, GID: u.GID, Home: u.Home}
	if m.Forward {
		reply.Forward, reply.HasForward, reply.Err = d.forward(ctx, u)
	}
	r.Reply(reply)
}

// forward returns what a user's .forward holds. Those who have none, nearly
// all, cost no agent.
func (d *Deliveries) forward(ctx context.Context, u User) ([]byte, bool, *mailerr.Error) {
	if noForward(u.Home) {
		return nil, false, nil
	}
	var reply msg.ForwardReply
	if err := d.read(ctx, u, &msg.Forward{Home: u.Home, UID: u.UID}, &reply); err != nil {
		return nil, false, mailerr.Local(err)
	}
	if reply.Err != nil {
		d.o.Log.Warnf("warn: smtpd: forward of %s: %v", u.Name, reply.Err.Cause)
		if reply.Err.Class == mailerr.Perm {
			// What is not to be trusted is ignored: the user gets the mail,
			// not the sender a bounce that he can do nothing about.
			return nil, false, nil
		}
		return nil, false, reply.Err
	}
	return reply.Data, reply.Found, nil
}

// noForward tells that there is surely no .forward. Only names are looked at;
// whatever else there is to see, an agent with the user's rights sees.
func noForward(home string) bool {
	st, err := os.Stat(home)
	if err == nil && st.Mode()&os.ModeSticky != 0 {
		return false
	}
	_, err = os.Lstat(home + "/.forward")
	return errors.Is(err, os.ErrNotExist)
}

// include answers lookup with a file that an aliases table names, read with the
// daemon's rights.
func (d *Deliveries) include(ctx context.Context, r proc.Request) {
	var m msg.Include
	if err := r.Parse(&m); err != nil {
		r.Fail(mailerr.Local(err))
		return
	}
	var reply msg.IncludeReply
	if err := d.read(ctx, d.o.Daemon, &m, &reply); err != nil {
		reply = msg.IncludeReply{Err: mailerr.Local(err)}
	}
	if reply.Err != nil {
		d.o.Log.Warnf("warn: smtpd: include of %s: %v", m.Path, reply.Err.Cause)
	}
	r.Reply(&reply)
}
