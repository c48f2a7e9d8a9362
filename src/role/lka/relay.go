package lka

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"

	"opensmtpd/src/lookup/dns"
	"opensmtpd/src/lookup/table"
	"opensmtpd/src/mailerr"
	"opensmtpd/src/privsep/msg"
	"opensmtpd/src/privsep/proc"
)

// relayHandlers are the rows of what dispatcher asks of tables and the DNS.
func (r *Role) relayHandlers() []proc.Handler {
	return []proc.Handler{
		{From: proc.Dispatcher, Type: msg.TypeMX, Concurrent: true, Do: r.mx},
		{From: proc.Dispatcher, Type: msg.TypeRelayLookup, Concurrent: true, Do: r.relayLookup},
		{From: proc.Dispatcher, Type: msg.TypeQuery, Concurrent: true, Do: r.query},
		{From: proc.Dispatcher, Type: msg.TypeAuthenticate, Concurrent: true, Do: r.authenticate},
		{From: proc.Dispatcher, Type: msg.TypeScram, Concurrent: true, Do: r.scram},
	}
}

// mx answers which servers take the mail of a domain.
func (r *Role) mx(ctx context.Context, q proc.Request) {
	var m msg.MX
	if err := q.Parse(&m); err != nil {
		q.Fail(mailerr.Local(err))
		return
	}
	list, ttl, err := r.exchanger.Find(ctx, m.Domain, m.Host)
	if err != nil {
		q.Reply(&msg.MXReply{Err: mxError(err, m.Host), TTL: ttl})
		return
	}
	local := r.at(0).addrs
	reply := msg.MXReply{TTL: ttl, Hosts: make([]msg.MXHost, len(list))}
	for i, x := range list {
		h := msg.MXHost{Name: x.Name, Pref: x.Pref, Addrs: x.Addrs, Local: make([]bool, len(x.Addrs))}
		for j, a := range x.Addrs {
			h.Local[j] = a.IsLoopback() || a.IsUnspecified() || slices.Contains(local, a)
		}
		reply.Hosts[i] = h
	}
	q.Reply(&reply)
}

// mxError is why there is no server, in the words of the log.
func mxError(err error, host bool) *mailerr.Error {
	switch {
	case errors.Is(err, dns.ErrNoDomain):
		return mailerr.Permanent(550, 1, 2, "Domain does not exist", nil)
	case errors.Is(err, dns.ErrNullMX):
		return mailerr.Permanent(556, 1, 10, "Domain does not accept mail", nil) // RFC 7505 section 4.1
	case errors.Is(err, dns.ErrBadName):
		return mailerr.Permanent(550, 1, 2, "Invalid domain name", nil)
	case errors.Is(err, dns.ErrNone) && host:
		return mailerr.Temporary(451, 4, 4, "Host not found", nil)
	case errors.Is(err, dns.ErrNone):
		return mailerr.Temporary(451, 4, 4, "No MX found for domain", nil)
	}
	return mailerr.Temporary(451, 4, 3, "Temporary failure in MX lookup", err)
}

// relayServices are the table services behind those of relaying. Never written.
var relayServices = map[msg.RelayService]table.Service{
	msg.RelaySource: table.Source, msg.RelayHelo: table.AddrName,
	msg.RelaySecret: table.Credentials, msg.RelayHost: table.RelayHost,
}

// relayLookup answers from the tables of an action.
func (r *Role) relayLookup(ctx context.Context, q proc.Request) {
	var m msg.RelayLookup
	if err := q.Parse(&m); err != nil {
		q.Fail(mailerr.Local(err))
		return
	}
	reply, err := r.relayEntry(ctx, &m)
	if err != nil {
		q.Reply(&msg.RelayLookupReply{Err: mailerr.Local(fmt.Errorf("table %s: %w", m.Table, err))})
		return
	}
	q.Reply(reply)
}

func (r *Role) relayEntry(ctx context.Context, m *msg.RelayLookup) (*msg.RelayLookupReply, error) {
	g := r.at(m.Gen)
	t := g.tables[m.Table]
	switch {
	case t == nil:
		return nil, errNoTable
	case g.secret[m.Table]:
		return nil, errSecret
	}
	reply := new(msg.RelayLookupReply)
	service := relayServices[m.Service]
	key := m.Key
	if m.Service == msg.RelayHelo {
		a, err := netip.ParseAddr(key)
		if err != nil {
			return nil, err
		}
		key = table.AddrKey(a)
	}
	var err error
	if m.Service == msg.RelaySource || m.Service == msg.RelayHost && key == "" {
		reply.Value, reply.Found, err = t.Fetch(ctx, service)
	} else {
		reply.Value, reply.Found, err = t.Lookup(ctx, service, key)
	}
	if err != nil || !reply.Found || m.Service != msg.RelaySecret {
		return reply, err
	}
	s, err := table.ParseSecret(key, reply.Value)
	if err != nil {
		return nil, err
	}
	reply.Value, reply.Password = s.User, s.Password
	return reply, nil
}
