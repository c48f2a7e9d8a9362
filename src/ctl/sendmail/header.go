package sendmail

import (
	"bytes"
	"strings"
)

// field is one header field, with the lines that continue it; lines end in LF.
type field struct {
	name string // as it was written
	text []byte // whole, name and all
}

func (f *field) is(name string) bool { return strings.EqualFold(f.name, name) }

// value returns what follows the colon.
func (f *field) value() string { return string(f.text[len(f.name)+1:]) }

// known lists the fields by which a message without a blank line is taken to
// have a header.
func known() []string {
	return []string{
		"From", "To", "Cc", "Bcc", "Subject", "Date", "Message-Id", "MIME-Version",
		"Content-Type", "Content-Disposition", "Content-Transfer-Encoding", "User-Agent",
	}
}

func isKnown(name string) bool {
	for _, k := range known() {
		if strings.EqualFold(k, name) {
			return true
		}
	}
	return false
}

// fieldName returns the name of the field that a line begins, "" when it begins
// none (RFC 5322 section 2.2: printable ASCII without the colon).
func fieldName(line []byte) string {
	i := bytes.IndexByte(line, ':')
	if i <= 0 {
		return ""
	}
	for _, c := range line[:i] {
		if c <= ' ' || c >= 0x7f {
			return ""
		}
	}
	return string(line[:i])
}

// header gathers the fields at the start of a message, line by line.
type header struct {
	fields []field
	lines  []byte // all that was taken, for the case that it is none
	ended  bool   // by a blank line
}

// maxHeader bounds what is kept of a header in memory; a message whose header is
// longer has none that we understand.
const maxHeader = 1 << 20

// take adds a line, with its LF, and tells whether the header goes on. A line
// that it returns false for was not taken, unless it is the blank one.
func (h *header) take(line []byte) bool {
	if len(line) == 1 {
		h.lines = append(h.lines, line...)
		h.ended = true
		return false
	}
	if len(h.lines)+len(line) > maxHeader {
		return false
	}
	if line[0] == ' ' || line[0] == '\t' {
		if len(h.fields) == 0 {
			return false
		}
		f := &h.fields[len(h.fields)-1]
		f.text = append(f.text, line...)
	} else if name := fieldName(line); name != "" {
		h.fields = append(h.fields, field{name, bytes.Clone(line)})
	} else if len(h.lines) > 0 || !bytes.HasPrefix(line, []byte("From ")) {
		return false
	} // the separator line of an mbox is dropped
	h.lines = append(h.lines, line...)
	return true
}

// valid tells whether what was taken is a header: it ends with a blank line, or
// has a field that everybody knows.
func (h *header) valid() bool {
	if len(h.fields) == 0 {
		return false
	}
	if h.ended {
		return true
	}
	for i := range h.fields {
		if isKnown(h.fields[i].name) {
			return true
		}
	}
	return false
}

// find returns the first field of that name, nil without one.
func (h *header) find(name string) *field {
	for i := range h.fields {
		if h.fields[i].is(name) {
			return &h.fields[i]
		}
	}
	return nil
}

// addresses returns those in every field of the names.
func (h *header) addresses(names ...string) ([]string, error) {
	var list []string
	for i := range h.fields {
		f := &h.fields[i]
		for _, name := range names {
			if !f.is(name) {
				continue
			}
			more, err := parseList(f.value())
			if err != nil {
				return nil, err
			}
			list = append(list, more...)
		}
	}
	return list, nil
}
