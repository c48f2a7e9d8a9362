package msg

import (
	"opensmtpd/src/mail"
	"opensmtpd/src/mailerr"
)

// Hello is the first frame to a new process: who it is to be. It answers with
// a Hello of its own, or ends.
type Hello struct {
	Build        string // build id; both sides must be of one build
	Role         string
	Config       []byte // what the program of the role needs before its configuration; may be empty
	Verbose      bool
	Syslog       bool // log lines go to the socket that comes as a resource, not to stderr
	Unprivileged bool
	Trace        []string // of smtpd -T
	Paused       []string // of smtpd -P
	Zone         string   // of the local time, a name of the zone database; "" when unknown
	Chroot       string   // where the process locks itself in; "" for nowhere
	Dir          string   // in unprivileged mode, the directory that it may use; else ""
	UID, GID     uint32   // what it becomes, unless unprivileged
	GraceMillis  uint32   // how long it may go on after Shutdown
}

// Peer brings, as a descriptor, the socket to another role.
type Peer struct{ Role string }

// The names of resources; each belongs to the generation that is being
// prepared.
const (
	ResourceCABundle   = "ca-bundle"
	ResourceResolvConf = "resolv.conf"
	ResourceHosts      = "hosts"
	ResourceSyslog     = "syslog"    // + descriptor: a connected datagram socket
	ResourceUIDs       = "uids"      // lines of name=number
	ResourceOperators  = "operators" // lines of numbers
	ResourceLock       = "lock"      // + descriptor: to be kept open as long as the process lives
)

// Resource brings one thing that a chroot hides. Large ones come in several
// frames, to be joined; More tells that another piece follows.
type Resource struct {
	Name string
	More bool
	Data []byte
}

// File brings, as a descriptor, a listener or a table file.
type File struct{ Identity string }

// Conf is a piece, at most 512 KiB, of the projection of the generation that
// is being prepared.
type Conf struct {
	Gen  mail.Gen
	Data []byte
}

// Prepare asks a role to make a generation ready from the pieces that came
// before; the reply is Ready.
type Prepare struct{ Gen mail.Gen }

// Ready answers Prepare.
type Ready struct {
	Err    *mailerr.Error // why the generation cannot be used; nil when it can
	Layers []string       // first generation only: the layers of confinement in force
}

// CommitConf makes the prepared generation current; the reply is Ready.
type CommitConf struct{ Gen mail.Gen }

// AbortConf forgets the prepared generation.
type AbortConf struct{ Gen mail.Gen }

// Shutdown asks a role to finish and end.
type Shutdown struct{}

// Verbose turns debug lines and traces on or off.
type Verbose struct {
	Verbose bool
	Trace   []string // all that are on
}

func (Hello) Type() Type      { return TypeHello }
func (Peer) Type() Type       { return TypePeer }
func (Resource) Type() Type   { return TypeResource }
func (File) Type() Type       { return TypeFile }
func (Conf) Type() Type       { return TypeConf }
func (Prepare) Type() Type    { return TypePrepare }
func (Ready) Type() Type      { return TypeReady }
func (CommitConf) Type() Type { return TypeCommitConf }
func (AbortConf) Type() Type  { return TypeAbortConf }
func (Shutdown) Type() Type   { return TypeShutdown }
func (Verbose) Type() Type    { return TypeVerbose }

// Append implements Message.
func (m *Hello) Append(b []byte) []byte {
	b = AppendString(b, m.Build)
	b = AppendString(b, m.Role)
	b = AppendBytes(b, m.Config)
	b = AppendBool(b, m.Verbose)
	b = AppendBool(b, m.Syslog)
	b = AppendBool(b, m.Unprivileged)
	b = AppendStrings(b, m.Trace)
	b = AppendStrings(b, m.Paused)
	b = AppendString(b, m.Zone)
	b = AppendString(b, m.Chroot)
	b = AppendString(b, m.Dir)
	b = AppendU32(b, m.UID)
	b = AppendU32(b, m.GID)
	return AppendU32(b, m.GraceMillis)
}

