package load

import (
	"cmp"
	"context"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"opensmtpd/src/conf"
	"opensmtpd/src/conf/diag"
)

// Listener is one socket to accept connections on. A `listen on` statement makes
// one for each address of what it names.
type Listener struct {
	// Identity names the descriptor; it is the same as long as address and
	// port are, whatever the options.
	Identity string
	Socket   bool           // the local socket
	Addr     netip.AddrPort // of all others
	Local    bool           // loopback, or the socket
	Listen   *conf.Listen
}

// SocketIdentity is the identity of the local socket.
const SocketIdentity = "socket"

// resolver asks the machine at most once for its interfaces.
type resolver struct {
	ctx    context.Context
	m      Machine
	diags  *diag.List
	ifs    []Interface
	asked  bool
	ifsErr error
}

func (r *resolver) interfaces() []Interface {
	if !r.asked {
		r.asked = true
		r.ifs, r.ifsErr = r.m.Interfaces()
	}
	return r.ifs
}

// localAddrs returns the addresses of all interfaces.
func (r *resolver) localAddrs() []netip.Addr {
	out := []netip.Addr{netip.AddrFrom4([4]byte{127, 0, 0, 1}), netip.IPv6Loopback()}
	for _, i := range r.interfaces() {
		for _, a := range i.Addrs {
			if !slices.Contains(out, a) {
				out = append(out, a)
			}
		}
	}
	slices.SortFunc(out, netip.Addr.Compare)
	return out
}

func (r *resolver) listeners(cfg *conf.Config) []Listener {
	var out []Listener
	taken := make(map[netip.AddrPort]*conf.Listen)
	for _, l := range cfg.Listens {
		switch {
		case l.Bad:
		case l.Socket:
			out = append(out, Listener{Identity: SocketIdentity, Socket: true, Local: true, Listen: l})
		default:
			addrs := r.resolve(l)
			r.clearAuth(l, addrs)
			for _, a := range addrs {
				first := taken[a]
				switch {
				case first == nil:
					taken[a] = l
					out = append(out, Listener{Identity: "tcp:" + a.String(), Addr: a, Local: a.Addr().IsLoopback(), Listen: l})
				case first != l && r.twice(a, first, l) == l:
					taken[a] = l
					i := slices.IndexFunc(out, func(o Listener) bool { return o.Addr == a && !o.Socket })
					out[i].Listen = l
				}
			}
		}
	}
	return out
}

// clearAuth refuses auth without TLS, but where all that is said stays within
// this machine.
func (r *resolver) clearAuth(l *conf.Listen, addrs []netip.AddrPort) {
	const tls = "tls, tls-require or smtps"
	outside := slices.ContainsFunc(addrs, func(a netip.AddrPort) bool { return !a.Addr().IsLoopback() })
	if l.Auth != conf.NoAuth && l.TLS == conf.NoTLS && outside {
		r.diags.Add(diag.Diag{Severity: diag.Error, Pos: l.Place("auth"),
			Message: "auth requires " + tls, Hint: "add " + tls + ", and pki NAME"})
	}
}

// twice returns which of two statements gets an address: the one that names it,
// when the other names an interface that has it. Else it is an error.
func (r *resolver) twice(a netip.AddrPort, first, second *conf.Listen) *conf.Listen {
	one, two := isAddr(first.On), isAddr(second.On)
	if one == two {
		r.diags.Add(diag.Diag{Severity: diag.Error, Pos: second.Place("on"),
			Message: fmt.Sprintf("%v is listened on twice", a),
			Hint:    fmt.Sprintf("line %d listens on it too", first.Pos.Line)})
		return first
	}
	exact, wide := first, second
	if two {
		exact, wide = second, first
	}
	r.diags.Warnf(wide.Place("on"), "%v goes to line %d, which names it", a, exact.Pos.Line)
	return exact
}

func isAddr(on string) bool {
	_, err := netip.ParseAddr(strings.Trim(on, "[]"))
	return err == nil
}

// resolve returns the addresses and ports of one statement. It looks for an
// interface first, then a group, an address, and a host name.
func (r *resolver) resolve(l *conf.Listen) []netip.AddrPort {
	port, ok := r.port(l)
	if !ok {
		return nil
	}
	addrs, found := r.addresses(l)
	if !found {
		return nil
	}
	var out []netip.AddrPort
	for _, a := range addrs {
		if l.Family == conf.Inet4 && !a.Is4() || l.Family == conf.Inet6 && a.Is4() {
			continue
		}
		if p := netip.AddrPortFrom(a, port); !slices.Contains(out, p) {
			out = append(out, p)
		}
	}
	if len(out) == 0 {
		family := map[conf.Family]string{conf.AnyFamily: "", conf.Inet4: "inet4 ", conf.Inet6: "inet6 "}[l.Family]
		r.diags.Errorf(l.Place("on"), "%s has no %saddress", l.On, family)
	}
	return out
}

