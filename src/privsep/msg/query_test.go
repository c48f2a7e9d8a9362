package msg

import (
	"errors"

	"opensmtpd/src/mailerr"
)

// querySamples holds what tables and programs are asked and told, full and empty.
func querySamples() []Parser {
	return []Parser{
		&Query{Gen: 3, Service: 4, Match: true, Table: "bad", Key: "[2001:db8::1]"},
		&Query{},
		&Answer{Found: true, Value: "mx.example.org"},
		&Answer{Err: mailerr.Temporary(451, 4, 3, "Temporary failure", errors.New("table program died"))},
		&Program{Identity: "proc:rspamd"},
		&ProgramEnd{Identity: "proc:rspamd"},
	}
}
