package msg

import (
	"time"

	"opensmtpd/src/mail"
	"opensmtpd/src/mail/addr"
	"opensmtpd/src/mailerr"
)

// Agent asks parent who delivers for User under Action and, with Spawn, for a
// new delivery agent. Parent takes the action from its own configuration of
// generation Gen; queue cannot name a command.
type Agent struct {
	Gen    mail.Gen
	Action string
	User   string // the envelope's delivery user
	Spawn  bool   // start an agent; its socket comes with the reply
}

// AgentReply answers Agent. When Err is set nothing else but Stat holds.
type AgentReply struct {
	Err      *mailerr.Error // why mail for this user cannot be delivered now, or ever
	Stat     string         // the words for the log when Err is set
	ID       uint64         // of the agent that was started, for AgentEnd
	Command  bool           // deliveries run a command, and count for mda limit
	UID, GID uint32         // whom the delivery runs as
	Name     string         // %{user.username} and $USER
	Home     string         // %{user.directory}
	RunHome  string         // $HOME: of whom the delivery runs as
}

// AgentEnd tells parent that an agent gives no result and has been given up: its
// process is to be killed if it does not end by itself.
type AgentEnd struct{ ID uint64 }

// AgentConf is the first frame on an agent's link to parent: what the agent is
// there for.
type AgentConf struct {
	Action       string
	Method       uint8 // a conf.Method
	Path         string
	Junk         bool
	Command      string // of mda
	HasWrapper   bool
	Wrapper      string // the command of the wrapper, not its name
	NoExec       bool   // refuse every |command and /file
	NoCommand    bool   // refuse the action's own command too
	LibExec      string // where mail.maildir and its like are
	SubAddrDelim string
	Timeout      time.Duration // of a command
	UID          uint32        // whom the agent must find itself to be
	LMTPDest     string        // of lmtp: host:port or the path of a socket
	RcptTo       bool          // of lmtp: name the address, not the user
}

// Deliver gives an agent one message for one recipient. The call number of the
// frame names it in the result. A body that is not Inline follows in
// DeliverChunk frames until Size bytes have come.
type Deliver struct {
	Envelope   mail.EnvelopeID
	Name       string // of AgentReply
	Home       string
	RunHome    string
	Sender     addr.Address
	Rcpt       addr.Address
	Dest       addr.Address
	Subaddress string
	Exec       string // the envelope's MDAExec
	Size       uint64 // of the body, bytes
	Inline     bool
	Body       []byte
}

// DeliverChunk is a piece, at most 64 KiB, of the body of the last Deliver. An
// Abort tells that the rest cannot be had.
type DeliverChunk struct {
	Abort bool
	Data  []byte
}

// DeliverResult tells what became of a delivery.
type DeliverResult struct {
	Err  *mailerr.Error // nil: delivered, and on stable storage
	Stat string         // the words for the log
}

// Forward asks an agent for the ~/.forward of the user that it runs as.
type Forward struct {
	Home string
	UID  uint32
}

// ForwardReply answers Forward.
type ForwardReply struct {
	Err   *mailerr.Error // refused; the reason is its Cause
	Found bool
	Data  []byte // at most 4 KiB
}

// Mailbox asks parent to lock and open the system mailbox of User, who must be
// the user that the agent runs as.
type Mailbox struct{ User string }

// MailboxReply answers Mailbox; the open mailbox comes along unless Err is set.
type MailboxReply struct{ Err *mailerr.Error }

// MailboxDone tells parent to unlock the mailbox of the last Mailbox.
type MailboxDone struct{}

// UserBase asks lookup for a user of a userbase table (table(5), userinfo). The
// reply is a UserInfoReply without .forward.
type UserBase struct {
	Gen   mail.Gen
	Table string
	Name  string
}

