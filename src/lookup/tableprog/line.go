package tableprog

import (
	"errors"
	"strings"
)

// maxLine bounds a line of smtpd's.
const maxLine = 1 << 20

type op string

const (
	opUpdate op = "update"
	opFetch  op = "fetch"
	opCheck  op = "check"
	opLookup op = "lookup"
)

// request is one line of smtpd's behind the handshake.
type request struct {
	table   string
	op      op
	service Service // not of an update
	id      string
	key     string // of check and lookup
}

var (
	errLine    = errors.New("not a line of the protocol")
	errVersion = errors.New("another version of the protocol")
)

// parseConfig reads a line of the handshake.
func parseConfig(line string) (key, value string, err error) {
	rest, ok := strings.CutPrefix(line, "config|")
	if !ok {
		return "", "", errLine
	}
	key, value, _ = strings.Cut(rest, "|")
	return key, value, nil
}

// parseRequest reads "table|0.1|time|name|op|…".
func parseRequest(line string) (request, error) {
	f := strings.SplitN(line, "|", 6)
	switch {
	case len(f) < 6 || f[0] != "table":
		return request{}, errLine
	case f[1] != "0.1":
		return request{}, errVersion
	}
	q := request{table: f[3], op: op(f[4])}
	rest, fields := f[5], 3
	switch q.op {
	case opUpdate:
		fields = 1
	case opFetch:
		fields = 2
	case opCheck, opLookup:
	default:
		return request{}, errLine
	}
	// A key may hold what separates the fields, for it is the last.
	f = strings.SplitN(rest, "|", fields)
	if len(f) != fields || f[fields-1] == "" && fields < 3 {
		return request{}, errLine
	}
	switch fields {
	case 1:
		q.id = f[0]
	case 2:
		q.service, q.id = Service(f[0]), f[1]
	case 3:
		q.service, q.id, q.key = Service(f[0]), f[1], f[2]
	}
	if fields < 3 && strings.Contains(q.id, "|") || q.id == "" {
		return request{}, errLine
	}
	return q, nil
}
