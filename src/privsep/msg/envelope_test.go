package msg

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"net/netip"

	"opensmtpd/src/mail/addr"
	"opensmtpd/src/queue/envelope"
)

func TestAddEnvelope(t *testing.T) {
	in := AddEnvelope{envelope.Envelope{
		ID: 0x0123456789abcdef, Action: "local", Sender: addr.Cut("a@b"), Dest: addr.Cut("c@d"),
		Created: time.Unix(1_700_000_000, 0), TTL: time.Hour, MDAUser: "c",
	}}
	var out AddEnvelope
	if err := out.Parse(in.Append(nil)); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(in, out, cmpopts.EquateComparable(netip.AddrPort{})); diff != "" {
		t.Error(diff)
	}
	in.Envelope.ErrorLine = "x\r\nsender: y"
	if err := out.Parse(in.Append(nil)); err == nil {
		t.Error("a line end came through")
	}
	if err := out.Parse(nil); err == nil {
		t.Error("nothing is an envelope")
	}
}
