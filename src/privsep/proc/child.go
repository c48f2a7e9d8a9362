package proc

import (
	"context"
	"fmt"
	"os"

	"opensmtpd/src/mail"
	"opensmtpd/src/privsep/imsg"
	"opensmtpd/src/privsep/msg"
	"opensmtpd/src/version"
)

// piece is how much of something large goes into one frame, in bytes.
const piece = 512 << 10

// Hello tells the process who it is to be. The error is ErrOtherBuild when it
// is of another build than we are.
func (c *Child) Hello(ctx context.Context, h *msg.Hello) error {
	var reply msg.Hello
	h.Build, h.Role = version.ID(), string(c.Role)
	if err := c.Peer.Call(ctx, h, &reply); err != nil {
		return err
	}
	if reply.Build != h.Build {
		return ErrOtherBuild
	}
	return nil
}

// Link connects two roles to each other.
func Link(ctx context.Context, a, b *Child) error {
	x, y, err := imsg.Pair()
	if err != nil {
		return err
	}
	if err := a.Peer.SendFile(ctx, &msg.Peer{Role: string(b.Role)}, x); err != nil {
		y.Close()
		return err
	}
	return b.Peer.SendFile(ctx, &msg.Peer{Role: string(a.Role)}, y)
}

// Give hands over a resource, in pieces if it is large.
func (c *Child) Give(ctx context.Context, name string, data []byte) error {
	for len(data) > piece {
		if err := c.Peer.Send(ctx, &msg.Resource{Name: name, More: true, Data: data[:piece]}); err != nil {
			return err
		}
		data = data[piece:]
	}
	return c.Peer.Send(ctx, &msg.Resource{Name: name, Data: data})
}

// GiveFile hands over a resource that is a descriptor, which it closes here.
func (c *Child) GiveFile(ctx context.Context, name string, f *os.File) error {
	return c.Peer.SendFile(ctx, &msg.Resource{Name: name}, f)
}

// Prepare hands over a configuration, whose files it closes here, and waits
// until the role has it ready. The first time it returns the layers that
// confine the process.
func (c *Child) Prepare(ctx context.Context, gen mail.Gen, projection []byte, files []File) ([]string, error) {
	for i, f := range files {
		if err := c.Peer.SendFile(ctx, &msg.File{Identity: f.Identity}, f.File); err != nil {
			for _, f := range files[i+1:] {
				f.File.Close()
			}
			return nil, err
		}
	}
	for len(projection) > 0 {
		n := min(len(projection), piece)
		if err := c.Peer.Send(ctx, &msg.Conf{Gen: gen, Data: projection[:n]}); err != nil {
			return nil, err
		}
		projection = projection[n:]
	}
	var ready msg.Ready
	if err := c.Peer.Call(ctx, &msg.Prepare{Gen: gen}, &ready); err != nil {
		return nil, err
	}
	if ready.Err != nil {
		if ready.Err.Cause != nil {
			return nil, fmt.Errorf("%s: %w", c.Role, ready.Err.Cause)
		}
		return nil, fmt.Errorf("%s: %w", c.Role, ready.Err)
	}
	return ready.Layers, nil
}

// Commit makes the prepared generation current, and waits until it is.
func (c *Child) Commit(ctx context.Context, gen mail.Gen) error {
	return c.Peer.Call(ctx, &msg.CommitConf{Gen: gen}, &msg.Ready{})
}

// Abort makes the role forget the prepared generation.
func (c *Child) Abort(ctx context.Context, gen mail.Gen) error {
	return c.Peer.Send(ctx, &msg.AbortConf{Gen: gen})
}

// Shutdown asks the role to finish and end.
func (c *Child) Shutdown(ctx context.Context) error {
	return c.Peer.Send(ctx, &msg.Shutdown{})
}

// Verbose sets what the role logs.
func (c *Child) Verbose(ctx context.Context, verbose bool, traces []string) error {
	return c.Peer.Send(ctx, &msg.Verbose{Verbose: verbose, Trace: traces})
}
