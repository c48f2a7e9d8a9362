package control

import (
	"context"
	"encoding/json"
	"slices"
	"strings"
	"sync"
	"time"

	"opensmtpd/src/ctl"
	"opensmtpd/src/privsep/msg"
	"opensmtpd/src/stat"
)

// statsLimit is how long a role may take to tell its counters; one that is too
// busy is left out.
const statsLimit = 5 * time.Second

// rows answers with one row.
func (s *session) rows(row any) error {
	b, err := json.Marshal(row)
	if err != nil {
		return s.fail(err)
	}
	if err := s.conn.Rows([][]byte{b}, nil); err != nil {
		return err
	}
	return s.conn.Done(0)
}

// pauses tells what a verb stops or lets go on.
func pauses(v msg.Verb) (what string, pause, ok bool) {
	switch v {
	case msg.VerbPauseMDA, msg.VerbResumeMDA:
		what = "mda"
	case msg.VerbPauseMTA, msg.VerbResumeMTA:
		what = "mta"
	case msg.VerbPauseSMTP, msg.VerbResumeSMTP:
		what = "smtp"
	}
	return what, strings.HasPrefix(string(v), "pause"), what != ""
}

func (r *Role) isPaused(what string) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.paused[what]
}

// pauseOrResume changes the state of one of mda, mta and smtp, which is kept
// here for all to see.
func (s *session) pauseOrResume(ctx context.Context, v verb, what string, pause bool) error {
	s.pausing.Lock()
	defer s.pausing.Unlock()
	if s.isPaused(what) == pause {
		state := "running"
		if pause {
			state = "paused"
		}
		return s.refuse(what+" is already "+state, nil)
	}
	m := &msg.Control{Verb: v.name, UID: s.creds.UID, Operator: s.operator}
	if _, err := s.ask(ctx, v, m); err != nil {
		return s.fail(err)
	}
	s.mu.Lock()
	s.paused[what] = pause
	s.mu.Unlock()
	if pause {
		s.env.Log.Paused(what)
	} else {
		s.env.Log.Resumed(what)
	}
	return s.conn.Done(0)
}

func (r *Role) status() ctl.StatusRow {
	word := func(what string) string {
		if r.isPaused(what) {
			return "paused"
		}
		return "running"
	}
	return ctl.StatusRow{MDA: word("mda"), MTA: word("mta"), SMTP: word("smtp")}
}

// counters asks every role at once and adds up what they tell, with our own.
func (r *Role) counters(ctx context.Context) map[string]msg.Counter {
	ctx, cancel := context.WithTimeout(ctx, statsLimit)
	defer cancel()
	var wg sync.WaitGroup
	replies := make([]msg.StatsReply, len(r.env.Peers))
	i := 0
	for _, peer := range r.env.Peers {
		reply := &replies[i]
		i++
		wg.Go(func() {
			if peer.Call(ctx, &msg.Stats{}, reply) != nil {
				*reply = msg.StatsReply{} // left out
			}
		})
	}
	wg.Wait()
	sum := make(map[string]msg.Counter)
	for _, reply := range append(replies, *r.stats.Reply()) {
		for _, c := range reply.Counters {
			have := sum[c.Name]
			sum[c.Name] = msg.Counter{Name: c.Name, Up: have.Up + c.Up, Down: have.Down + c.Down}
		}
	}
	return sum
}

// showStats answers with every counter and the time since the start.
func (s *session) showStats(ctx context.Context) error {
	list := []ctl.StatRow{{Key: "uptime", Value: int64((s.env.Clock.Mono() - s.started) / time.Second)}}
	for _, c := range s.counters(ctx) {
		list = append(list, ctl.StatRow{Key: c.Name, Value: c.Up - c.Down})
	}
	slices.SortFunc(list, func(a, b ctl.StatRow) int { return strings.Compare(a.Key, b.Key) })
	rows := make([][]byte, len(list))
	for i, row := range list {
		b, err := json.Marshal(row)
		if err != nil {
			return s.fail(err)
		}
		rows[i] = b
	}
	if err := s.conn.Rows(rows, nil); err != nil {
		return err
	}
	return s.conn.Done(0)
}

// digest picks out what "smtpctl monitor" shows.
func digest(c map[string]msg.Counter) ctl.DigestRow {
	value := func(name string) int64 { return c[name].Up - c[name].Down }
	return ctl.DigestRow{
		ClientConnect:    c[stat.SMTPSession].Up,
		ClientDisconnect: c[stat.SMTPSession].Down,
		Enqueued:         c[stat.Envelope].Up,
		Dequeued:         c[stat.Envelope].Down,
		OK:               value(stat.DeliveryOK),
		TempFail:         value(stat.DeliveryTempFail),
		PermFail:         value(stat.DeliveryPermFail),
		Loop:             value(stat.DeliveryLoop),
		Expired:          value(stat.EnvelopeExpired),
		Removed:          value(stat.EnvelopeRemoved),
		Bounce:           value(stat.QueueBounce),
	}
}
