package msg

import (
	"opensmtpd/src/mail"
	"opensmtpd/src/mailerr"
)

// The numbers of what proves who a client is.
const (
	// dispatcher → lookup
	TypeAuthenticate Type = iota + 384
	TypeAuthenticated
	TypeScram
	TypeScrammed
	// lookup → parent
	TypeSystemAuth // Authenticated answers
)

// Authenticate asks whether a password is a user's. Table names the table that
// knows; without one the accounts of the system are meant.
type Authenticate struct {
	Gen      mail.Gen
	Session  mail.SessionID
	Table    string
	User     string
	Password string
}

// Authenticated answers. That the password is wrong and that there is no such
// user look alike.
type Authenticated struct {
	OK  bool
	Err *mailerr.Error // it could not be found out
}

// Scram gives lookup a message of SCRAM-SHA-256 that a client has sent: the first,
// or the final one with what was said before. Without First it is asked whether
// the table has secrets for that.
type Scram struct {
	Gen                     mail.Gen
	Table                   string
	First, Challenge, Final string
}

// Scrammed answers Scram.
type Scrammed struct {
	Malformed bool
	OK        bool           // it is offered; or the client has proved who he is
	User      string         // whom the client says it is
	Text      string         // what the client is to be told
	Err       *mailerr.Error // it could not be found out
}

// SystemAuth asks parent whether a password is that of an account of the system.
type SystemAuth struct{ User, Password string }

func (Authenticate) Type() Type  { return TypeAuthenticate }
func (Authenticated) Type() Type { return TypeAuthenticated }
func (Scram) Type() Type         { return TypeScram }
func (Scrammed) Type() Type      { return TypeScrammed }
func (SystemAuth) Type() Type    { return TypeSystemAuth }

// Append implements Message.
func (m *Authenticate) Append(b []byte) []byte {
	b = AppendU64(AppendU32(b, uint32(m.Gen)), uint64(m.Session))
	b = AppendString(b, m.Table)
	return AppendString(AppendString(b, m.User), m.Password)
}

// Parse implements Parser.
func (m *Authenticate) Parse(b []byte) error {
	r := NewReader(b)
	m.Gen = mail.Gen(r.U32())
	m.Session = mail.SessionID(r.U64())
	m.Table = r.String()
	m.User = r.String()
	m.Password = r.String()
	return r.Done()
}

// Append implements Message.
func (m *Authenticated) Append(b []byte) []byte { return AppendError(AppendBool(b, m.OK), m.Err) }

// Parse implements Parser.
func (m *Authenticated) Parse(b []byte) error {
	r := NewReader(b)
	m.OK = r.Bool()
	m.Err = r.Error()
	if m.OK && m.Err != nil {
		r.Fail(ErrValue)
	}
	err := r.Done()
	m.OK = m.OK && err == nil
	return err
}

// Append implements Message.
func (m *Scram) Append(b []byte) []byte {
	b = AppendString(AppendU32(b, uint32(m.Gen)), m.Table)
	return AppendString(AppendString(AppendString(b, m.First), m.Challenge), m.Final)
}

// Parse implements Parser.
func (m *Scram) Parse(b []byte) error {
	r := NewReader(b)
	m.Gen = mail.Gen(r.U32())
	m.Table = r.String()
	m.First = r.String()
	m.Challenge = r.String()
	m.Final = r.String()
	return r.Done()
}

// Append implements Message.
func (m *Scrammed) Append(b []byte) []byte {
	b = AppendBool(AppendBool(b, m.Malformed), m.OK)
	return AppendError(AppendString(AppendString(b, m.User), m.Text), m.Err)
}

// Parse implements Parser.
func (m *Scrammed) Parse(b []byte) error {
	r := NewReader(b)
	m.Malformed = r.Bool()
	m.OK = r.Bool()
	m.User = r.String()
	m.Text = r.String()
	m.Err = r.Error()
	if m.OK && (m.Err != nil || m.Malformed) {
		r.Fail(ErrValue)
	}
	err := r.Done()
	m.OK = m.OK && err == nil
	return err
}

// Append implements Message.
func (m *SystemAuth) Append(b []byte) []byte {
	return AppendString(AppendString(b, m.User), m.Password)
}

// Parse implements Parser.
func (m *SystemAuth) Parse(b []byte) error {
	r := NewReader(b)
	m.User = r.String()
	m.Password = r.String()
	return r.Done()
}
