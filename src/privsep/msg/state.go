package msg

// The numbers of what queue keeps for dispatcher.
const (
	// dispatcher → queue
	TypeKeep Type = iota + 480 // one way, or with Sync a call
	TypeKept
	TypeKeptReply
)

// Keep asks queue to keep small values of a kind over a restart. Nobody waits for
// that: the last ones may be lost when the machine stops. With Sync somebody does:
// the reply, an empty KeptReply, comes when these values, and all before them, are
// on stable storage.
type Keep struct {
	Kind   string
	Sync   bool
	Values []KeptValue
}

// KeptValue is one value that queue keeps.
type KeptValue struct {
	Key    string
	Remove bool
	Data   []byte
}

// Kept asks queue for the values of a kind whose keys come after a key, in their
// order. The reply is KeptReply.
type Kept struct{ Kind, After string }

// KeptReply answers Kept: as many as one message carries. It is empty at the end.
type KeptReply struct{ Values []KeptValue }

func (Keep) Type() Type      { return TypeKeep }
func (Kept) Type() Type      { return TypeKept }
func (KeptReply) Type() Type { return TypeKeptReply }

// keptSize is what a KeptValue takes at least on the wire.
const keptSize = 3

func appendKept(b []byte, values []KeptValue) []byte {
	b = AppendCount(b, len(values))
	for i := range values {
		v := &values[i]
		b = AppendBytes(AppendBool(AppendString(b, v.Key), v.Remove), v.Data)
	}
	return b
}

func (r *Reader) kept() []KeptValue {
	out := make([]KeptValue, r.Count(keptSize))
	for i := range out {
		out[i] = KeptValue{Key: r.String(), Remove: r.Bool(), Data: r.Bytes(nil)}
	}
	return out
}

// Append implements Message.
func (m *Keep) Append(b []byte) []byte {
	return appendKept(AppendBool(AppendString(b, m.Kind), m.Sync), m.Values)
}

// Parse implements Parser.
func (m *Keep) Parse(b []byte) error {
	r := NewReader(b)
	m.Kind = r.String()
	m.Sync = r.Bool()
	m.Values = r.kept()
	return r.Done()
}

// Append implements Message.
func (m *Kept) Append(b []byte) []byte { return AppendString(AppendString(b, m.Kind), m.After) }

// Parse implements Parser.
func (m *Kept) Parse(b []byte) error {
	r := NewReader(b)
	m.Kind = r.String()
	m.After = r.String()
	return r.Done()
}

// Append implements Message.
func (m *KeptReply) Append(b []byte) []byte { return appendKept(b, m.Values) }

// Parse implements Parser.
func (m *KeptReply) Parse(b []byte) error {
	r := NewReader(b)
	m.Values = r.kept()
	return r.Done()
}
