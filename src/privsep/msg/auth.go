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

// SystemAuth asks parent whether a password is that of an account of the system.
type SystemAuth struct{ User, Password string }

func (Authenticate) Type() Type  { return TypeAuthenticate }
func (Authenticated) Type() Type { return TypeAuthenticated }
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
