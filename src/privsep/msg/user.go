package msg

import "opensmtpd/src/mail"

func (UserInfo) Type() Type       { return TypeUserInfo }
func (UserInfoReply) Type() Type  { return TypeUserInfoReply }
func (Include) Type() Type        { return TypeInclude }
func (IncludeReply) Type() Type   { return TypeIncludeReply }
func (TableFile) Type() Type      { return TypeTableFile }
func (TableFileReply) Type() Type { return TypeTableFileReply }

// Append implements Message.
func (m *UserInfo) Append(b []byte) []byte {
	b = AppendBool(AppendString(b, m.Name), m.Forward)
	b = AppendBool(b, m.Virtual)
	b = AppendU32(b, m.UID)
	b = AppendU32(b, m.GID)
	return AppendString(b, m.Home)
}

// Parse implements Parser.
func (m *UserInfo) Parse(b []byte) error {
	r := NewReader(b)
	m.Name = r.String()
	m.Forward = r.Bool()
	m.Virtual = r.Bool()
	m.UID = r.U32()
	m.GID = r.U32()
	m.Home = r.String()
	return r.Done()
}

// Append implements Message.
func (m *UserInfoReply) Append(b []byte) []byte {
	b = AppendError(b, m.Err)
	b = AppendBool(b, m.Found)
	b = AppendString(b, m.Name)
	b = AppendU32(b, m.UID)
	b = AppendU32(b, m.GID)
	b = AppendString(b, m.Home)
	b = AppendBool(b, m.HasForward)
	return AppendBytes(b, m.Forward)
}

// Parse implements Parser.
func (m *UserInfoReply) Parse(b []byte) error {
	r := NewReader(b)
	m.Err = r.Error()
	m.Found = r.Bool()
	m.Name = r.String()
	m.UID = r.U32()
	m.GID = r.U32()
	m.Home = r.String()
	m.HasForward = r.Bool()
	m.Forward = r.Bytes(m.Forward)
	return r.Done()
}

// Append implements Message.
func (m *Include) Append(b []byte) []byte { return AppendString(b, m.Path) }

// Parse implements Parser.
func (m *Include) Parse(b []byte) error {
	r := NewReader(b)
	m.Path = r.String()
	return r.Done()
}

// Append implements Message.
func (m *IncludeReply) Append(b []byte) []byte {
	return AppendBytes(AppendBool(AppendError(b, m.Err), m.Found), m.Data)
}

// Parse implements Parser.
func (m *IncludeReply) Parse(b []byte) error {
	r := NewReader(b)
	m.Err = r.Error()
	m.Found = r.Bool()
	m.Data = r.Bytes(nil)
	return r.Done()
}

// Append implements Message.
func (m *TableFile) Append(b []byte) []byte { return AppendString(AppendU32(b, uint32(m.Gen)), m.Name) }

// Parse implements Parser.
func (m *TableFile) Parse(b []byte) error {
	r := NewReader(b)
	m.Gen = mail.Gen(r.U32())
	m.Name = r.String()
	return r.Done()
}

// Append implements Message.
func (m *TableFileReply) Append(b []byte) []byte { return AppendError(b, m.Err) }

// Parse implements Parser.
func (m *TableFileReply) Parse(b []byte) error {
	r := NewReader(b)
	m.Err = r.Error()
	return r.Done()
}
