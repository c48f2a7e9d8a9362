package queue

import (
	"fmt"
	"testing"

	"opensmtpd/src/privsep/msg"
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
	large := make([]byte, 2000)
	var many []msg.KeptValue
	for i := range 300 {
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
	if len(got) != 299 || got["007"] != "" || got["299"] != string(large) || pages < 2 {
		t.Errorf("%d values in %d pages", len(got), pages)
	}
	if got, _ := d.keptOf("other"); len(got) != 0 {
		t.Errorf("of another kind: %q", got)
	}
}
