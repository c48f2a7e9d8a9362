package msg

import (
	"opensmtpd/src/mail"
	"opensmtpd/src/mailerr"
)

// The numbers of what dispatcher asks of tables while mail comes in, and of the
// programs that parent keeps running for others.
const (
	// dispatcher → lookup
	TypeQuery Type = iota + 352
	TypeAnswer

	// parent → dispatcher, lookup
	TypeProgram
	// dispatcher, lookup → parent
	TypeProgramEnd
)

// Query asks lookup whether a key is in a table, and what it maps to. Passwords
// are not to be had this way: credentials and auth are refused.
type Query struct {
	Gen     mail.Gen
	Service uint8 // a table.Service
	Match   bool  // only whether it is there; Value of the answer is empty
	Table   string
	Key     string
}

// Answer answers Query.
type Answer struct {
	Err   *mailerr.Error // the table could not tell; temporary
	Found bool
	Value string
}

// Program brings the standard input and output of a program that parent has
// started again, one stream socket, as descriptor. The first one of a program
// comes with the configuration, as a proc.File of the same identity.
type Program struct{ Identity string }

// ProgramEnd tells parent that a program does not keep to its protocol: it is
// killed, and started again as one that died.
type ProgramEnd struct{ Identity string }

func (Query) Type() Type      { return TypeQuery }
func (Answer) Type() Type     { return TypeAnswer }
func (Program) Type() Type    { return TypeProgram }
func (ProgramEnd) Type() Type { return TypeProgramEnd }

// Append implements Message.
func (m *Query) Append(b []byte) []byte {
	b = AppendBool(AppendU8(AppendU32(b, uint32(m.Gen)), m.Service), m.Match)
	return AppendString(AppendString(b, m.Table), m.Key)
}

// Parse implements Parser.
func (m *Query) Parse(b []byte) error {
	r := NewReader(b)
	m.Gen = mail.Gen(r.U32())
	m.Service = r.U8()
	m.Match = r.Bool()
	m.Table = r.String()
	m.Key = r.String()
	return r.Done()
}

// Append implements Message.
func (m *Answer) Append(b []byte) []byte {
	return AppendString(AppendBool(AppendError(b, m.Err), m.Found), m.Value)
}

// Parse implements Parser.
func (m *Answer) Parse(b []byte) error {
	r := NewReader(b)
	m.Err = r.Error()
	m.Found = r.Bool()
	m.Value = r.String()
	return r.Done()
}

// Append implements Message.
func (m *Program) Append(b []byte) []byte { return AppendString(b, m.Identity) }

// Parse implements Parser.
func (m *Program) Parse(b []byte) error { return parseOne(b, &m.Identity) }

// Append implements Message.
func (m *ProgramEnd) Append(b []byte) []byte { return AppendString(b, m.Identity) }

// Parse implements Parser.
func (m *ProgramEnd) Parse(b []byte) error { return parseOne(b, &m.Identity) }

// parseOne reads a message of one string.
func parseOne(b []byte, s *string) error {
	r := NewReader(b)
	*s = r.String()
	return r.Done()
}
