package parent

import (
	"context"
	"errors"
	"fmt"
	"os"
	"syscall"

	"opensmtpd/src/mail"
	"opensmtpd/src/mailerr"
	"opensmtpd/src/paths"
	"opensmtpd/src/privsep/msg"
	"opensmtpd/src/privsep/proc"
	"opensmtpd/src/version"
)

// agentPath is the environment of an agent, and what it is allowed to hand on.
const agentPath = "PATH=/usr/local/bin:/usr/bin:/bin:/usr/local/sbin:/usr/sbin:/sbin"

// AgentWithQueue and AgentAlone are the Config of an agent's Hello: whether the
// link to queue comes behind that to parent.
const (
	AgentAlone     = 0
	AgentWithQueue = 1
)

// spawner starts agents as other users. It implements AgentSpawner.
type spawner struct{ p *Parent }

// SpawnAgent implements AgentSpawner.
func (s spawner) SpawnAgent(_ context.Context, a AgentSpec) (AgentProcess, error) {
	config := []byte{AgentAlone}
	files := []*os.File{a.Parent}
	if a.Queue != nil {
		config[0] = AgentWithQueue
		files = append(files, a.Queue)
	}
	hello, err := proc.Handoff(&msg.Hello{
		Build: version.ID(), Role: string(proc.Agent), Config: config, UID: a.UID, GID: a.GID,
	})
	if err != nil {
		for _, f := range files {
			f.Close()
		}
		return nil, err
	}
	st := proc.Start{
		Title: a.Title, Files: append([]*os.File{hello}, files...), Env: []string{agentPath}, Session: true,
	}
	if s.p.opt.Stderr {
		st.Stderr = os.Stderr
	}
	if !s.p.who.unprivileged {
		st.Credential = &syscall.Credential{Uid: a.UID, Gid: a.GID, Groups: []uint32{a.GID}}
	}
	process, err := proc.Reexec(st)
	if err != nil {
		return nil, fmt.Errorf("agent for uid %d: %w", a.UID, err)
	}
	return &agentProcess{process, s.p, a.Title}, nil
}

type agentProcess struct {
	process *os.Process
	p       *Parent
	title   string
}

func (a *agentProcess) Pid() int { return a.process.Pid }

// Wait implements AgentProcess. An agent of another build than ours is told to
// the administrator: mail waits until the daemon was restarted.
func (a *agentProcess) Wait() error {
	st, err := a.process.Wait()
	if err != nil {
		return err
	}
	if st.ExitCode() == proc.ExitTempFail {
		a.p.log.OtherBuild(proc.Title(a.title))
	}
	if !st.Success() {
		return errors.New(st.String())
	}
	return nil
}

// Kill implements AgentProcess. The agent leads its process group.
func (a *agentProcess) Kill() {
	_ = syscall.Kill(-a.process.Pid, syscall.SIGKILL)
	_ = a.process.Kill()
}

// newDeliveries ties deliveries to the rest of parent.
func (p *Parent) newDeliveries() *Deliveries {
	return NewDeliveries(DeliveryOptions{
		Clock: p.clock, Log: p.log, Spawn: spawner{p}, Config: p.config, UserBase: p.userBase,
		Users: p.users, MailDir: paths.MailDir, LibExec: libExec(),
		Daemon: p.who.daemon, Unprivileged: p.who.unprivileged,
	})
}

// userBase asks lookup for a user of a userbase table.
func (p *Parent) userBase(ctx context.Context, gen mail.Gen, table, name string) (User, bool, error) {
	var reply msg.UserInfoReply
	err := p.child(proc.Lookup).Peer.Call(ctx, &msg.UserBase{Gen: gen, Table: table, Name: name}, &reply)
	if err != nil {
		return User{}, false, err
	}
	if reply.Err != nil {
		return User{}, false, mailerr.From(reply.Err)
	}
	return User{Name: reply.Name, UID: reply.UID, GID: reply.GID, Home: reply.Home}, reply.Found, nil
}
