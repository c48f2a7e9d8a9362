package ctl

import (
	"time"

	"opensmtpd/src/queue/envelope"
)

// QueueRow is one line of "smtpctl show queue" (msg.VerbList).
type QueueRow struct {
	ID      string   `json:"evpid"`            // 16 hexadecimal digits
	Source  string   `json:"source"`           // "local", "inet4" or "inet6"
	Type    string   `json:"type"`             // "mda", "mta" or "bounce"
	Flags   []string `json:"flags,omitempty"`  // of those of smtpctl(8), in its order
	Sender  string   `json:"sender"`           // "" for the null sender
	Rcpt    string   `json:"rcpt"`             // as the client gave it
	Dest    string   `json:"dest"`             // after expansion
	Created int64    `json:"created"`          // Unix seconds
	Expires int64    `json:"expires"`          // Unix seconds
	LastTry int64    `json:"lasttry"`          // Unix seconds, 0: never tried
	Retry   int      `json:"retry"`            // attempts so far
	State   string   `json:"state"`            // "pending", "inflight", "invalid"; "offline" is smtpctl's own
	Seconds int64    `json:"seconds"`          // pending: until the next attempt (may be negative); inflight: since it began
	Error   string   `json:"error,omitempty"`  // the last failure, one line
	Action  string   `json:"action,omitempty"` // name of the action
}

// RowOf is the row of an envelope, but for what the run queue knows of it; ttl is
// for one that does not say how long it lives.
func RowOf(e *envelope.Envelope, ttl time.Duration) QueueRow {
	if e.TTL > 0 {
		ttl = e.TTL
	}
	return QueueRow{
		ID: e.ID.String(), Source: source(e), Type: typeName(e.Type), Flags: flagNames(e.Flags),
		Sender: e.Sender.String(), Rcpt: e.Rcpt.String(), Dest: e.Dest.String(),
		Created: e.Created.Unix(), Expires: e.Created.Add(ttl).Unix(), LastTry: envelope.Unix(e.LastTry),
		Retry: int(e.Retry), Error: e.ErrorLine, Action: e.Action,
	}
}

func source(e *envelope.Envelope) string {
	switch a := e.Source.Addr(); {
	case !a.IsValid():
		return "local"
	case a.Unmap().Is4():
		return "inet4"
	}
	return "inet6"
}

func typeName(t envelope.Type) string {
	switch t {
	case envelope.MTA:
		return "mta"
	case envelope.Bounce:
		return "bounce"
	}
	return "mda"
}

func flagNames(flags envelope.Flags) []string {
	var names []string
	for _, f := range []struct {
		flag envelope.Flags
		name string
	}{
		{envelope.IsBounce, "bounce"},
		{envelope.Authenticated, "auth"},
		{envelope.Internal, "internal"},
		{envelope.SMTPUTF8, "smtputf8"},
		{envelope.RequireTLS, "requiretls"},
		{envelope.TLSOptional, "tlsoptional"},
	} {
		if flags&f.flag != 0 {
			names = append(names, f.name)
		}
	}
	return names
}

// StatusRow is the answer to "smtpctl show status": each is "running" or
// "paused".
type StatusRow struct {
	MDA  string `json:"mda"`
	MTA  string `json:"mta"`
	SMTP string `json:"smtp"`
}

// StatRow is one line of "smtpctl show stats".
type StatRow struct {
	Key   string `json:"key"`
	Value int64  `json:"value"`
}

// DigestRow is one line of "smtpctl monitor". All are sums since the daemon
// started; smtpctl shows differences.
type DigestRow struct {
	ClientConnect    int64 `json:"connect"`
	ClientDisconnect int64 `json:"disconnect"`
	Enqueued         int64 `json:"enqueued"`
	Dequeued         int64 `json:"dequeued"`
	OK               int64 `json:"ok"`
	TempFail         int64 `json:"tempfail"`
	PermFail         int64 `json:"permfail"`
	Loop             int64 `json:"loop"`
	Expired          int64 `json:"expired"`
	Removed          int64 `json:"removed"`
	Bounce           int64 `json:"bounce"`
}

// CountRow ends a command that changes envelopes.
type CountRow struct {
	Count uint32 `json:"count"`
}
