package msg

// Verb names what the administrator wants of one role. Control checks who asks
// before a verb leaves it; a role need not check again, except for what
// Control.Operator says of it. A verb that a role does not know is answered with
// Fail.
type Verb string

// What queue serves. A "which" argument is an envelope id of 16 hexadecimal
// digits, a message id of 8, or "all".
const (
	// VerbList lists envelopes. Args: none, or one message id. Rows:
	// ctl.QueueRow, in ascending order of envelope ids; Next is the last id
	// listed. When Operator is false, only those with LocalUID equal to UID.
	VerbList Verb = "list"
	// VerbEnvelope shows one envelope. Args: an envelope id. Raw: its text form.
	// When Operator is false, only one with LocalUID equal to UID.
	VerbEnvelope Verb = "envelope"
	// VerbMessage shows a message. Args: a message id. Raw: the next piece of
	// it, uncompressed and unsealed; Cursor and Next are a byte offset in
	// decimal. When Operator is false, only a message of UID.
	VerbMessage Verb = "message"
	// VerbRemove removes envelopes, those in flight too. Args: which. Count:
	// how many.
	VerbRemove Verb = "remove"
	// VerbSchedule makes envelopes due at once. Args: which. Count: how many.
	VerbSchedule Verb = "schedule"
	// VerbPauseEnvelope and VerbResumeEnvelope suspend and go on. Args: which.
	// Count: how many changed.
	VerbPauseEnvelope  Verb = "pause envelope"
	VerbResumeEnvelope Verb = "resume envelope"
	// VerbPauseMDA to VerbResumeMTA stop and go on with local delivery and
	// relaying. No args. Control knows the state and refuses a repetition.
	VerbPauseMDA  Verb = "pause mda"
	VerbResumeMDA Verb = "resume mda"
	VerbPauseMTA  Verb = "pause mta"
	VerbResumeMTA Verb = "resume mta"
	// VerbDiscover takes in envelopes that were moved into the spool by hand.
	// Args: an envelope or message id. Count: how many.
	VerbDiscover Verb = "discover"
)

// What dispatcher serves.
const (
	// VerbPauseSMTP stops accepting new sessions on every listener, and
	// VerbResumeSMTP goes on. No args.
	VerbPauseSMTP  Verb = "pause smtp"
	VerbResumeSMTP Verb = "resume smtp"
	// VerbShowGreylist lists the greylist. No args. Rows: ctl.GreyRow.
	VerbShowGreylist Verb = "show greylist"
	// VerbWhitelist lets a network pass the greylist, and VerbUnwhitelist
	// forgets all by which one of its addresses does. Args: an address or a
	// network. Rows: ctl.PassRow.
	VerbWhitelist   Verb = "whitelist"
	VerbUnwhitelist Verb = "unwhitelist"
)

// What lookup serves.
const (
	// VerbUpdateTable reads a table again. Args: its name. Fail when there is
	// none, or when the new content is bad and the old one stays.
	VerbUpdateTable Verb = "update table"
	// VerbExplain tells what the rules would do with a recipient. Args: the
	// words of smtpctl explain. Rows: expand.Row.
	VerbExplain Verb = "explain"
)

// What parent serves. It passes verbosity, traces and profiles on to every role,
// so that no other role sees these verbs.
const (
	// VerbReload reads the configuration again, in two phases. No args. The
	// reply comes when the new generation is in force; Fail has the first
	// diagnostic in its cause.
	VerbReload Verb = "reload"
	// VerbVerbose sets the log: Args: "0" (brief) or "1" (verbose).
	VerbVerbose Verb = "verbose"
	// VerbTrace and VerbUntrace switch one trace. Args: its name, as
	// smtpctl(8) lists them, or "all".
	VerbTrace   Verb = "trace"
	VerbUntrace Verb = "untrace"
	// VerbProfile and VerbUnprofile switch real-time profiling. Args: "queue"
	// or "imsg".
	VerbProfile   Verb = "profile"
	VerbUnprofile Verb = "unprofile"
)

