package program

import (
	"errors"
	"fmt"
	"strconv"
	"strings"

	"opensmtpd/src/lookup/table"
)

// The lines of smtpd-tables(7), protocol 0.1. What smtpd says:
//
//	config|key|value … config|ready
//	table|0.1|time|name|update|id
//	table|0.1|time|name|fetch|service|id
//	table|0.1|time|name|check|service|id|key
//	table|0.1|time|name|lookup|service|id|key
//
// and the program:
//
//	register|service … register|ready
//	update-result|id|ok
//	OP-result|id|found[|value]
//	OP-result|id|not-found
//	OP-result|id|error[|text]
//
// where a fetch may be answered by lookup-result too, as the examples of
// OpenSMTPD's manual have it.

const (
	protocol = "0.1"
	// announced is the release of OpenSMTPD whose protocol this is.
	announced = "7.8.0"
)

// op is what a program is asked to do.
type op uint8

const (
	opUpdate op = iota + 1
	opFetch
	opCheck
	opLookup
)

var opNames = [...]string{opUpdate: "update", opFetch: "fetch", opCheck: "check", opLookup: "lookup"}

func (o op) String() string { return opNames[o] }

// takes tells whether o may be answered by the result of another operation.
func (o op) takes(result op) bool { return o == result || o == opFetch && result == opLookup }

// status is how a request ended.
type status uint8

const (
	statusOK status = iota + 1
	statusFound
	statusMissing
	statusError
)

// reply is a line that answers a request.
type reply struct {
	op     op
	id     uint32
	status status
	text   string // the value, or what the program has to say about an error
}

var errLine = errors.New("not a line of the protocol")

// parseReply reads a line without its end.
func parseReply(line string) (reply, error) {
	word, rest, ok := strings.Cut(line, "|")
	id, rest, ok2 := strings.Cut(rest, "|")
	if !ok || !ok2 {
		return reply{}, errLine
	}
	r := reply{}
	for o := opUpdate; o <= opLookup; o++ {
		if name, found := strings.CutSuffix(word, "-result"); found && name == opNames[o] {
			r.op = o
		}
	}
	n, err := strconv.ParseUint(id, 16, 32)
	if r.op == 0 || err != nil || len(id) != idLength {
		return reply{}, errLine
	}
	r.id = uint32(n)
	word, r.text, _ = strings.Cut(rest, "|")
	switch {
	case word == "ok" && r.op == opUpdate:
		r.status = statusOK
	case word == "found" && r.op != opUpdate:
		r.status = statusFound
	case word == "not-found" && r.op != opUpdate:
		r.status = statusMissing
	case word == "error":
		r.status = statusError
	default:
		return reply{}, errLine
	}
	return r, nil
}

// parseRegister reads a line of the handshake. A service that is not known here
// is the zero one.
func parseRegister(line string) (s table.Service, ready bool, err error) {
	name, ok := strings.CutPrefix(line, "register|")
	switch {
	case !ok || name == "":
		return 0, false, errLine
	case name == "ready":
		return 0, true, nil
	}
	for s := table.Alias; s <= table.Auth; s++ {
		if s.String() == name {
			return s, false, nil
		}
	}
	return 0, false, nil
}

const idLength = 8

// appendHello writes our part of the handshake.
func appendHello(b []byte, name string) []byte {
	return fmt.Appendf(b, "config|smtpd-version|%s\nconfig|protocol|%s\nconfig|tablename|%s\nconfig|ready\n", announced, protocol, name)
}

// request is what a program is asked.
type request struct {
	op      op
	service table.Service // not of an update
	key     string        // of check and lookup
}

// append writes a request as a line; sec and usec are the time.
func (r *request) append(b []byte, name string, id uint32, sec, usec int64) []byte {
	b = append(append(b, "table|"...), protocol...)
	b = strconv.AppendInt(append(b, '|'), sec, 10)
	b = fmt.Appendf(b, ".%06d|%s|%s|", usec, name, r.op)
	if r.op != opUpdate {
		b = append(append(b, r.service.String()...), '|')
	}
	b = fmt.Appendf(b, "%0*x", idLength, id)
	if r.op == opCheck || r.op == opLookup {
		b = append(append(b, '|'), r.key...)
	}
	return append(b, '\n')
}

// clean tells whether s may be part of a line. The line ends at CR, LF or NUL
// for one program or another.
func clean(s string) bool { return !strings.ContainsAny(s, "\r\n\x00") }
