package msg

import (
	"errors"
	"strings"
	"time"

	"opensmtpd/src/mail/addr"
	"opensmtpd/src/mailerr"
)

// deliverySamples holds the messages of local delivery, full and empty.
func deliverySamples() []Parser {
	eve := addr.Address{Local: strings.Repeat("e", 255), Domain: "example.org"}
	full := mailerr.Temporary(452, 2, 2, "mail.maildir: disk quota exceeded", errors.New("write: disk quota exceeded"))
	return []Parser{
		&Agent{Gen: 3, Action: "local", User: "eve", Spawn: true},
		&AgentReply{ID: 1 << 40, Command: true, UID: 1000, GID: 100, Name: "eve", Home: "/home/eve", RunHome: "/vmail"},
		&AgentReply{Err: full, Stat: "Error (temporary failure)"},
		&AgentEnd{ID: 9},
		&AgentConf{
			Action: "local", Method: 2, Path: "~/M", Junk: true, Command: "cat", HasWrapper: true, Wrapper: "nice %{mda}",
			NoExec: true, NoCommand: true, LibExec: "/usr/libexec", SubAddrDelim: "+", Timeout: 300 * time.Second, UID: 1000,
			LMTPDest: "[::1]:24", RcptTo: true,
		},
		&Deliver{
			Envelope: 7<<32 | 9, Name: "eve", Home: "/home/eve", RunHome: "/vmail", Sender: eve, Rcpt: eve, Dest: eve,
			Subaddress: "tag", Exec: "cat", Size: 5, Inline: true, Body: []byte("body\n"),
		},
		&Deliver{Size: 1 << 40},
		&DeliverChunk{Data: []byte("x")},
		&DeliverChunk{Abort: true},
		&DeliverResult{Stat: "Delivered"},
		&DeliverResult{Err: full, Stat: "Error (temporary failure: \"x\")"},
		&Forward{Home: "/home/eve", UID: 1000},
		&ForwardReply{Found: true, Data: []byte("|prog\n")},
		&ForwardReply{Err: full},
		&Mailbox{User: "eve"},
		&MailboxReply{Err: full},
		&MailboxDone{},
		&UserBase{Gen: 1, Table: "users", Name: "eve"},
	}
}
