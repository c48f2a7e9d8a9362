package filter

import (
	"bytes"
	"errors"
	"fmt"
	"strings"

	"opensmtpd/src/mail"
	"opensmtpd/src/smtp/server"
)

// said is a line of a program, read.
type said struct {
	kind    saidKind
	session mail.SessionID
	token   uint64
	verb    string // of a result: its decision
	text    []byte // the rest
}

type saidKind uint8

const (
	saidRegister saidKind = iota
	saidResult
	saidLine
	saidReport
)

var (
	errKind     = errors.New("a line of no known kind")
	errFields   = errors.New("a field is missing")
	errNumber   = errors.New("a session or token that is no number")
	errDecision = errors.New("an unknown decision")
	errRegister = errors.New("an unknown event or phase to register")
)

// parse reads a line of a program, without its end. The text refers to line.
func parse(line []byte) (said, error) {
	kind, rest, ok := bytes.Cut(line, bar)
	if !ok {
		return said{}, errKind
	}
	switch string(kind) {
	case "filter-dataline":
		m := said{kind: saidLine}
		return m, m.numbers(rest)
	case "filter-result":
		m := said{kind: saidResult}
		if err := m.numbers(rest); err != nil {
			return m, err
		}
		return m, m.decision()
	case "register":
		return said{kind: saidRegister, text: rest}, nil
	case "report":
		m := said{kind: saidReport}
		return m, m.report(rest)
	}
	return said{}, errKind
}

var bar = []byte{'|'}

// numbers reads session and token; what is behind them is the text.
func (m *said) numbers(rest []byte) error {
	session, rest, ok1 := bytes.Cut(rest, bar)
	token, rest, ok2 := bytes.Cut(rest, bar)
	if !ok1 || !ok2 {
		return errFields
	}
	id, ok1 := hex(session)
	m.token, ok2 = hex(token)
	if !ok1 || !ok2 {
		return errNumber
	}
	m.session, m.text = mail.SessionID(id), rest
	return nil
}

func hex(b []byte) (n uint64, ok bool) {
	if len(b) == 0 || len(b) > 16 {
		return 0, false
	}
	for _, c := range b {
		switch {
		case c >= '0' && c <= '9':
			c -= '0'
		case c >= 'a' && c <= 'f':
			c -= 'a' - 10
		case c >= 'A' && c <= 'F':
			c -= 'A' - 10
		default:
			return 0, false
		}
		n = n<<4 | uint64(c)
	}
	return n, true
}

// decision reads the verb of a result and its parameter, which some must have.
func (m *said) decision() error {
	verb, param, has := bytes.Cut(m.text, bar)
	switch string(verb) {
	case "proceed":
		m.verb = "proceed"
	case "junk":
		m.verb = "junk"
	case "rewrite", "reject", "disconnect", "report":
		if m.verb = string(verb); !has {
			return errFields
		}
	default:
		return errDecision
	}
	m.text = param
	return nil
}

// report reads time, subsystem and session of a report; the rest is its text.
func (m *said) report(rest []byte) error {
	_, rest, ok1 := bytes.Cut(rest, bar)
	_, rest, ok2 := bytes.Cut(rest, bar)
	session, text, ok3 := bytes.Cut(rest, bar)
	if !ok1 || !ok2 || !ok3 {
		return errFields
	}
	id, ok := hex(session)
	if !ok {
		return errNumber
	}
	m.session, m.text = mail.SessionID(id), text
	return nil
}

// hooks is what a program wants to be told and asked.
type hooks struct {
	reports [2]uint32 // by direction, bits by event
	asks    uint32    // bits by phase
	lines   bool
}

func (h *hooks) hears(d direction, k server.EventKind) bool { return h.reports[d]&(1<<k) != 0 }
func (h *hooks) wants(p server.Phase) bool                  { return h.asks&(1<<p) != 0 }

// register reads what is behind "register|". It is true at the end of all.
func (h *hooks) register(text string) (ready bool, err error) {
	if text == "ready" {
		return true, nil
	}
	stream, rest, _ := strings.Cut(text, "|")
	subsystem, what, _ := strings.Cut(rest, "|")
	d := smtpIn
	switch {
	case subsystem == "smtp-out" && stream == "report":
		d = smtpOut
	case subsystem != "smtp-in":
		return false, fmt.Errorf("%w: %q", errRegister, text)
	}
	switch {
	case stream == "report" && what == "*":
		h.reports[d] = ^uint32(0)
		return false, nil
	case stream == "report":
		for k, name := range eventNames {
			if name != "" && name == what {
				h.reports[d] |= 1 << k
				return false, nil
			}
		}
	case stream == "filter" && what == "data-line":
		h.lines = true
		return false, nil
	case stream == "filter":
		if p, ok := phases[what]; ok {
			h.asks |= 1 << p
			return false, nil
		}
	}
	return false, fmt.Errorf("%w: %q", errRegister, text)
}