func (r *resolver) addresses(l *conf.Listen) ([]netip.Addr, bool) {
	pos := l.Place("on")
	if addrs, ok := r.ofInterface(l.On); ok {
		return addrs, true
	}
	if l.On == "egress" {
		return r.egress(pos)
	}
	if addrs := r.ofGroup(l.On); len(addrs) > 0 {
		return addrs, true
	}
	if r.ifsErr != nil {
		r.diags.Errorf(pos, "interfaces: %v", r.ifsErr)
		return nil, false
	}
	if a, err := netip.ParseAddr(strings.Trim(l.On, "[]")); err == nil {
		return []netip.Addr{a.Unmap()}, true
	}
	addrs, err := r.m.LookupIP(r.ctx, l.On)
	if err != nil || len(addrs) == 0 {
		hint := r.known()
		if host, port, err := net.SplitHostPort(l.On); err == nil {
			hint = "the port is an option: " + host + ", port " + port
		} else if strings.HasSuffix(l.On, ";") {
			hint = "a statement ends with its line, without a semicolon"
		}
		r.diags.Add(diag.Diag{Severity: diag.Error, Pos: pos,
			Message: "invalid virtual ip or interface: " + l.On, Hint: hint})
		return nil, false
	}
	addrs = r.configured(addrs)
	slices.SortStableFunc(addrs, func(a, b netip.Addr) int { return cmp.Compare(a.BitLen(), b.BitLen()) })
	return addrs, true
}

// configured leaves out the addresses of a host name whose family no interface
// has, as getaddrinfo(3) does with AI_ADDRCONFIG: localhost is ::1 even on
// machines without IPv6.
func (r *resolver) configured(addrs []netip.Addr) []netip.Addr {
	var v4, v6 bool
	for _, i := range r.interfaces() {
		for _, a := range i.Addrs {
			v4, v6 = v4 || a.Is4(), v6 || a.Is6()
		}
	}
	var out []netip.Addr
	for _, a := range addrs {
		if a.Is4() && v4 || a.Is6() && v6 {
			out = append(out, a)
		}
	}
	if len(out) == 0 {
		return addrs
	}
	return out
}

// ofInterface returns the addresses of the interface named; lo0 is what BSD
// calls the loopback interface.
func (r *resolver) ofInterface(name string) ([]netip.Addr, bool) {
	for _, i := range r.interfaces() {
		if i.Name == name {
			return i.Addrs, true
		}
	}
	if name == "lo0" {
		for _, i := range r.interfaces() {
			if i.Name == "lo" && i.Loopback {
				return i.Addrs, true
			}
		}
	}
	return nil, false
}

// ofGroup returns the addresses of the interfaces in a group: all of them are in
// "all", and where DriverGroups holds, em0 and em1 are in "em".
func (r *resolver) ofGroup(name string) []netip.Addr {
	var addrs []netip.Addr
	for _, i := range r.interfaces() {
		driver := strings.TrimRight(i.Name, "0123456789")
		if name == "all" || r.m.DriverGroups && driver == name && driver != i.Name {
			addrs = append(addrs, i.Addrs...)
		}
	}
	return addrs
}

// egress returns the addresses of the interfaces that default routes point to.
func (r *resolver) egress(pos conf.Pos) ([]netip.Addr, bool) {
	names, err := r.m.Egress()
	if err != nil {
		r.diags.Errorf(pos, "egress: %v", err)
		return nil, false
	}
	var addrs []netip.Addr
	for _, name := range names {
		of, _ := r.ofInterface(name)
		addrs = append(addrs, of...)
	}
	if len(names) == 0 {
		r.diags.Errorf(pos, "egress: there is no default route")
		return nil, false
	}
	return addrs, true
}

// known lists the interfaces for a hint.
func (r *resolver) known() string {
	var names []string
	for _, i := range r.interfaces() {
		names = append(names, i.Name)
	}
	if len(names) == 0 {
		return ""
	}
	return "interfaces of this machine: " + strings.Join(names, ", ")
}

// services are the ports that must work on a machine without /etc/services.
// The map is never written.
var services = map[string]uint16{"smtp": 25, "smtps": 465, "ssmtp": 465, "submissions": 465, "submission": 587, "lmtp": 24}

// port returns the port of a statement.
func (r *resolver) port(l *conf.Listen) (uint16, bool) {
	switch {
	case l.Port == "" && l.TLS == conf.SMTPS:
		return 465, true
	case l.Port == "":
		return 25, true
	}
	if n, err := strconv.ParseUint(l.Port, 10, 16); err == nil && n > 0 {
		return uint16(n), true
	}
	if n, err := r.m.LookupPort(r.ctx, l.Port); err == nil && n > 0 && n <= 65535 {
		return uint16(n), true
	}
	if n, ok := services[l.Port]; ok {
		return n, true
	}
	r.diags.Errorf(l.Place("port"), "invalid port: %s", l.Port)
	return 0, false
}
