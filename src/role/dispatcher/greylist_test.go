package dispatcher

import (
	"context"
	"encoding/json"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"opensmtpd/src/clock"
	"opensmtpd/src/conf"
	"opensmtpd/src/ctl"
	"opensmtpd/src/filter/greylist"
	"opensmtpd/src/mailerr"
	"opensmtpd/src/mlog"
	"opensmtpd/src/privsep/msg"
	"opensmtpd/src/privsep/proc"
)

// keeper plays queue, which keeps values; a page has one.
type keeper struct {
	silent
	mu     sync.Mutex
	fail   *mailerr.Error
	values map[string][]byte
}

func (k *keeper) Send(_ context.Context, m msg.Message) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	for _, v := range m.(*msg.Keep).Values {
		if k.values[v.Key] = v.Data; v.Remove {
			delete(k.values, v.Key)
		}
	}
	return nil
}

func (k *keeper) Call(_ context.Context, m msg.Message, reply msg.Parser) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.fail != nil {
		return k.fail
	}
	var keys []string
	for key := range k.values {
		if key > m.(*msg.Kept).After {
			keys = append(keys, key)
		}
	}
	slices.Sort(keys)
	if len(keys) > 0 {
		reply.(*msg.KeptReply).Values = []msg.KeptValue{{Key: keys[0], Data: k.values[keys[0]]}}
	}
	return nil
}

// TestGreylistRestart starts the greylist anew between all steps: what it knows
// is what queue has kept.
func TestGreylistRestart(t *testing.T) {
	c := clock.NewFake(time.Unix(1_700_000_000, 0))
	k := &keeper{values: make(map[string][]byte)}
	env := proc.Env{Clock: c, Log: mlog.New(&journal{}, true), Peers: map[proc.Role]proc.Caller{proc.Queue: k}}
	with := func(do func(*greylisting)) {
		g := newGreylisting(env)
		ctx, cancel := context.WithCancel(t.Context())
		var run sync.WaitGroup
		run.Go(func() { g.run(ctx) })
		do(g)
		cancel()
		run.Wait()
	}
	try := greylist.Try{Addr: netip.MustParseAddr("192.0.2.1"), From: "a@b", To: "c@d"}
	allow := func(want bool) {
		t.Helper()
		with(func(g *greylisting) {
			if got, err := g.Allow(t.Context(), greylist.Rule(conf.UsualGrey()), try); got != want || err != nil {
				t.Errorf("%v, %v; want %v", got, err, want)
			}
		})
	}
	say := func(verb msg.Verb, args ...string) (rows []ctl.GreyRow, err *mailerr.Error) {
		with(func(g *greylisting) {
			var page *msg.ControlRows
			page, err, _ = g.control(t.Context(), &msg.Control{Verb: verb, Args: args})
			if err != nil {
				return
			}
			for _, b := range page.Rows {
				var r ctl.GreyRow
				if err := json.Unmarshal(b, &r); err != nil {
					t.Error(err)
				}
				rows = append(rows, r)
			}
		})
		return rows, err
	}
	allow(false)
	if rows, _ := say(msg.VerbShowGreylist); len(rows) != 1 || rows[0].State != "grey" || rows[0].Rcpt != "c@d" {
		t.Errorf("shown: %+v", rows)
	}
	c.Advance(25 * time.Minute)
	allow(true)
	try.To = "other@d"
	allow(true)
	if rows, _ := say(msg.VerbShowGreylist); len(rows) != 1 || rows[0].State != "white" || rows[0].Net != "192.0.2.0/24" {
		t.Errorf("shown: %+v", rows)
	}
	say(msg.VerbUnwhitelist, "192.0.2.0/24")
	allow(false)
	say(msg.VerbWhitelist, "192.0.2.1")
	allow(true)
	if _, err := say(msg.VerbUnwhitelist, "192.0.2.9"); err == nil || !strings.Contains(err.Text, "192.0.2.9") {
		t.Errorf("what is not there was removed: %v", err)
	}
	k.fail = mailerr.Temporary(451, 3, 2, "gone", nil)
	with(func(g *greylisting) {
		if ok, err := g.Allow(t.Context(), greylist.Rule{}, try); ok || err == nil {
			t.Errorf("without what is kept: %v, %v", ok, err)
		}
	})
}
