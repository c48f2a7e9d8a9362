package msg

import (
	"net/netip"
	"time"

	"opensmtpd/src/mail"
	"opensmtpd/src/mailerr"
	"opensmtpd/src/queue/envelope"
)

// The numbers of relaying.
const (
	// queue ↔ dispatcher
	TypeRelayTask Type = iota + 320
	TypeRelayTaken
	TypeRelayBody
	TypeRelayBodyReply
	TypeRelayResult

	// dispatcher → lookup
	TypeMX
	TypeMXReply
	TypeRelayLookup
	TypeRelayLookupReply
)

// What dispatcher serves about relaying. Rows are of the types in package ctl.
const (
	VerbShowRoutes    Verb = "show routes"    // ctl.RouteRow. No args.
	VerbShowHosts     Verb = "show hosts"     // ctl.HostRow. No args.
	VerbShowRelays    Verb = "show relays"    // ctl.RelayRow. No args.
	VerbShowHoststats Verb = "show hoststats" // ctl.HoststatRow. No args.
	// VerbResumeRoute takes a route that was disabled into use again. Args: its
	// number, or "all". Count: how many changed.
	VerbResumeRoute Verb = "resume route"
)

// MaxRelayBody is how much of a body one RelayTask or RelayBodyReply carries, in
// bytes.
const MaxRelayBody = 256 << 10

// RelayTask gives dispatcher envelopes of one message for one destination. It is
// sent one way; RelayResult answers. How many there may be at a time for one
// destination is what `mta limit` says of tasks.
type RelayTask struct {
	Task      uint64 // names it in the messages below
	Gen       mail.Gen
	Size      uint64 // of the body, bytes as it is kept
	Inline    bool   // Body is all of it
	Body      []byte
	Envelopes []envelope.Envelope // of type MTA, of one message, at least one
}

// RelayTaken tells queue that a session has begun with a task, so that another
// may wait in its place.
type RelayTaken struct{ Task uint64 }

// RelayBody asks queue for a piece of the body of a task that is under way. The
// reply is RelayBodyReply. There is no descriptor and nobody who fills a pipe: a
// session that ends just does not ask again.
type RelayBody struct {
	Task   uint64
	Offset uint64
}

// RelayBodyReply answers RelayBody: at most MaxRelayBody bytes, fewer only at
// the end of the body.
type RelayBodyReply struct {
	Err  *mailerr.Error
	Data []byte
}

// RelayResult tells what became of every envelope of a task.
type RelayResult struct {
	Task uint64
	// Unreachable: the destination is out of reach, so that nothing else that
	// waits for it need be tried before its next moment.
	Unreachable bool
	Results     []RelayOutcome
}

// RelayOutcome is the result of one envelope.
type RelayOutcome struct {
	Envelope mail.EnvelopeID
	Err      *mailerr.Error // nil: the other server took it
	Line     string         // what it said, or what went wrong, in one line
	NoDSN    bool           // it took it, but will send no reports
	Returned bool           // it was not tried: we are stopping
}

// MX asks lookup for the servers of a mail domain, or, with Host, for the
// addresses of one host that an administrator named.
type MX struct {
	Domain string // may be an address in brackets
	Host   bool
}

// MXReply answers MX. When Err is set nothing else holds.
type MXReply struct {
	Err   *mailerr.Error
	TTL   time.Duration
	Hosts []MXHost // by preference, the best first
}

// MXHost is one server. Addrs may be empty: its addresses cannot be found now.
type MXHost struct {
	Name  string
	Pref  uint16
	Addrs []netip.Addr
	Local []bool // of each of Addrs: it is one of this machine's
}

// RelayService says which of the tables of an action RelayLookup is about.
type RelayService uint8

const (
	RelaySource RelayService = iota // the next source address; no key
	RelayHelo                       // the name that goes with a source address
	RelaySecret                     // user and password by label
	RelayHost                       // the url of the relay: of a domain, or without a key the next
)

// RelayLookup asks lookup for an entry of a table that an action names.
type RelayLookup struct {
	Gen     mail.Gen
	Service RelayService
	Table   string
	Key     string
}

// RelayLookupReply answers RelayLookup. A secret is in this message and in no
// other.
type RelayLookupReply struct {
	Err      *mailerr.Error
	Found    bool
	Value    string // user, for a secret
	Password string
}

func (RelayTask) Type() Type        { return TypeRelayTask }
func (RelayTaken) Type() Type       { return TypeRelayTaken }
func (RelayBody) Type() Type        { return TypeRelayBody }
func (RelayBodyReply) Type() Type   { return TypeRelayBodyReply }
func (RelayResult) Type() Type      { return TypeRelayResult }
func (MX) Type() Type               { return TypeMX }
func (MXReply) Type() Type          { return TypeMXReply }
func (RelayLookup) Type() Type      { return TypeRelayLookup }
func (RelayLookupReply) Type() Type { return TypeRelayLookupReply }

// envelopeSize is what an envelope takes at least on the wire.
const envelopeSize = 32

// Append implements Message.
func (m *RelayTask) Append(b []byte) []byte {
	b = AppendU64(b, m.Task)
	b = AppendU32(b, uint32(m.Gen))
	b = AppendU64(b, m.Size)
	b = AppendBool(b, m.Inline)
	b = AppendBytes(b, m.Body)
	b = AppendCount(b, len(m.Envelopes))
	var one []byte
	for i := range m.Envelopes {
		one = m.Envelopes[i].Append(one[:0])
		b = AppendBytes(b, one)
	}
	return b
}

