package parent

import (
	"context"
	"os"

	"opensmtpd/src/clock"
	"opensmtpd/src/conf"
	"opensmtpd/src/mail"
	"opensmtpd/src/mlog"
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

// Deliveries is parent's part in local delivery: it knows the users, starts
// agents as them, and ends agents that do not end by themselves.
type Deliveries struct{ o DeliveryOptions }

// NewDeliveries returns a Deliveries without agents.
func NewDeliveries(o DeliveryOptions) *Deliveries { return &Deliveries{o} }

// Handlers returns the rows for parent's table: UserInfo and Include from
// lookup; Agent and AgentEnd from queue, and from nobody else.
func (d *Deliveries) Handlers() []proc.Handler { return nil }

// Close ends all agents and returns when they were reaped.
func (d *Deliveries) Close() {}
