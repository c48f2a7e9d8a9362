package msg

func (AddEnvelope) Type() Type { return TypeAddEnvelope }

// Append implements Message: the envelope in its compact form.
func (m *AddEnvelope) Append(b []byte) []byte { return m.Envelope.Append(b) }

// Parse implements Parser. Strings with CR, LF or NUL are refused.
func (m *AddEnvelope) Parse(b []byte) error { return m.Envelope.Parse(b) }