func (Agent) Type() Type         { return TypeAgent }
func (AgentReply) Type() Type    { return TypeAgentReply }
func (AgentEnd) Type() Type      { return TypeAgentEnd }
func (AgentConf) Type() Type     { return TypeAgentConf }
func (Deliver) Type() Type       { return TypeDeliver }
func (DeliverChunk) Type() Type  { return TypeDeliverChunk }
func (DeliverResult) Type() Type { return TypeDeliverResult }
func (Forward) Type() Type       { return TypeForward }
func (ForwardReply) Type() Type  { return TypeForwardReply }
func (Mailbox) Type() Type       { return TypeMailbox }
func (MailboxReply) Type() Type  { return TypeMailboxReply }
func (MailboxDone) Type() Type   { return TypeMailboxDone }
func (UserBase) Type() Type      { return TypeUserBase }

// Append implements Message.
func (m *Agent) Append(b []byte) []byte {
	b = AppendU32(b, uint32(m.Gen))
	b = AppendString(b, m.Action)
	b = AppendString(b, m.User)
	return AppendBool(b, m.Spawn)
}

// Parse implements Parser.
func (m *Agent) Parse(b []byte) error {
	r := NewReader(b)
	m.Gen = mail.Gen(r.U32())
	m.Action = r.String()
	m.User = r.String()
	m.Spawn = r.Bool()
	return r.Done()
}

// Append implements Message.
func (m *AgentReply) Append(b []byte) []byte {
	b = AppendError(b, m.Err)
	b = AppendString(b, m.Stat)
	b = AppendU64(b, m.ID)
	b = AppendBool(b, m.Command)
	b = AppendU32(b, m.UID)
	b = AppendU32(b, m.GID)
	b = AppendString(b, m.Name)
	b = AppendString(b, m.Home)
	return AppendString(b, m.RunHome)
}

// Parse implements Parser.
func (m *AgentReply) Parse(b []byte) error {
	r := NewReader(b)
	m.Err = r.Error()
	m.Stat = r.String()
	m.ID = r.U64()
	m.Command = r.Bool()
	m.UID = r.U32()
	m.GID = r.U32()
	m.Name = r.String()
	m.Home = r.String()
	m.RunHome = r.String()
	return r.Done()
}

// Append implements Message.
func (m *AgentEnd) Append(b []byte) []byte { return AppendU64(b, m.ID) }

// Parse implements Parser.
func (m *AgentEnd) Parse(b []byte) error {
	r := NewReader(b)
	m.ID = r.U64()
	return r.Done()
}

// Append implements Message.
func (m *AgentConf) Append(b []byte) []byte {
	b = AppendString(b, m.Action)
	b = AppendU8(b, m.Method)
	b = AppendString(b, m.Path)
	b = AppendBool(b, m.Junk)
	b = AppendString(b, m.Command)
	b = AppendBool(b, m.HasWrapper)
	b = AppendString(b, m.Wrapper)
	b = AppendBool(b, m.NoExec)
	b = AppendBool(b, m.NoCommand)
	b = AppendString(b, m.LibExec)
	b = AppendString(b, m.SubAddrDelim)
	b = AppendDuration(b, m.Timeout)
	b = AppendU32(b, m.UID)
	b = AppendString(b, m.LMTPDest)
	return AppendBool(b, m.RcptTo)
}

// Parse implements Parser.
func (m *AgentConf) Parse(b []byte) error {
	r := NewReader(b)
	m.Action = r.String()
	m.Method = r.U8()
	m.Path = r.String()
	m.Junk = r.Bool()
	m.Command = r.String()
	m.HasWrapper = r.Bool()
	m.Wrapper = r.String()
	m.NoExec = r.Bool()
	m.NoCommand = r.Bool()
	m.LibExec = r.String()
	m.SubAddrDelim = r.String()
	m.Timeout = r.Duration()
	m.UID = r.U32()
	m.LMTPDest = r.String()
	m.RcptTo = r.Bool()
	return r.Done()
}

