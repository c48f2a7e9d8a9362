package maildir

import "strings"

// spamScan looks through the header for the mark of a filter: a line that is
// "X-Spam: yes" or "X-Spam-Flag: yes", in any case.
type spamScan struct {
	found bool
	done  bool   // the header has ended
	line  []byte // the start of the line so far
}

// longestMark is one more than the longest line that matters, CR included.
const longestMark = len("x-spam-flag: yes\r") + 1

func (s *spamScan) write(p []byte) {
	for _, c := range p {
		if s.done {
			return
		}
		if c != '\n' {
			if len(s.line) < longestMark {
				s.line = append(s.line, c)
			}
			continue
		}
		switch strings.ToLower(strings.TrimSuffix(string(s.line), "\r")) {
		case "":
			s.done = true
		case "x-spam: yes", "x-spam-flag: yes":
			s.found, s.done = true, true
		}
		s.line = s.line[:0]
	}
}
