package msg

import "opensmtpd/src/mailerr"

// The numbers of what dispatcher asks of crypto.
const (
	TypeSign Type = iota + 416
	TypeSigned
)

// KeyID names a pair of keys: the SHA-256 of the public one, as a
// SubjectPublicKeyInfo. A certificate tells it, so that whoever has the
// certificate can ask for a signature, and the pair keeps its name when another
// takes its place.
type KeyID [32]byte

// Sign asks crypto to sign with a private key that it alone has. The reply is
// Signed.
type Sign struct {
	Key  KeyID
	Hash uint8 // a crypto.Hash; 0: Data is a whole message, for Ed25519
	PSS  bool  // RSASSA-PSS with a salt of the hash's size; else PKCS #1 v1.5
	Data []byte
}

// Signed answers Sign.
type Signed struct {
	Err       *mailerr.Error
	Signature []byte
}

func (Sign) Type() Type   { return TypeSign }
func (Signed) Type() Type { return TypeSigned }

// Append implements Message.
func (m *Sign) Append(b []byte) []byte {
	b = append(b, m.Key[:]...)
	return AppendBytes(AppendBool(AppendU8(b, m.Hash), m.PSS), m.Data)
}

// Parse implements Parser.
func (m *Sign) Parse(b []byte) error {
	r := NewReader(b)
	copy(m.Key[:], r.View(len(m.Key)))
	m.Hash = r.U8()
	m.PSS = r.Bool()
	m.Data = r.Bytes(nil)
	return r.Done()
}

// Append implements Message.
func (m *Signed) Append(b []byte) []byte { return AppendBytes(AppendError(b, m.Err), m.Signature) }

// Parse implements Parser.
func (m *Signed) Parse(b []byte) error {
	r := NewReader(b)
	m.Err = r.Error()
	m.Signature = r.Bytes(nil)
	return r.Done()
}