// Append implements Message.
func (m *Deliver) Append(b []byte) []byte {
	b = AppendU64(b, uint64(m.Envelope))
	b = AppendString(b, m.Name)
	b = AppendString(b, m.Home)
	b = AppendString(b, m.RunHome)
	b = AppendAddress(b, m.Sender)
	b = AppendAddress(b, m.Rcpt)
	b = AppendAddress(b, m.Dest)
	b = AppendString(b, m.Subaddress)
	b = AppendString(b, m.Exec)
	b = AppendU64(b, m.Size)
	b = AppendBool(b, m.Inline)
	return AppendBytes(b, m.Body)
}

// Parse implements Parser.
func (m *Deliver) Parse(b []byte) error {
	r := NewReader(b)
	m.Envelope = mail.EnvelopeID(r.U64())
	m.Name = r.String()
	m.Home = r.String()
	m.RunHome = r.String()
	m.Sender = r.Address()
	m.Rcpt = r.Address()
	m.Dest = r.Address()
	m.Subaddress = r.String()
	m.Exec = r.String()
	m.Size = r.U64()
	m.Inline = r.Bool()
	m.Body = r.Bytes(m.Body)
	return r.Done()
}

// Append implements Message.
func (m *DeliverChunk) Append(b []byte) []byte { return AppendBytes(AppendBool(b, m.Abort), m.Data) }

// Parse implements Parser.
func (m *DeliverChunk) Parse(b []byte) error {
	r := NewReader(b)
	m.Abort = r.Bool()
	m.Data = r.Bytes(m.Data)
	return r.Done()
}

// Append implements Message.
func (m *DeliverResult) Append(b []byte) []byte {
	return AppendString(AppendError(b, m.Err), m.Stat)
}

// Parse implements Parser.
func (m *DeliverResult) Parse(b []byte) error {
	r := NewReader(b)
	m.Err = r.Error()
	m.Stat = r.String()
	return r.Done()
}

// Append implements Message.
func (m *Forward) Append(b []byte) []byte { return AppendU32(AppendString(b, m.Home), m.UID) }

// Parse implements Parser.
func (m *Forward) Parse(b []byte) error {
	r := NewReader(b)
	m.Home = r.String()
	m.UID = r.U32()
	return r.Done()
}

// Append implements Message.
func (m *ForwardReply) Append(b []byte) []byte {
	return AppendBytes(AppendBool(AppendError(b, m.Err), m.Found), m.Data)
}

// Parse implements Parser.
func (m *ForwardReply) Parse(b []byte) error {
	r := NewReader(b)
	m.Err = r.Error()
	m.Found = r.Bool()
	m.Data = r.Bytes(m.Data)
	return r.Done()
}

// Append implements Message.
func (m *Mailbox) Append(b []byte) []byte { return AppendString(b, m.User) }

// Parse implements Parser.
func (m *Mailbox) Parse(b []byte) error {
	r := NewReader(b)
	m.User = r.String()
	return r.Done()
}

// Append implements Message.
func (m *MailboxReply) Append(b []byte) []byte { return AppendError(b, m.Err) }

// Parse implements Parser.
func (m *MailboxReply) Parse(b []byte) error {
	r := NewReader(b)
	m.Err = r.Error()
	return r.Done()
}

// Append implements Message.
func (*MailboxDone) Append(b []byte) []byte { return b }

// Parse implements Parser.
func (*MailboxDone) Parse(b []byte) error {
	r := NewReader(b)
	return r.Done()
}

// Append implements Message.
func (m *UserBase) Append(b []byte) []byte {
	return AppendString(AppendString(AppendU32(b, uint32(m.Gen)), m.Table), m.Name)
}

// Parse implements Parser.
func (m *UserBase) Parse(b []byte) error {
	r := NewReader(b)
	m.Gen = mail.Gen(r.U32())
	m.Table = r.String()
	m.Name = r.String()
	return r.Done()
}
