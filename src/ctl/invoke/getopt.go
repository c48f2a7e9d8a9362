package invoke

import (
	"fmt"
	"strings"
)

// Option is one option of a command line.
type Option struct {
	Letter byte
	Arg    string
}

// Getopt reads options as getopt(3) does: letters may be joined, an argument may
// follow its letter at once or in the next word, "--" or the first word that is
// no option ends them. In spec a letter followed by ':' takes an argument, by
// "::" one that can only follow at once. The rest of the words is returned too.
func Getopt(args []string, spec string) ([]Option, []string, error) {
	var opts []Option
	for len(args) > 0 {
		word := args[0]
		if len(word) < 2 || word[0] != '-' {
			break
		}
		args = args[1:]
		if word == "--" {
			break
		}
		var err error
		opts, args, err = cluster(opts, word[1:], args, spec)
		if err != nil {
			return nil, nil, err
		}
	}
	return opts, args, nil
}

// cluster reads the letters of one word.
func cluster(opts []Option, word string, rest []string, spec string) ([]Option, []string, error) {
	for word != "" {
		c := word[0]
		word = word[1:]
		at := strings.IndexByte(spec, c)
		if c == ':' || at < 0 {
			return nil, nil, fmt.Errorf("unknown option -- %c", c)
		}
		follows := spec[at+1:]
		o := Option{Letter: c}
		switch {
		case strings.HasPrefix(follows, "::"):
			o.Arg, word = word, ""
		case strings.HasPrefix(follows, ":"):
			if word == "" {
				if len(rest) == 0 {
					return nil, nil, fmt.Errorf("option requires an argument -- %c", c)
				}
				word, rest = rest[0], rest[1:]
			}
			o.Arg, word = word, ""
		}
		opts = append(opts, o)
	}
	return opts, rest, nil
}