// Parse implements Parser.
func (m *Hello) Parse(b []byte) error {
	r := NewReader(b)
	m.Build = r.String()
	m.Role = r.String()
	m.Config = r.Bytes(nil)
	m.Verbose = r.Bool()
	m.Syslog = r.Bool()
	m.Unprivileged = r.Bool()
	m.Trace = r.Strings()
	m.Paused = r.Strings()
	m.Zone = r.String()
	m.Chroot = r.String()
	m.Dir = r.String()
	m.UID = r.U32()
	m.GID = r.U32()
	m.GraceMillis = r.U32()
	return r.Done()
}

// Append implements Message.
func (m *Peer) Append(b []byte) []byte { return AppendString(b, m.Role) }

// Parse implements Parser.
func (m *Peer) Parse(b []byte) error {
	r := NewReader(b)
	m.Role = r.String()
	return r.Done()
}

// Append implements Message.
func (m *Resource) Append(b []byte) []byte {
	return AppendBytes(AppendBool(AppendString(b, m.Name), m.More), m.Data)
}

// Parse implements Parser.
func (m *Resource) Parse(b []byte) error {
	r := NewReader(b)
	m.Name = r.String()
	m.More = r.Bool()
	m.Data = r.Bytes(m.Data)
	return r.Done()
}

// Append implements Message.
func (m *File) Append(b []byte) []byte { return AppendString(b, m.Identity) }

// Parse implements Parser.
func (m *File) Parse(b []byte) error {
	r := NewReader(b)
	m.Identity = r.String()
	return r.Done()
}

// Append implements Message.
func (m *Conf) Append(b []byte) []byte { return AppendBytes(AppendU32(b, uint32(m.Gen)), m.Data) }

// Parse implements Parser.
func (m *Conf) Parse(b []byte) error {
	r := NewReader(b)
	m.Gen = mail.Gen(r.U32())
	m.Data = r.Bytes(m.Data)
	return r.Done()
}

// Append implements Message.
func (m *Prepare) Append(b []byte) []byte { return AppendU32(b, uint32(m.Gen)) }

// Parse implements Parser.
func (m *Prepare) Parse(b []byte) error { return parseGen(&m.Gen, b) }

// Append implements Message.
func (m *CommitConf) Append(b []byte) []byte { return AppendU32(b, uint32(m.Gen)) }

// Parse implements Parser.
func (m *CommitConf) Parse(b []byte) error { return parseGen(&m.Gen, b) }

// Append implements Message.
func (m *AbortConf) Append(b []byte) []byte { return AppendU32(b, uint32(m.Gen)) }

// Parse implements Parser.
func (m *AbortConf) Parse(b []byte) error { return parseGen(&m.Gen, b) }

func parseGen(gen *mail.Gen, b []byte) error {
	r := NewReader(b)
	*gen = mail.Gen(r.U32())
	return r.Done()
}

// Append implements Message.
func (m *Ready) Append(b []byte) []byte { return AppendStrings(AppendError(b, m.Err), m.Layers) }

// Parse implements Parser.
func (m *Ready) Parse(b []byte) error {
	r := NewReader(b)
	m.Err = r.Error()
	m.Layers = r.Strings()
	return r.Done()
}

// Append implements Message.
func (m *Shutdown) Append(b []byte) []byte { return b }

// Parse implements Parser.
func (m *Shutdown) Parse(b []byte) error {
	r := NewReader(b)
	return r.Done()
}

// Append implements Message.
func (m *Verbose) Append(b []byte) []byte { return AppendStrings(AppendBool(b, m.Verbose), m.Trace) }

// Parse implements Parser.
func (m *Verbose) Parse(b []byte) error {
	r := NewReader(b)
	m.Verbose = r.Bool()
	m.Trace = r.Strings()
	return r.Done()
}
