package proc

import (
	"slices"
	"testing"
)

func TestUnchanged(t *testing.T) {
	const smaps = `00400000-00a00000 r-xp 00000000 fd:00 123                        /usr/sbin/smtpd
Size:               6144 kB
Anonymous:             0 kB
VmFlags: rd ex mr mw me
00a00000-00b00000 r--p 00600000 fd:00 123                        /usr/sbin/smtpd
Anonymous:             0 kB
00b00000-00b08000 r--p 00700000 fd:00 123                        /usr/sbin/smtpd
Private_Dirty:        32 kB
Anonymous:            32 kB
00b08000-00c00000 rw-p 00708000 fd:00 123                        /usr/sbin/smtpd
Anonymous:             0 kB
c000000000-c000400000 rw-p 00000000 00:00 0
Anonymous:             0 kB
7f0000000000-7f0000020000 r-xp 00000000 fd:00 9                  /lib/libc.so.6
Anonymous:             0 kB
7f0000020000-7f0000021000 r-xp 00000000 00:00 0                  [vdso]
`
	want := []span{{0x400000, 0x600000}, {0xa00000, 0x100000}}
	if got := unchanged(smaps, "/usr/sbin/smtpd"); !slices.Equal(got, want) {
		t.Errorf("%x, want %x", got, want)
	}
	for _, bad := range []string{"", "x", "1-", "2-1", "2-2"} {
		if got := parseSpan(bad); got != (span{}) {
			t.Errorf("%q: %x", bad, got)
		}
	}
}
