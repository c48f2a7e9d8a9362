package dispatcher

import (
	"context"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"opensmtpd/src/clock"
	"opensmtpd/src/conf"
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
	synced int // how many there were when they were last to be on stable storage
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
	if m, ok := m.(*msg.Keep); ok && m.Sync {
		k.synced = len(k.values)
		return nil
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
	env := proc.Env{Clock: c, Log: mlog.New(new(mlog.Memory), true), Peers: map[proc.Role]proc.Caller{proc.Queue: k}}
	with := func(do func(*greylisting)) {
		g := newGreylisting(env)
		ctx, cancel := context.WithCancel(t.Context())
		var run sync.WaitGroup
		run.Go(func() { g.run(ctx) })
		do(g)
		cancel()
		run.Wait()
		if k.synced != len(k.values) && k.fail == nil {
			t.Error("it ends before all is on stable storage")
		}
	}
	try := greylist.Try{Addr: netip.MustParseAddr("192.0.2.1"), From: "a@b", To: "c@d"}
	allow := func(want bool) {
		t.Helper()
		with(func(g *greylisting) {
			if got, err := g.Allow(t.Context(), greylist.Rule(conf.UsualGrey()), try); got.Pass != want || err != nil {
				t.Errorf("%v, %v; want %v", got, err, want)
			}
		})
	}
	say := func(verb msg.Verb, args ...string) (rows string, err *mailerr.Error) {
		with(func(g *greylisting) { rows, err = ask(t, g, verb, args...) })
		return rows, err
	}
	shown := func(want string) {
		t.Helper()
		if rows, err := say(msg.VerbShowGreylist); err != nil || rows != want {
			t.Errorf("shown: %s, %v; want %s", rows, err, want)
		}
	}
	allow(false)
	shown(`{"state":"grey","net":"192.0.2.0/24","sender":"a@b","rcpt":"c@d","first":1700000000,"ready":1700001500,"until":1700014400}`)
	c.Advance(25 * time.Minute)
	allow(true)
	try.To = "other@d"
	allow(true)
	shown(`{"state":"white","net":"192.0.2.0/24","sender":"","first":1700000000,"until":1703111900}`)
	for _, tc := range []struct {
		verb msg.Verb
		arg  string
		want string // "": an error that has the argument
	}{
		{msg.VerbUnwhitelist, "192.0.2.200", `{"net":"192.0.2.0/24","done":"removed"}`},
		{msg.VerbUnwhitelist, "192.0.2.200/32", ""},
		{msg.VerbWhitelist, "192.0.2.1", `{"net":"192.0.2.1/32","done":"added"}`},
		{msg.VerbWhitelist, "::ffff:192.0.2.1", `{"net":"192.0.2.1/32","done":"covered","by":"192.0.2.1/32"}`},
		{msg.VerbWhitelist, "192.0.7.9/16", `{"net":"192.0.0.0/16","done":"added"}`},
		{msg.VerbWhitelist, "192.0.2.2", `{"net":"192.0.2.2/32","done":"covered","by":"192.0.0.0/16"}`},
		{msg.VerbUnwhitelist, "192.0.3.0/24", `{"net":"192.0.0.0/16","done":"removed","entered":true}`},
		{msg.VerbUnwhitelist, "192.0.2.9/32", ""},
	} {
		got, err := say(tc.verb, tc.arg)
		if got != tc.want || (err == nil) != (tc.want != "") || err != nil && !strings.Contains(err.Text, tc.arg) {
			t.Errorf("%s %s: %s, %v", tc.verb, tc.arg, got, err)
		}
		if tc.want != "" && k.synced != len(k.values) {
			t.Errorf("%s %s: it is not on stable storage", tc.verb, tc.arg)
		}
	}
	allow(true) // by its own address
	k.values["nonsense"] = []byte("{}")
	shown(`{"state":"white","net":"192.0.2.1/32","sender":"","first":1700001500,"until":0}`)
	if k.values["nonsense"] != nil {
		t.Error("what cannot be read stays")
	}
	k.fail = mailerr.Temporary(451, 3, 2, "gone", nil)
	with(func(g *greylisting) {
		if got, err := g.Allow(t.Context(), greylist.Rule{}, try); got.Pass || err == nil {
			t.Errorf("without what is kept: %v, %v", got, err)
		}
	})
}

// ask asks as control does, page by page, and returns the rows.
func ask(t *testing.T, g *greylisting, verb msg.Verb, args ...string) (string, *mailerr.Error) {
	var rows []string
	m := &msg.Control{Verb: verb, Args: args}
	for {
		got, err, mine := g.control(t.Context(), m)
		if err != nil || !mine {
			return "", err
		}
		for _, b := range got.Rows {
			rows = append(rows, string(b))
		}
		if got.Next == "" {
			return strings.Join(rows, "\n"), nil
		}
		if got.Next == m.Cursor || len(got.Rows) > greyRows || len(got.Append(nil)) > msg.ControlPage {
			t.Fatalf("page of %d rows after %q, before %q", len(got.Rows), m.Cursor, got.Next)
		}
		m.Cursor = got.Next
	}
}

// TestGreylistPages shows more than a page has, and removes it.
func TestGreylistPages(t *testing.T) {
	const all = 2*greyRows + 7
	c := clock.NewFake(time.Unix(1_700_000_000, 0))
	g := newGreylisting(proc.Env{
		Clock: c, Log: mlog.New(new(mlog.Memory), true),
		Peers: map[proc.Role]proc.Caller{proc.Queue: &keeper{values: make(map[string][]byte)}},
	})
	for range 2 {
		for i := range all {
			a := netip.AddrFrom4([4]byte{10, byte(i >> 8), byte(i), 1})
			if _, err := g.Allow(t.Context(), greylist.Rule(conf.UsualGrey()), greylist.Try{Addr: a, From: "a@b", To: "c@d"}); err != nil {
				t.Fatal(err)
			}
		}
		rows, err := ask(t, g, msg.VerbShowGreylist)
		if n := strings.Count(rows, `"net"`); n != all || err != nil {
			t.Errorf("%d rows, %v", n, err)
		}
		c.Advance(25 * time.Minute)
	}
	rows, err := ask(t, g, msg.VerbUnwhitelist, "10.0.0.0/8")
	if n := strings.Count(rows, `"removed"`); n != all || err != nil {
		t.Errorf("%d removed, %v", n, err)
	}
	if rows, err := ask(t, g, msg.VerbShowGreylist); rows != "" || err != nil {
		t.Errorf("left: %s, %v", rows, err)
	}
}
