package invoke

import (
	"fmt"
	"testing"
)

func TestGetopt(t *testing.T) {
	for _, tc := range []struct{ args, want string }{
		{"", "[] []"},
		{"a b", "[] [a b]"},
		{"-i a -i", "[{i }] [a -i]"},
		{"-ti -fme x", "[{t } {i } {f me}] [x]"},
		{"-tif me x", "[{t } {i } {f me}] [x]"},
		{"-f -i x", "[{f -i}] [x]"},
		{"-e x", "[{e }] [x]"},
		{"-em -i x", "[{e m} {i }] [x]"},
		{"-i -- -t", "[{i }] [-t]"},
		{"-", "[] [-]"},
		{"-f", "option requires an argument -- f"},
		{"-iz", "unknown option -- z"},
		{"-:", "unknown option -- :"},
	} {
		var args []string
		if tc.args != "" {
			args = split(tc.args)
		}
		opts, rest, err := Getopt(args, "if:te::")
		got := fmt.Sprint(printable(opts), rest)
		if err != nil {
			got = err.Error()
		}
		if got != tc.want {
			t.Errorf("%q: got %s, want %s", tc.args, got, tc.want)
		}
	}
}

func printable(opts []Option) []string {
	var s []string
	for _, o := range opts {
		s = append(s, fmt.Sprintf("{%c %s}", o.Letter, o.Arg))
	}
	return s
}

func split(s string) []string {
	var words []string
	start := 0
	for i := 0; i <= len(s); i++ {
		if i == len(s) || s[i] == ' ' {
			words = append(words, s[start:i])
			start = i + 1
		}
	}
	return words
}
