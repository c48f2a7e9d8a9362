package queue

import (
	"context"
	"fmt"
	"time"

	"opensmtpd/src/mailerr"
	"opensmtpd/src/privsep/msg"
	"opensmtpd/src/privsep/proc"
	"opensmtpd/src/queue/disk"
)

const (
	// spaceFloor is how much of the file system, bytes and inodes, stays free
	// of mail, in percent (DESIGN section 6).
	spaceFloor = 5
	// spaceEvery is how often the file system is looked at, and spaceStep how many
	// bytes of mail come in before it is looked at sooner: bodies that nobody
	// finishes fill a disk faster than any commit tells.
	spaceEvery = 5 * time.Second
	spaceStep  = 4 << 20
)

// intake is whether mail is taken, and if not, why.
type intake struct {
	store *mailerr.Error // the journal has failed, or the disk is full
	space *mailerr.Error // too little is free, or the journal is not there any more
	told  bool           // what dispatcher knows: open
	look  time.Duration  // when to look at the file system again
	spent int            // bytes that came since it was looked at
}

// closed returns what to answer to new mail, nil while it is taken.
func (in *intake) closed() *mailerr.Error {
	if in.store != nil {
		return in.store
	}
	return in.space
}

// storeIntake is called by the store.
func (r *Role) storeIntake(err *mailerr.Error) {
	r.mu.Lock()
	r.intake.store = err
	r.mu.Unlock()
	r.tell()
	r.poke()
}

// watchSpace looks at the file system when it is time to.
func (r *Role) watchSpace() {
	now := r.env.Clock.Mono()
	r.mu.Lock()
	due := r.intake.look <= now
	r.mu.Unlock()
	if !due {
		return
	}
	bad := enough(r.store.Stat())
	if err := r.store.Gone(); bad == nil && err != nil {
		bad = mailerr.Local(err)
	}
	r.mu.Lock()
	r.intake.look, r.intake.spent = now+spaceEvery, 0
	changed := (bad == nil) != (r.intake.space == nil)
	r.intake.space = bad
	r.mu.Unlock()
	if changed {
		r.tell()
	}
}

// spend counts n bytes of mail that are about to be written.
func (r *Role) spend(n int) {
	r.mu.Lock()
	in := &r.intake
	in.spent += n
	much := in.spent >= spaceStep
	if much {
		in.look = 0
	}
	r.mu.Unlock()
	if much {
		r.watchSpace()
	}
}

// enough returns what to answer when too little is free. A file system that
// cannot be asked is the journal's to complain about.
func enough(s disk.Space, err error) *mailerr.Error {
	if err != nil || s.Bytes >= spaceFloor && s.Inodes >= spaceFloor {
		return nil
	}
	return mailerr.Temporary(452, 3, 1, "Insufficient system storage",
		fmt.Errorf("%.1f %% of the spool's bytes and %.1f %% of its inodes are free, %d %% is the limit", s.Bytes, s.Inodes, spaceFloor))
}

// tell makes announcer look.
func (r *Role) tell() {
	select {
	case r.announce <- struct{}{}:
	default:
	}
}

// announcer tells dispatcher whether mail is taken, at the start and whenever
// that changes.
func (r *Role) announcer(ctx context.Context) {
	for first := true; ; first = false {
		r.mu.Lock()
		bad, told := r.intake.closed(), r.intake.told
		r.intake.told = bad == nil
		r.mu.Unlock()
		if first || told != (bad == nil) {
			r.sayIntake(ctx, first, bad)
		}
		select {
		case <-r.announce:
		case <-ctx.Done():
			return
		}
	}
}

func (r *Role) sayIntake(ctx context.Context, first bool, bad *mailerr.Error) {
	m := &msg.Intake{Open: bad == nil}
	if bad != nil {
		m.Err = &mailerr.Error{Class: bad.Class, Code: bad.Code, Enhanced: bad.Enhanced, Text: bad.Text}
		r.env.Log.IntakeClosed(bad)
	} else if !first {
		r.env.Log.IntakeOpen()
	}
	if err := r.env.Peers[proc.Dispatcher].Send(ctx, m); err != nil && ctx.Err() == nil {
		r.env.Log.NotTold(err)
	}
}
