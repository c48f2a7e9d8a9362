package parent

import (
	"context"
	"errors"
	"io"
	"net"
	"os"
	"slices"
	"time"

	"opensmtpd/src/conf"
	"opensmtpd/src/mail"
	"opensmtpd/src/mailerr"
	"opensmtpd/src/mlog"
	"opensmtpd/src/privsep/msg"
	"opensmtpd/src/privsep/proc"
	"opensmtpd/src/safefile"
)

// handlers are what parent answers beside deliveries.
func (p *Parent) handlers() []proc.Handler {
	return []proc.Handler{
		{From: proc.Control, Type: msg.TypeControl, Concurrent: true, Do: p.control},
		{From: proc.Control, Type: msg.TypeStats, Do: func(_ context.Context, r proc.Request) { r.Reply(&msg.StatsReply{}) }},
		{From: proc.Lookup, Type: msg.TypeTableFile, Concurrent: true, Do: p.tableFile},
		{From: proc.Dispatcher, Type: msg.TypeProgramEnd, Do: p.programEnd},
		{From: proc.Lookup, Type: msg.TypeProgramEnd, Do: p.programEnd},
		{From: proc.Lookup, Type: msg.TypeSystemAuth, Concurrent: true, Do: p.systemAuth},
	}
}

// control serves the verbs of the administrator that concern all roles.
func (p *Parent) control(ctx context.Context, r proc.Request) {
	var m msg.Control
	if err := r.Parse(&m); err != nil {
		r.Fail(mailerr.Local(err))
		return
	}
	if err := p.obey(ctx, &m); err != nil {
		r.Fail(mailerr.Temporary(451, 3, 0, err.Error(), err))
		return
	}
	r.Reply(&msg.ControlRows{})
}

// errArgs is for control, which checks arguments before they come here.
var errArgs = errors.New("wrong arguments")

func (p *Parent) obey(ctx context.Context, m *msg.Control) error {
	if m.Verb == msg.VerbReload {
		err := p.reload(ctx)
		if err != nil {
			p.log.ReloadFailed(err)
		}
		return err
	}
	if len(m.Args) != 1 {
		return errArgs
	}
	p.mu.Lock()
	switch arg := m.Args[0]; m.Verb {
	case msg.VerbVerbose:
		p.verbose = arg == "1"
	case msg.VerbTrace:
		p.traces[arg] = true
	case msg.VerbUntrace:
		delete(p.traces, arg)
		if arg == "all" {
			clear(p.traces)
		}
	case msg.VerbProfile:
		p.traces["profile-"+arg] = true
	case msg.VerbUnprofile:
		delete(p.traces, "profile-"+arg)
	default:
		p.mu.Unlock()
		return errors.New("parent does not serve " + string(m.Verb))
	}
	verbose := p.verbose
	var traces []string
	for name := range p.traces {
		traces = append(traces, name)
	}
	p.mu.Unlock()
	slices.Sort(traces)
	p.log.SetVerbose(verbose)
	return p.each(func(_ int, c *proc.Child) error { return c.Verbose(ctx, verbose, traces) })
}

// tableFile opens the file of a table once more, for a lookup that found it
// changed or was told to read it again.
func (p *Parent) tableFile(_ context.Context, r proc.Request) {
	var m msg.TableFile
	if err := r.Parse(&m); err != nil {
		r.Fail(mailerr.Local(err))
		return
	}
	f, err := p.openTableOf(m.Gen, m.Name)
	if err != nil {
		r.Reply(&msg.TableFileReply{Err: mailerr.Local(err)})
		return
	}
	r.ReplyFile(&msg.TableFileReply{}, f)
}

func (p *Parent) openTableOf(gen mail.Gen, name string) (*os.File, error) {
	c := p.config(gen)
	if c == nil {
		return nil, errors.New("that configuration is no longer kept")
	}
	i := slices.IndexFunc(c.Tables, func(t *conf.Table) bool { return t.Name == name })
	if i < 0 {
		return nil, errors.New("no such table with a file: " + name)
	}
	t := c.Tables[i]
	if path, ok := t.Dovecot(); ok {
		return dialUnix(path)
	}
	if t.Backend != "file" && t.Backend != "db" {
		return nil, errors.New("no such table with a file: " + name)
	}
	return safefile.Open(t.Config)
}

// dialTime is how long a local socket may take to accept.
const dialTime = 5 * time.Second

// dialUnix connects to a local socket, for a role that cannot.
func dialUnix(path string) (*os.File, error) {
	nc, err := net.DialTimeout("unix", path, dialTime)
	if err != nil {
		return nil, err
	}
	defer nc.Close()
	return nc.(*net.UnixConn).File()
}

// maxOutput is the longest line of a process's stderr that is logged whole, in
// bytes; what is beyond comes in further lines.
const maxOutput = 4096

// logOutput logs what a process writes to stderr, until it has closed it.
func (p *Parent) logOutput(name string, r io.ReadCloser) {
	defer r.Close()
	logLines(r, name, (*mlog.Logger).ProcessSaid, p.log)
}
