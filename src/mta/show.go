package mta

import (
	"cmp"
	"maps"
	"slices"
	"time"

	"opensmtpd/src/ctl"
)

// Routes returns what "smtpctl show routes" shows, by their numbers from after
// on.
func (m *MTA) Routes(after uint64) []ctl.RouteRow {
	m.mu.Lock()
	defer m.mu.Unlock()
	now := m.Clock.Mono()
	var rows []ctl.RouteRow
	for _, rt := range m.routes {
		if rt.id <= after {
			continue
		}
		row := ctl.RouteRow{
			ID: rt.id, Source: addrText(rt.src.addr), Host: rt.dst.text(), New: rt.fresh, Disabled: rt.disabled,
			Conns: rt.conns, Window: rt.window, Penalty: rt.penalty,
		}
		if rt.disabled {
			row.Timeout = seconds(rt.until - now)
		}
		rows = append(rows, row)
	}
	slices.SortFunc(rows, func(a, b ctl.RouteRow) int { return cmp.Compare(a.ID, b.ID) })
	return rows
}

// ResumeRoute takes a disabled route into use again, or, for 0, all; it returns
// how many.
func (m *MTA) ResumeRoute(id uint64) int {
	m.mu.Lock()
	defer m.unlock()
	n := 0
	for _, rt := range slices.Collect(maps.Values(m.routes)) {
		if rt.disabled && (id == 0 || rt.id == id) {
			rt.enable(" per admin request")
			n++
		}
	}
	return n
}

// Hosts returns what "smtpctl show hosts" shows, by address.
func (m *MTA) Hosts() []ctl.HostRow {
	m.mu.Lock()
	defer m.mu.Unlock()
	rows := make([]ctl.HostRow, 0, len(m.hosts))
	for _, h := range m.hosts {
		rows = append(rows, ctl.HostRow{
			Address: addrText(h.at.Addr()), Name: h.name, Refs: h.refs, Conns: h.conns, LastConn: h.ago(m.Clock.Mono()),
		})
	}
	slices.SortFunc(rows, func(a, b ctl.HostRow) int { return cmp.Compare(a.Address, b.Address) })
	return rows
}

// Relays returns what "smtpctl show relays" shows: each with its connectors
// behind it.
func (m *MTA) Relays() []ctl.RelayRow {
	m.mu.Lock()
	defer m.mu.Unlock()
	now := m.Clock.Mono()
	list := slices.SortedFunc(maps.Values(m.relays), func(a, b *relay) int { return cmp.Compare(a.id, b.id) })
	var rows []ctl.RelayRow
	for _, r := range list {
		row := ctl.RelayRow{Relay: r.text(), Tasks: len(r.line), Conns: r.conns, LastConn: r.ago(now), Refs: r.conns + len(r.line)}
		if r.alarm > now {
			row.Timeout, row.Wait = seconds(r.alarm-now), "connector"
		}
		if r.state == relayAsking {
			row.Wait = "MX"
		}
		rows = append(rows, row)
		for _, c := range r.connectors {
			row := ctl.RelayRow{
				Relay: r.text(), Connector: addrText(c.source.addr), Conns: c.conns, LastConn: c.ago(now), Refs: c.conns + 1,
			}
			if c.broken {
				row.Wait = "ERROR_SOURCE"
			}
			rows = append(rows, row)
		}
	}
	return rows
}

// Hoststats returns what "smtpctl show hoststats" shows, by domain.
func (m *MTA) Hoststats() []ctl.HoststatRow {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.stats.sweep(m.Clock.Mono())
	rows := make([]ctl.HoststatRow, 0, len(m.stats.m))
	for domain, s := range m.stats.m {
		rows = append(rows, ctl.HoststatRow{Domain: domain, When: s.when.Unix(), Status: s.text})
	}
	slices.SortFunc(rows, func(a, b ctl.HoststatRow) int { return cmp.Compare(a.Domain, b.Domain) })
	return rows
}

// ago is how many seconds ago the last connection began, -1 without one.
func (c *counter) ago(now time.Duration) int64 {
	if !c.begun {
		return -1
	}
	return int64((now - c.last) / time.Second)
}

// seconds rounds up: what is still to come is not 0.
func seconds(d time.Duration) int64 { return int64((d + time.Second - 1) / time.Second) }