// Parse implements Parser.
func (m *RelayTask) Parse(b []byte) error {
	r := NewReader(b)
	m.Task = r.U64()
	m.Gen = mail.Gen(r.U32())
	m.Size = r.U64()
	m.Inline = r.Bool()
	m.Body = r.Bytes(nil)
	n := r.Count(envelopeSize)
	if n == 0 {
		r.Fail(ErrValue)
	}
	m.Envelopes = make([]envelope.Envelope, n)
	for i := range m.Envelopes {
		one := r.View(r.Count(1))
		if r.err != nil {
			break
		}
		if err := m.Envelopes[i].Parse(one); err != nil {
			r.Fail(err)
		}
	}
	return r.Done()
}

// Append implements Message.
func (m *RelayTaken) Append(b []byte) []byte { return AppendU64(b, m.Task) }

// Parse implements Parser.
func (m *RelayTaken) Parse(b []byte) error {
	r := NewReader(b)
	m.Task = r.U64()
	return r.Done()
}

// Append implements Message.
func (m *RelayBody) Append(b []byte) []byte { return AppendU64(AppendU64(b, m.Task), m.Offset) }

// Parse implements Parser.
func (m *RelayBody) Parse(b []byte) error {
	r := NewReader(b)
	m.Task = r.U64()
	m.Offset = r.U64()
	return r.Done()
}

// Append implements Message.
func (m *RelayBodyReply) Append(b []byte) []byte { return AppendBytes(AppendError(b, m.Err), m.Data) }

// Parse implements Parser. Data is overwritten where it is large enough.
func (m *RelayBodyReply) Parse(b []byte) error {
	r := NewReader(b)
	m.Err = r.Error()
	m.Data = r.Bytes(m.Data)
	return r.Done()
}

// outcomeSize is what a RelayOutcome takes at least on the wire.
const outcomeSize = 8 + 1 + 1 + 2

// Append implements Message.
func (m *RelayResult) Append(b []byte) []byte {
	b = AppendU64(b, m.Task)
	b = AppendBool(b, m.Unreachable)
	b = AppendCount(b, len(m.Results))
	for i := range m.Results {
		o := &m.Results[i]
		b = AppendU64(b, uint64(o.Envelope))
		b = AppendError(b, o.Err)
		b = AppendString(b, o.Line)
		b = AppendBool(b, o.NoDSN)
		b = AppendBool(b, o.Returned)
	}
	return b
}

// Parse implements Parser.
func (m *RelayResult) Parse(b []byte) error {
	r := NewReader(b)
	m.Task = r.U64()
	m.Unreachable = r.Bool()
	m.Results = make([]RelayOutcome, r.Count(outcomeSize))
	for i := range m.Results {
		o := &m.Results[i]
		o.Envelope = mail.EnvelopeID(r.U64())
		o.Err = r.Error()
		o.Line = r.String()
		o.NoDSN = r.Bool()
		o.Returned = r.Bool()
	}
	return r.Done()
}

// Append implements Message.
func (m *MX) Append(b []byte) []byte { return AppendBool(AppendString(b, m.Domain), m.Host) }

// Parse implements Parser.
func (m *MX) Parse(b []byte) error {
	r := NewReader(b)
	m.Domain = r.String()
	m.Host = r.Bool()
	return r.Done()
}

// Append implements Message.
func (m *MXReply) Append(b []byte) []byte {
	b = AppendError(b, m.Err)
	b = AppendDuration(b, m.TTL)
	b = AppendCount(b, len(m.Hosts))
	for i := range m.Hosts {
		h := &m.Hosts[i]
		b = AppendString(b, h.Name)
		b = AppendU16(b, h.Pref)
		b = AppendCount(b, len(h.Addrs))
		for j, a := range h.Addrs {
			b = AppendAddr(b, a)
			b = AppendBool(b, j < len(h.Local) && h.Local[j])
		}
	}
	return b
}

// Parse implements Parser.
func (m *MXReply) Parse(b []byte) error {
	r := NewReader(b)
	m.Err = r.Error()
	m.TTL = r.Duration()
	m.Hosts = nil
	for n := r.Count(4); n > 0; n-- {
		h := MXHost{Name: r.String(), Pref: r.U16()}
		for k := r.Count(2); k > 0; k-- {
			h.Addrs = append(h.Addrs, r.Addr())
			h.Local = append(h.Local, r.Bool())
		}
		m.Hosts = append(m.Hosts, h)
	}
	return r.Done()
}

// Append implements Message.
func (m *RelayLookup) Append(b []byte) []byte {
	b = AppendU32(b, uint32(m.Gen))
	b = AppendU8(b, uint8(m.Service))
	return AppendString(AppendString(b, m.Table), m.Key)
}

// Parse implements Parser.
func (m *RelayLookup) Parse(b []byte) error {
	r := NewReader(b)
	m.Gen = mail.Gen(r.U32())
	m.Service = RelayService(r.Enum(uint8(RelayHost)))
	m.Table = r.String()
	m.Key = r.String()
	return r.Done()
}

// Append implements Message.
func (m *RelayLookupReply) Append(b []byte) []byte {
	b = AppendBool(AppendError(b, m.Err), m.Found)
	return AppendString(AppendString(b, m.Value), m.Password)
}

// Parse implements Parser.
func (m *RelayLookupReply) Parse(b []byte) error {
	r := NewReader(b)
	m.Err = r.Error()
	m.Found = r.Bool()
	m.Value = r.String()
	m.Password = r.String()
	return r.Done()
}
