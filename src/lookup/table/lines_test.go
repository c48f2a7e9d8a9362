package table

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"opensmtpd/src/conf"
)

func TestLines(t *testing.T) {
	for _, tc := range []struct {
		kind     conf.Kind
		in, want string
	}{
		{conf.Map, "a 1\nA: 2\n# no\nb \\\n  3\n", "1 a=1; 2 A=2; 4 b=3"},
		{conf.List, "a\n# @list\nb:c # no\n", "1 a=; 3 b:c="},
		{conf.Map, "a 1\nb\n", "1 a=1; line 2"},
		{conf.Map, "", ""},
	} {
		var got []string
		err := Lines([]byte(tc.in), tc.kind, func(line int, key, value []byte) error {
			got = append(got, fmt.Sprintf("%d %s=%s", line, key, value))
			return nil
		})
		var bad *LineError
		if errors.As(err, &bad) {
			got = append(got, fmt.Sprintf("line %d", bad.Line))
		}
		if s := strings.Join(got, "; "); s != tc.want {
			t.Errorf("%q: got %q, want %q", tc.in, s, tc.want)
		}
	}
	stop := errors.New("stop")
	if err := Lines([]byte("a 1\n"), conf.Map, func(int, []byte, []byte) error { return stop }); !errors.Is(err, stop) {
		t.Errorf("got %v", err)
	}
}
