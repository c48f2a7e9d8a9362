package queue

import (
	"fmt"
	"testing"

	"opensmtpd/src/privsep/msg"
	"opensmtpd/src/queue/disk"
)

// keptOf returns all that is kept, page by page.
func (d *daemon) keptOf(kind string) (got map[string]string, pages int) {
	d.t.Helper()
	got = make(map[string]string)
	for after := ""; ; pages++ {
		q := newRequest("dispatcher", &msg.Kept{Kind: kind, After: after})
		d.Role.kept(d.t.Context(), q)
		page := (<-q.reply).(*msg.KeptReply)
		if len(page.Values) == 0 {
			return got, pages
		}
		for _, v := range page.Values {
			got[v.Key], after = string(v.Data), v.Key
		}
	}
}

func (d *daemon) keepThese(kind string, values ...msg.KeptValue) {
	d.Role.keep(d.t.Context(), newRequest("dispatcher", &msg.Keep{Kind: kind, Values: values}))
}

// TestKeep holds that values outlive a restart, those removed do not, and that no
// kind is taken but those that are known.
func TestKeep(t *testing.T) {
	d := run(t, options{})
	large := make([]byte, 1000)
	var many []msg.KeptValue
	for i := range 999 {
		many = append(many, msg.KeptValue{Key: fmt.Sprintf("%03d", i), Data: large})
	}
	d.keepThese("greylist", many...)
	d.keepThese("greylist", msg.KeptValue{Key: "007", Remove: true}, msg.KeptValue{Key: "x", Data: make([]byte, maxKeptData+1)})
	d.keepThese("other", msg.KeptValue{Key: "y", Data: large})
	if err := d.stop(); err != nil {
		t.Fatal(err)
	}
	d = run(t, options{disk: d.disk, clock: d.clock})
	got, pages := d.keptOf("greylist")
	if len(got) != 998 || got["007"] != "" || got["299"] != string(large) || pages < 2 {
		t.Errorf("%d values in %d pages", len(got), pages)
	}
	if got, _ := d.keptOf("other"); len(got) != 0 {
		t.Errorf("of another kind: %q", got)
	}
}

// TestKeepSync holds that a reply means stable storage: what was kept before, and
// with it, is there after the machine has stopped.
func TestKeepSync(t *testing.T) {
	d := run(t, options{})
	d.keepThese("greylist", msg.KeptValue{Key: "before", Data: []byte("1")})
	q := newRequest("dispatcher", &msg.Keep{Kind: "greylist", Sync: true, Values: []msg.KeptValue{{Key: "with", Data: []byte("2")}}})
	d.Role.keep(t.Context(), q)
	select {
	case <-q.reply:
	case err := <-q.fail:
		t.Fatal(err)
	}
	d = d.crash(disk.Lose, options{})
	if got, _ := d.keptOf("greylist"); got["before"] != "1" || got["with"] != "2" {
		t.Errorf("kept: %q", got)
	}
	q = newRequest("dispatcher", &msg.Keep{Kind: "other", Sync: true})
	d.Role.keep(t.Context(), q)
	if err := <-q.fail; err == nil {
		t.Error("another kind is kept")
	}
}

// TestKeepBound holds that dispatcher, whatever becomes of it, cannot have any
// number of values kept.
func TestKeepBound(t *testing.T) {
	d := run(t, options{segment: 64 << 20})
	for from := 0; from < maxKept+5000; from += 1000 {
		var some []msg.KeptValue
		for i := range 1000 {
			some = append(some, msg.KeptValue{Key: fmt.Sprint(from + i), Data: []byte("x")})
		}
		q := newRequest("dispatcher", &msg.Keep{Kind: "greylist", Sync: true, Values: some})
		d.Role.keep(t.Context(), q)
		<-q.reply
	}
	if n := d.store.StateCount("greylist"); n != maxKept {
		t.Errorf("%d values kept", n)
	}
	d.log.Await("too many")
}
