package msg

func (UserInfo) Type() Type      { return TypeUserInfo }
func (UserInfoReply) Type() Type { return TypeUserInfoReply }

// Append implements Message.
func (m *UserInfo) Append(b []byte) []byte {
	return AppendBool(AppendString(b, m.Name), m.Forward)
}

// Parse implements Parser.
func (m *UserInfo) Parse(b []byte) error {
	r := NewReader(b)
	m.Name = r.String()
	m.Forward = r.Bool()
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
