package mda

import (
	"context"
	"path/filepath"
	"testing"

	"opensmtpd/src/clock"
	"opensmtpd/src/conf"
	"opensmtpd/src/mda/maildir"
	"opensmtpd/src/privsep/imsg"
	"opensmtpd/src/privsep/msg"
)

// cutting is a file system during whose n-th creation queue dies.
type cutting struct {
	maildir.System
	n   *int
	die func()
}

func (c cutting) Create(path string) (maildir.File, error) {
	if *c.n--; *c.n == 0 {
		c.die()
	}
	return c.System.Create(path)
}

// Queue delivers again what it has no result of, so an agent that has lost it
// leaves nothing of what was not on its way to the disk.
func TestQueueDies(t *testing.T) {
	for _, creations := range []int{0, 1, 3} {
		dir := t.TempDir()
		ours, theirs, err := imsg.Pair()
		if err != nil {
			t.Fatal(err)
		}
		theirs.Close()
		out, err := imsg.NewConn(ours)
		if err != nil {
			t.Fatal(err)
		}
		ctx, die := context.WithCancel(t.Context())
		if creations == 0 {
			die()
		}
		c := clock.NewSystem()
		w := &worker{
			ctx: ctx, clock: c, out: out,
			conf:  msg.AgentConf{Method: uint8(conf.Maildir)},
			store: maildir.NewStore(cutting{n: &creations, die: die}, maildir.NewNamer(c)),
		}
		jobs := make(chan *job, queued)
		for i := range 5 {
			e := newEnvelope("eve")
			d := msg.Deliver{
				Envelope: e.ID, RunHome: dir, Sender: e.Sender, Rcpt: e.Rcpt, Dest: e.Dest, Size: 2, Inline: true, Body: []byte("x\n"),
			}
			jobs <- &job{call: uint64(i), Deliver: d}
		}
		close(jobs)
		w.run(jobs)
		die()
		out.Close()
		for _, sub := range []string{"new", "tmp"} {
			if got, _ := filepath.Glob(dir + "/Maildir/" + sub + "/*"); len(got) > 0 {
				t.Errorf("%d files in %s", len(got), sub)
			}
		}
	}
}
