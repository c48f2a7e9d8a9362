package spf

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strings"
)

// Resolver asks the DNS; *net.Resolver is one. Names come with a final dot.
type Resolver interface {
	LookupTXT(ctx context.Context, name string) ([]string, error)
	LookupMX(ctx context.Context, name string) ([]*net.MX, error)
	LookupNetIP(ctx context.Context, network, host string) ([]netip.Addr, error)
}

// maxRecords bounds how many records are read for one domain: RFC 7208 (section
// 4.6.4) allows what leads to 10, and records are there that go beyond.
const maxRecords = 100

// Walk lists the networks from which domains send by their records, each once,
// and what those that they include allow. What is forbidden is no network; what
// depends on the message (macros, exists, ptr) cannot be listed.
type Walk struct {
	Resolver Resolver
	// Found takes a network, Trouble what could not be found out.
	Found   func(netip.Prefix) error
	Trouble func(domain string, err error)

	nets    map[netip.Prefix]bool
	records map[string]bool
}

var (
	errNone  = errors.New("no SPF record")
	errMacro = errors.New("depends on the message")
	errMany  = errors.New("more records than anybody reads")
)

// Domain walks through the record of a domain. The error is that of Found.
func (w *Walk) Domain(ctx context.Context, domain string) error {
	if w.nets == nil {
		w.nets, w.records = make(map[netip.Prefix]bool), make(map[string]bool)
	}
	left := maxRecords
	return w.record(ctx, domain, &left)
}

// record walks through a record and those to which it leads, if that was not
// done before.
func (w *Walk) record(ctx context.Context, domain string, left *int) error {
	domain = strings.ToLower(strings.TrimSuffix(domain, "."))
	if w.records[domain] {
		return nil
	}
	if *left == 0 {
		w.Trouble(domain, errMany)
		return nil
	}
	*left--
	w.records[domain] = true
	texts, err := w.Resolver.LookupTXT(ctx, domain+".")
	if err != nil && !missing(err) {
		w.trouble(domain, err)
		return nil
	}
	for _, txt := range texts {
		if terms, ok := parse(txt); ok {
			return w.terms(ctx, domain, terms, left)
		}
	}
	w.Trouble(domain, errNone)
	return nil
}

func (w *Walk) terms(ctx context.Context, domain string, terms []term, left *int) error {
	for i := range terms {
		if err := w.term(ctx, domain, &terms[i], left); err != nil {
			return err
		}
	}
	return nil
}

func (w *Walk) term(ctx context.Context, domain string, t *term, left *int) error {
	if t.deny {
		return nil
	}
	target := t.value
	if target == "" {
		target = domain
	}
	switch t.name {
	case "ip4", "ip6":
		if p, ok := t.network(); ok {
			return w.found(p)
		}
		w.Trouble(domain, fmt.Errorf("%s:%s is no network", t.name, t.value))
		return nil
	case "a", "mx", "include", "redirect=":
	case "exists", "ptr":
		w.Trouble(domain, fmt.Errorf("%s: %w", t.name, errMacro))
		return nil
	default: // all, exp= and what is not known (section 6)
		return nil
	}
	if strings.Contains(target, "%") {
		w.Trouble(domain, fmt.Errorf("%s: %w", target, errMacro))
		return nil
	}
	switch t.name {
	case "a":
		return w.addresses(ctx, t, target)
	case "mx":
		return w.servers(ctx, t, target)
	}
	return w.record(ctx, target, left)
}

func (w *Walk) servers(ctx context.Context, t *term, domain string) error {
	list, err := w.Resolver.LookupMX(ctx, strings.TrimSuffix(domain, ".")+".")
	if err != nil {
		w.trouble(domain, err)
	}
	for _, mx := range list {
		if mx.Host == "." { // RFC 7505
			continue
		}
		if err := w.addresses(ctx, t, mx.Host); err != nil {
			return err
		}
	}
	return nil
}

func (w *Walk) addresses(ctx context.Context, t *term, host string) error {
	list, err := w.Resolver.LookupNetIP(ctx, "ip", strings.TrimSuffix(host, ".")+".")
	if err != nil {
		w.trouble(host, err)
	}
	for _, a := range list {
		if err := w.found(t.around(a.Unmap())); err != nil {
			return err
		}
	}
	return nil
}

// trouble leaves out that a name has no such records: there is nothing to list
// then.
func (w *Walk) trouble(domain string, err error) {
	if missing(err) {
		return
	}
	var e *net.DNSError
	if errors.As(err, &e) {
		err = errors.New(e.Err) // the rest names the server and the domain
	}
	w.Trouble(domain, err)
}

func missing(err error) bool {
	var e *net.DNSError
	return errors.As(err, &e) && e.IsNotFound
}

func (w *Walk) found(p netip.Prefix) error {
	if w.nets[p] {
		return nil
	}
	w.nets[p] = true
	return w.Found(p)
}
