package table

import (
	"regexp"

	"opensmtpd/src/conf"
)

// regexList is the compiled entries of a set.
type regexList struct {
	list []compiled
	bad  []Problem
}

type compiled struct {
	entry int
	re    *regexp.Regexp
}

func (s *set) regexList() *regexList {
	s.regexOnce.Do(func() {
		s.regex = &regexList{}
		for i := range s.ents {
			re, err := conf.CompileRegex(s.key(i))
			if err != nil {
				s.regex.bad = append(s.regex.bad, Problem{int(s.ents[i].line), s.key(i), err})
				continue
			}
			s.regex.list = append(s.regex.list, compiled{i, re})
		}
	})
	return s.regex
}

func (s *set) visitRegex(key string, yield func(int) bool) {
	for _, c := range s.regexList().list {
		if c.re.MatchString(key) && !yield(c.entry) {
			return
		}
	}
}
