package mda

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"syscall"

	"opensmtpd/src/clock"
	"opensmtpd/src/mda/forward"
	"opensmtpd/src/mda/maildir"
	"opensmtpd/src/privsep/imsg"
	"opensmtpd/src/privsep/msg"
)

// Serve is a delivery agent: it does what parent's AgentConf says for those who
// ask over queue, until that ends. With queue nil it only reads files for
// parent, until parent closes the link. Both files are stream sockets, which
// Serve closes. What is under way when ctx ends is given up.
func Serve(ctx context.Context, parent, queue *os.File) error {
	link, err := imsg.NewConn(parent)
	if err != nil {
		return errors.Join(err, closeAll(parent, queue))
	}
	defer link.Close()
	conf, err := hello(link)
	if err != nil || queue == nil {
		if err == nil {
			stop := context.AfterFunc(ctx, link.Close)
			defer stop()
			err = read(link, &conf)
		}
		return errors.Join(err, closeAll(queue))
	}
	in, err := imsg.NewConn(queue)
	if err != nil {
		return errors.Join(err, closeAll(queue))
	}
	defer in.Close()
	stop := context.AfterFunc(ctx, in.Close)
	defer stop()
	return serve(ctx, clock.NewSystem(), conf, link, in)
}

func closeAll(files ...*os.File) (err error) {
	for _, f := range files {
		if f != nil {
			err = errors.Join(err, f.Close())
		}
	}
	return err
}

// hello reads what the agent is there for, and proves that it is who it should
// be: with the wrong user's rights it must touch nothing.
func hello(link *imsg.Conn) (conf msg.AgentConf, err error) {
	f, err := link.Next()
	if err != nil {
		return conf, fmt.Errorf("agent: %w", err)
	}
	if msg.Type(f.Type) != msg.TypeAgentConf {
		return conf, fmt.Errorf("agent: first message is of type %d", f.Type)
	}
	if err := conf.Parse(f.Body); err != nil {
		return conf, fmt.Errorf("agent: %w", err)
	}
	if uid := os.Getuid(); uint32(uid) != conf.UID || os.Geteuid() != uid {
		return conf, fmt.Errorf("agent: runs as uid %d instead of %d", uid, conf.UID)
	}
	return conf, nil
}

// read answers parent's Forward and Include.
func read(link *imsg.Conn, conf *msg.AgentConf) error {
	for {
		f, err := link.Next()
		if err != nil {
			return ended(err)
		}
		var reply msg.Message
		switch msg.Type(f.Type) {
		case msg.TypeForward:
			var m msg.Forward
			if err := m.Parse(f.Body); err != nil {
				return fmt.Errorf("agent: %w", err)
			}
			r := new(msg.ForwardReply)
			r.Data, r.Found, r.Err = forward.Read(m.Home, conf.UID)
			reply = r
		case msg.TypeInclude:
			var m msg.Include
			if err := m.Parse(f.Body); err != nil {
				return fmt.Errorf("agent: %w", err)
			}
			r := new(msg.IncludeReply)
			r.Data, r.Found, r.Err = forward.Include(m.Path, msg.MaxInclude)
			reply = r
		default:
			return fmt.Errorf("agent: message of type %d", f.Type)
		}
		if _, err := link.Put(imsg.Header{Type: uint16(reply.Type()), Flags: imsg.FlagReply, Call: f.Call}, reply, nil); err != nil {
			return ended(err)
		}
	}
}

// ended makes nothing of the ordinary ends of a link: the other side may close it
// at any moment.
func ended(err error) error {
	for _, ordinary := range []error{io.EOF, io.ErrUnexpectedEOF, imsg.ErrClosed, syscall.ECONNRESET, syscall.EPIPE} {
		if errors.Is(err, ordinary) {
			return nil
		}
	}
	return err
}

// job is a frame of queue on its way to the worker.
type job struct {
	call  uint64
	chunk bool
	msg.Deliver
	msg.DeliverChunk
}

// queued is how many frames may wait for the worker: enough for a batch to
// gather while the one before is being synced.
const queued = 128

// serve reads frames and lets a worker deliver.
func serve(ctx context.Context, c clock.Clock, conf msg.AgentConf, link, in *imsg.Conn) error {
	ctx, cancel := context.WithCancel(ctx)
	jobs := make(chan *job, queued)
	w := &worker{
		ctx: ctx, clock: c, conf: conf, link: link, out: in,
		store: maildir.NewStore(maildir.System{}, maildir.NewNamer(c)),
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		w.run(jobs)
	}()
	err := receive(in, jobs)
	// Queue will not learn what becomes of the rest: a command that still runs
	// would run again.
	cancel()
	close(jobs)
	<-done
	return ended(err)
}

func receive(in *imsg.Conn, jobs chan<- *job) error {
	for {
		f, err := in.Next()
		if err != nil {
			return err
		}
		j := &job{call: f.Call}
		switch msg.Type(f.Type) {
		case msg.TypeDeliver:
			err = j.Deliver.Parse(f.Body)
		case msg.TypeDeliverChunk:
			j.chunk = true
			err = j.DeliverChunk.Parse(f.Body)
		default:
			err = fmt.Errorf("message of type %d", f.Type)
		}
		if err != nil {
			return fmt.Errorf("agent: %w", err)
		}
		jobs <- j
	}
}
