package msg

import (
	"crypto"
	"errors"

	"opensmtpd/src/mailerr"
)

// signSamples are those of this file for the tests of all messages.
func signSamples() []Parser {
	return []Parser{
		&Sign{Key: KeyID{1, 31: 9}, Hash: uint8(crypto.SHA256), PSS: true, Data: make([]byte, 32)},
		&Sign{},
		&Signed{Signature: []byte{0x30, 1, 2}},
		&Signed{Err: mailerr.Local(errors.New("no such key"))},
	}
}
