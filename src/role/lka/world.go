package lka

import (
	"context"
	"fmt"
	"sync"

	"opensmtpd/src/privsep/msg"
	"opensmtpd/src/privsep/proc"
)

// patience is how long an expansion may wait for parent and table programs: less
// than dispatcher waits for the answer, so that no envelope comes for a recipient
// it has given up.
const patience = proc.CallTimeout * 2 / 3

// world is what one expansion may ask beside the configuration.
type world struct {
	*Role
	trace bool
}

func (r *Role) world() world { return world{r, r.env.Trace != nil && r.env.Trace("expand")} }

// patiently returns a context that ends with the patience, and what ends it
// before.
func (r *Role) patiently(ctx context.Context) (context.Context, func()) {
	late, never := r.env.Clock.After(patience)
	ctx, cancel := context.WithCancel(ctx)
	var watch sync.WaitGroup
	watch.Go(func() {
		select {
		case <-late:
			cancel()
		case <-ctx.Done():
		}
	})
	return ctx, func() {
		never()
		cancel()
		watch.Wait()
	}
}

// ask calls parent.
func (w world) ask(ctx context.Context, m msg.Message, reply msg.Parser) error {
	if err := w.parent.Call(ctx, m, reply); err != nil {
		return fmt.Errorf("asking parent: %w", err)
	}
	return nil
}

// User implements expand.World.
func (w world) User(ctx context.Context, q *msg.UserInfo) (*msg.UserInfoReply, error) {
	var reply msg.UserInfoReply
	if err := w.ask(ctx, q, &reply); err != nil {
		return nil, err
	}
	return &reply, nil
}

// Include implements expand.World.
func (w world) Include(ctx context.Context, path string) ([]byte, bool, error) {
	var reply msg.IncludeReply
	if err := w.ask(ctx, &msg.Include{Path: path}, &reply); err != nil {
		return nil, false, err
	}
	if reply.Err != nil {
		return nil, false, reply.Err
	}
	return reply.Data, reply.Found, nil
}

// Warnf implements expand.World.
func (w world) Warnf(format string, args ...any) { w.log.Warnf(format, args...) }

// Tracing implements expand.World.
func (w world) Tracing() bool { return w.trace }

// Tracef implements expand.World.
func (w world) Tracef(format string, args ...any) { w.log.Infof(format, args...) }
