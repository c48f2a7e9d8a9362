package msg

import (
	"opensmtpd/src/mail"
	"opensmtpd/src/mail/addr"
	"opensmtpd/src/queue/envelope"
)

func (Expand) Type() Type      { return TypeExpand }
func (Expanded) Type() Type    { return TypeExpanded }
func (RDNS) Type() Type        { return TypeRDNS }
func (RDNSReply) Type() Type   { return TypeRDNSReply }
func (ReserveIDs) Type() Type  { return TypeReserveIDs }
func (ReservedIDs) Type() Type { return TypeReservedIDs }
func (BodyChunk) Type() Type   { return TypeBodyChunk }
func (Commit) Type() Type      { return TypeCommit }
func (Committed) Type() Type   { return TypeCommitted }
func (Discard) Type() Type     { return TypeDiscard }
func (Intake) Type() Type      { return TypeIntake }
func (Error) Type() Type       { return TypeError }

func (c *Client) append(b []byte) []byte {
	b = AppendString(b, c.Listener)
	b = AppendString(b, c.Tag)
	b = AppendBool(b, c.Socket)
	b = AppendAddrPort(b, c.Addr)
	b = AppendString(b, c.RDNS)
	b = AppendString(b, c.Helo)
	b = AppendString(b, c.SMTPName)
	b = AppendBool(b, c.TLS)
	b = AppendString(b, c.AuthUser)
	return AppendU32(b, c.UID)
}

func (c *Client) read(r *Reader) {
	c.Listener = r.String()
	c.Tag = r.String()
	c.Socket = r.Bool()
	c.Addr = r.AddrPort()
	c.RDNS = r.String()
	c.Helo = r.String()
	c.SMTPName = r.String()
	c.TLS = r.Bool()
	c.AuthUser = r.String()
	c.UID = r.U32()
}

// Append implements Message.
func (m *Expand) Append(b []byte) []byte {
	b = AppendU32(b, uint32(m.Gen))
	b = AppendU64(b, uint64(m.Session))
	b = AppendU32(b, uint32(m.Message))
	b = AppendU32(b, m.First)
	b = AppendU16(b, uint16(m.Flags))
	b = m.Client.append(b)
	b = AppendAddress(b, m.Sender)
	b = AppendAddress(b, m.Rcpt)
	b = AppendU8(b, uint8(m.Notify))
	b = AppendU8(b, uint8(m.Return))
	b = AppendString(b, m.EnvID)
	b = AppendString(b, m.ORcpt)
	return AppendTime(b, m.Now)
}

// Parse implements Parser.
func (m *Expand) Parse(b []byte) error {
	r := NewReader(b)
	m.Gen = mail.Gen(r.U32())
	m.Session = mail.SessionID(r.U64())
	m.Message = mail.MessageID(r.U32())
	m.First = r.U32()
	m.Flags = envelope.Flags(r.U16())
	m.Client.read(&r)
	m.Sender = r.Address()
	m.Rcpt = r.Address()
	m.Notify = envelope.Notify(r.U8())
	m.Return = envelope.Return(r.Enum(uint8(envelope.ReturnHeaders)))
	m.EnvID = r.String()
	m.ORcpt = r.String()
	m.Now = r.Time()
	return r.Done()
}

// Append implements Message.
func (m *Expanded) Append(b []byte) []byte {
	b = AppendError(b, m.Err)
	b = AppendU32(b, m.Added)
	b = AppendCount(b, len(m.Dests))
	for _, a := range m.Dests {
		b = AppendAddress(b, a)
	}
	return b
}

// Parse implements Parser.
func (m *Expanded) Parse(b []byte) error {
	r := NewReader(b)
	m.Err = r.Error()
	m.Added = r.U32()
	m.Dests = nil
	if n := r.Count(2); n > 0 {
		m.Dests = make([]addr.Address, n)
	}
	for i := range m.Dests {
		m.Dests[i] = r.Address()
	}
	return r.Done()
}

