package msg

import (
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestStateMessages(t *testing.T) {
	values := []KeptValue{{Key: "a", Data: []byte("value")}, {Key: "b", Remove: true}}
	for _, tc := range []struct{ m, got Parser }{
		{&Keep{Kind: "greylist", Values: values}, new(Keep)},
		{&Kept{Kind: "greylist", After: "a"}, new(Kept)},
		{&KeptReply{Values: values}, new(KeptReply)},
	} {
		b := tc.m.Append(nil)
		if err := tc.got.Parse(b); err != nil {
			t.Errorf("%T: %v", tc.m, err)
		}
		if d := cmp.Diff(tc.m, tc.got); d != "" {
			t.Errorf("%T: %s", tc.m, d)
		}
		for i := range b {
			if tc.got.Parse(b[:i]) == nil {
				t.Errorf("%T: %d of %d bytes were taken", tc.m, i, len(b))
			}
		}
	}
}
