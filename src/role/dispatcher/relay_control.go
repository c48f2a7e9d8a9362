package dispatcher

import (
	"strconv"

	"opensmtpd/src/ctl"
	"opensmtpd/src/mailerr"
	"opensmtpd/src/privsep/msg"
)

// control serves what smtpctl asks about relaying; false when the verb is about
// something else.
func (r *relaying) control(m *msg.Control) (*msg.ControlRows, *mailerr.Error, bool) {
	from, _ := strconv.Atoi(m.Cursor)
	switch m.Verb {
	case msg.VerbShowRoutes:
		return reply(r.mta.Routes(0), from)
	case msg.VerbShowHosts:
		return reply(r.mta.Hosts(), from)
	case msg.VerbShowRelays:
		return reply(r.mta.Relays(), from)
	case msg.VerbShowHoststats:
		return reply(r.mta.Hoststats(), from)
	case msg.VerbResumeRoute:
		var id uint64
		if len(m.Args) == 1 && m.Args[0] != "all" {
			var err error
			if id, err = strconv.ParseUint(m.Args[0], 10, 64); err != nil || id == 0 {
				return nil, mailerr.Permanent(501, 5, 4, "not the number of a route: "+m.Args[0], err), true
			}
		}
		return &msg.ControlRows{Count: uint32(r.mta.ResumeRoute(id))}, nil, true
	}
	return nil, nil, false
}

// reply makes a page of rows, beginning with number from. What changes between
// two pages may be missed, or shown twice.
func reply[T any](rows []T, from int) (*msg.ControlRows, *mailerr.Error, bool) {
	var page ctl.Page
	for i := max(from, 0); i < len(rows); i++ {
		room, err := page.Add(rows[i])
		if err != nil {
			return nil, mailerr.Local(err), true
		}
		if !room && i+1 < len(rows) {
			return page.More(strconv.Itoa(i + 1)), nil, true
		}
	}
	return page.Done(), nil, true
}