// Append implements Message.
func (m *RDNS) Append(b []byte) []byte { return AppendAddr(b, m.Addr) }

// Parse implements Parser.
func (m *RDNS) Parse(b []byte) error {
	r := NewReader(b)
	m.Addr = r.Addr()
	return r.Done()
}

// Append implements Message.
func (m *RDNSReply) Append(b []byte) []byte {
	return AppendBool(AppendBool(AppendString(b, m.Name), m.Forward), m.Temp)
}

// Parse implements Parser.
func (m *RDNSReply) Parse(b []byte) error {
	r := NewReader(b)
	m.Name = r.String()
	m.Forward = r.Bool()
	m.Temp = r.Bool()
	return r.Done()
}

// Append implements Message.
func (m *ReserveIDs) Append(b []byte) []byte { return AppendU32(b, m.N) }

// Parse implements Parser.
func (m *ReserveIDs) Parse(b []byte) error {
	r := NewReader(b)
	m.N = r.U32()
	return r.Done()
}

// Append implements Message.
func (m *ReservedIDs) Append(b []byte) []byte {
	b = AppendCount(b, len(m.IDs))
	for _, id := range m.IDs {
		b = AppendU32(b, uint32(id))
	}
	return b
}

// Parse implements Parser.
func (m *ReservedIDs) Parse(b []byte) error {
	r := NewReader(b)
	m.IDs = m.IDs[:0]
	for n := r.Count(4); n > 0; n-- {
		m.IDs = append(m.IDs, mail.MessageID(r.U32()))
	}
	return r.Done()
}

// Append implements Message.
func (m *BodyChunk) Append(b []byte) []byte {
	return AppendBytes(AppendU32(b, uint32(m.Message)), m.Data)
}

// Parse implements Parser. Data is overwritten where it is large enough.
func (m *BodyChunk) Parse(b []byte) error {
	r := NewReader(b)
	m.Message = mail.MessageID(r.U32())
	m.Data = r.Bytes(m.Data)
	return r.Done()
}

// Append implements Message.
func (m *Commit) Append(b []byte) []byte {
	b = AppendU32(b, uint32(m.Message))
	b = AppendU32(b, m.Envelopes)
	b = AppendU64(b, m.Size)
	b = AppendBool(b, m.Streamed)
	b = AppendBool(b, m.TLSOptional)
	return AppendBytes(b, m.Body)
}

// Parse implements Parser. Body is overwritten where it is large enough.
func (m *Commit) Parse(b []byte) error {
	r := NewReader(b)
	m.Message = mail.MessageID(r.U32())
	m.Envelopes = r.U32()
	m.Size = r.U64()
	m.Streamed = r.Bool()
	m.TLSOptional = r.Bool()
	m.Body = r.Bytes(m.Body)
	return r.Done()
}

// Append implements Message.
func (m *Committed) Append(b []byte) []byte { return AppendError(b, m.Err) }

// Parse implements Parser.
func (m *Committed) Parse(b []byte) error {
	r := NewReader(b)
	m.Err = r.Error()
	return r.Done()
}

// Append implements Message.
func (m *Discard) Append(b []byte) []byte { return AppendU32(b, uint32(m.Message)) }

// Parse implements Parser.
func (m *Discard) Parse(b []byte) error {
	r := NewReader(b)
	m.Message = mail.MessageID(r.U32())
	return r.Done()
}

// Append implements Message.
func (m *Intake) Append(b []byte) []byte { return AppendError(AppendBool(b, m.Open), m.Err) }

// Parse implements Parser.
func (m *Intake) Parse(b []byte) error {
	r := NewReader(b)
	m.Open = r.Bool()
	m.Err = r.Error()
	return r.Done()
}

// Append implements Message.
func (m *Error) Append(b []byte) []byte { return AppendError(b, &m.Err) }

// Parse implements Parser.
func (m *Error) Parse(b []byte) error {
	r := NewReader(b)
	if e := r.Error(); e != nil {
		m.Err = *e
	} else {
		r.Fail(ErrValue)
	}
	return r.Done()
}
