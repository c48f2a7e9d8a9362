package mlog

import (
	"errors"
	"slices"
	"strings"
	"testing"
	"time"
)

type kept []string

func (k *kept) Line(_ Priority, line string) { *k = append(*k, line) }

func TestDurationText(t *testing.T) {
	for d, want := range map[time.Duration]string{
		0: "0s", 999 * time.Millisecond: "0s", time.Second: "1s", 61 * time.Second: "1m1s", time.Hour: "1h",
		25*time.Hour + 3*time.Second: "1d1h3s", -90 * time.Second: "-1m30s", 400 * 24 * time.Hour: "400d",
	} {
		if got := DurationText(d); got != want {
			t.Errorf("DurationText(%v) = %q, want %q", d, got, want)
		}
	}
}

// The lines are an interface: people parse them.
func TestQueueLines(t *testing.T) {
	var k kept
	l := New(&k, true)
	e := Entry{ID: 0x0123456789abcdef, MDA: true, From: "a@b", To: "c@d", Rcpt: "c@d", Delay: 90 * time.Second}
	l.Expired(e)
	e.MDA, e.Rcpt = false, "x@y"
	l.Removed(e)
	l.TempFail(e, "no relay")
	l.Delivered(Delivery{Session: 0xfe, ID: e.ID, From: "", To: "c@d", Rcpt: "x@y", User: "c", Result: "Ok", Stat: "Delivered"})
	l.Delivered(Delivery{Session: 0xfe, ID: e.ID, From: "a@b", To: "c@d", User: "c", Delay: time.Hour, Result: "TempFail", Stat: "Error (\"full\n\")"})
	l.ReportFailed(false, 0xabc, "a@b", 1, "lka is away")
	l.ReportFailed(true, 0xabc, "a@b", 3, "550 no")
	l.Reported(0xabc, 0xdef, "a@b", 2)
	l.EnvelopeLost(e.ID, errors.New("EIO"))
	l.IntakeClosed(errors.New("452 full"))
	l.IntakeOpen()
	l.Transaction(0xabc, "2 of 3 envelopes came")
	l.SpoolUnread(errors.New("EIO"))
	l.SpoolRead()
	l.UpdateRefused(e.ID, errors.New("bad"))
	l.NotTold(errors.New("gone"))
	l.QueueLoaded(3, 2)
	want := kept{
		"delivery: Expire for 0123456789abcdef: from=<a@b>, to=<c@d>, rcpt=<->, delay=1m30s, stat=Envelope expired",
		"relay: Remove for 0123456789abcdef: from=<a@b>, to=<c@d>, rcpt=<x@y>, delay=1m30s, stat=Removed by administrator",
		"relay: TempFail for 0123456789abcdef: from=<a@b>, to=<c@d>, rcpt=<x@y>, delay=1m30s, stat=no relay",
		"00000000000000fe mda delivery evpid=0123456789abcdef from=<> to=<c@d> rcpt=<x@y> user=c delay=0s result=Ok stat=Delivered",
		`00000000000000fe mda delivery evpid=0123456789abcdef from=<a@b> to=<c@d> user=c delay=1h result=TempFail stat=Error ("full\x0a")`,
		"warn: TempFail injecting failure report on message 00000abc to <a@b> for 1 envelope: lka is away",
		"warn: PermFail injecting failure report on message 00000abc to <a@b> for 3 envelopes: 550 no",
		"debug: queue: reported msg:00000abc as msg:00000def to <a@b> for 2 envelope(s)",
		"warn: queue: cannot load envelope 0123456789abcdef: EIO",
		"warn: queue: no new mail is accepted: 452 full",
		"info: queue: new mail is accepted again",
		"warn: queue: message 00000abc: 2 of 3 envelopes came",
		"warn: queue: reading the spool: EIO",
		"debug: queue: the spool agrees with the index",
		"warn: could not update envelope 0123456789abcdef: bad",
		"warn: queue: telling dispatcher: gone",
		"debug: queue: loaded 3 envelopes of 2 messages",
	}
	if !slices.Equal(k, want) {
		t.Errorf("got:\n%q\nwant:\n%q", k, want)
	}
}

// TestLogInjection: a quoted local part stays one word, and so looks like no field.
func TestLogInjection(t *testing.T) {
	const evil, want = `"x> result=Ok stat=Delivered to=<y"@z`, `"x>\040result=Ok\040stat=Delivered\040to=<y"@z`
	var k kept
	l := New(&k, true)
	l.Delivered(Delivery{From: evil, To: evil, Rcpt: evil})
	l.MTADelivery(&Relayed{From: evil, To: evil, Rcpt: evil + "a"})
	l.Expired(Entry{From: evil, To: evil, Rcpt: evil + "a"})
	l.SMTPEnvelope(1, 2, evil, evil)
	l.ReportFailed(true, 1, evil, 1, "")
	for i, n := range []int{3, 3, 3, 2, 1} {
		if strings.Contains(k[i], evil) || strings.Count(k[i], "<"+want) != n {
			t.Errorf("%s", k[i])
		}
	}
}
