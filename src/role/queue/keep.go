package queue

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"opensmtpd/src/mailerr"
	"opensmtpd/src/privsep/msg"
	"opensmtpd/src/privsep/proc"
)

// keepKinds are the kinds of values that dispatcher may have kept.
func keepKinds() []string { return []string{"greylist"} }

// The bounds of what dispatcher, which strangers talk to, can have kept.
const (
	maxKept     = 120_000 // values of a kind
	maxKeptData = 1 << 10 // bytes of one
	keptPage    = 768 << 10
)

// keep keeps values. Where nobody waits until they are durable, nobody is told
// what went wrong but the log.
func (r *Role) keep(ctx context.Context, q proc.Request) {
	var m msg.Keep
	err := q.Parse(&m)
	if err == nil {
		err = r.open(ctx)
	}
	if err == nil && !slices.Contains(keepKinds(), m.Kind) {
		err = fmt.Errorf("no values of kind %q are kept", m.Kind)
	}
	if err != nil {
		q.Fail(mailerr.Local(err))
		return
	}
	room := maxKept - r.store.StateCount(m.Kind)
	left := 0
	for i := range m.Values {
		v := &m.Values[i]
		switch {
		case v.Remove:
			v.Data = nil
		case len(v.Data) == 0 || len(v.Data) > maxKeptData || room <= 0:
			left++
			continue
		default:
			room--
		}
		if err := r.store.PutState(m.Kind, v.Key, v.Data); err != nil {
			r.env.Log.Warnf("warn: queue: %v", err)
		}
	}
	if left > 0 {
		r.env.Log.Warnf("warn: queue: %d values of %s are too large or too many, and are not kept", left, m.Kind)
	}
	if m.Sync {
		r.store.FlushAsync(func(err error) {
			if err != nil {
				q.Fail(mailerr.From(err))
				return
			}
			q.Reply(&msg.KeptReply{})
		})
	}
}

// kept gives back what keep has kept, a page at a time.
func (r *Role) kept(ctx context.Context, q proc.Request) {
	var m msg.Kept
	err := q.Parse(&m)
	if err == nil {
		err = r.open(ctx)
	}
	if err != nil {
		q.Fail(mailerr.Local(err))
		return
	}
	var all []msg.KeptValue
	if slices.Contains(keepKinds(), m.Kind) {
		r.store.State(m.Kind, func(key string, value []byte) bool {
			if key > m.After {
				all = append(all, msg.KeptValue{Key: key, Data: value})
			}
			return true
		})
	}
	slices.SortFunc(all, func(a, b msg.KeptValue) int { return strings.Compare(a.Key, b.Key) })
	size := 0
	for i := range all {
		if size += len(all[i].Key) + len(all[i].Data) + 16; size > keptPage {
			all = all[:i]
			break
		}
	}
	q.Reply(&msg.KeptReply{Values: all})
}