// Control is a checked request of smtpctl(8), from control to the role that
// serves the verb. The reply is ControlRows; what cannot be done is a Fail
// whose text goes to the user. It is a Call: rows travel in pages, so that a
// user who does not read never fills a socket between processes.
type Control struct {
	Verb     Verb
	UID      uint32 // of who asks
	Operator bool   // may see and touch what is not his
	Args     []string
	Cursor   string // "" at first, then Next of the page before
}

// ControlPage is how many bytes of rows or raw content a role puts into one
// ControlRows before it stops and sets Next. With one more row it must stay
// below the frame limit of 1 MiB.
const ControlPage = 256 << 10

// ControlRows answers Control: one page of rows, or of raw content, or a count.
// Package ctl has a builder.
type ControlRows struct {
	Rows  [][]byte // a JSON object each, of the row types in package ctl
	Raw   []byte   // content as it is
	Count uint32   // envelopes that were changed
	Next  string   // "" on the last page; else what Cursor must say for more
}

// LocalSession hands dispatcher a connection, the descriptor that comes along,
// on which a process of this machine will speak SMTP. It is sent one way: what
// dispatcher cannot serve it answers in SMTP, with 421.
type LocalSession struct {
	UID, GID uint32 // of the peer, as the kernel tells
}

// Stats asks a role for its counters.
type Stats struct{}

// Counter is one line of "smtpctl show stats": its value is Up less Down, the
// sums of what was ever added and taken away.
type Counter struct {
	Name     string
	Up, Down int64
}

// StatsReply answers Stats, sorted by name.
type StatsReply struct{ Counters []Counter }

func (*Control) Type() Type      { return TypeControl }
func (*ControlRows) Type() Type  { return TypeControlRow }
func (*LocalSession) Type() Type { return TypeLocalSession }
func (*Stats) Type() Type        { return TypeStats }
func (*StatsReply) Type() Type   { return TypeStatsReply }

func (m *Control) Append(b []byte) []byte {
	b = AppendString(b, string(m.Verb))
	b = AppendU32(b, m.UID)
	b = AppendBool(b, m.Operator)
	b = AppendStrings(b, m.Args)
	return AppendString(b, m.Cursor)
}

func (m *Control) Parse(b []byte) error {
	r := NewReader(b)
	m.Verb = Verb(r.String())
	m.UID = r.U32()
	m.Operator = r.Bool()
	m.Args = r.Strings()
	m.Cursor = r.String()
	return r.Done()
}

func (m *ControlRows) Append(b []byte) []byte {
	b = AppendCount(b, len(m.Rows))
	for _, row := range m.Rows {
		b = AppendBytes(b, row)
	}
	b = AppendBytes(b, m.Raw)
	b = AppendU32(b, m.Count)
	return AppendString(b, m.Next)
}

func (m *ControlRows) Parse(b []byte) error {
	r := NewReader(b)
	m.Rows = nil
	if n := r.Count(1); n > 0 {
		m.Rows = make([][]byte, n)
		for i := range m.Rows {
			m.Rows[i] = r.Bytes(nil)
		}
	}
	m.Raw = r.Bytes(nil)
	m.Count = r.U32()
	m.Next = r.String()
	return r.Done()
}

func (m *LocalSession) Append(b []byte) []byte {
	return AppendU32(AppendU32(b, m.UID), m.GID)
}

func (m *LocalSession) Parse(b []byte) error {
	r := NewReader(b)
	m.UID = r.U32()
	m.GID = r.U32()
	return r.Done()
}

func (*Stats) Append(b []byte) []byte { return b }

func (*Stats) Parse(b []byte) error {
	r := NewReader(b)
	return r.Done()
}

func (m *StatsReply) Append(b []byte) []byte {
	b = AppendCount(b, len(m.Counters))
	for _, c := range m.Counters {
		b = AppendString(b, c.Name)
		b = AppendI64(b, c.Up)
		b = AppendI64(b, c.Down)
	}
	return b
}

// counterSize is what a Counter takes at least on the wire.
const counterSize = 1 + 2*8

func (m *StatsReply) Parse(b []byte) error {
	r := NewReader(b)
	m.Counters = nil
	if n := r.Count(counterSize); n > 0 {
		m.Counters = make([]Counter, n)
		for i := range m.Counters {
			c := &m.Counters[i]
			c.Name = r.String()
			c.Up, c.Down = r.I64(), r.I64()
		}
	}
	return r.Done()
}
