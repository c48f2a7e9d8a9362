package server

import "opensmtpd/src/smtp"

// flags of a row say when a command is allowed and what follows it.
type flags uint8

const (
	// needHelo commands want the client to have said who it is.
	needHelo flags = 1 << iota
	// needTx commands want a transaction, noTx commands none.
	needTx
	noTx
	// noArg commands take no argument.
	noArg
	// last commands are followed by what is no command (a message, a TLS
	// handshake, credentials), so that a client must wait for the reply (RFC
	// 2920 section 3.1). One that does not, and is refused, is hung up on: what
	// it sent already must not be read as commands.
	last
	// hangUp commands are of another protocol: the connection is closed.
	hangUp
	// needWelcome commands want the client not to have been refused when it
	// connected (RFC 5321 section 3.1).
	needWelcome
)

// row is one command: when it may come, what is checked before filters are
// asked, and what it does. Handlers return the reply; an empty one from check
// means that all is well.
type row struct {
	name    string
	phase   Phase // filters are asked at it; NoPhase: they are not
	flags   flags
	check   func(*Session, string) smtp.Reply
	proceed func(*Session, string) smtp.Reply
}

// commands is the protocol.
var commands = [...]row{
	{"HELO", PhaseHelo, needWelcome, (*Session).checkHelo, (*Session).helo},
	{"EHLO", PhaseEhlo, needWelcome, (*Session).checkEhlo, (*Session).ehlo},
	{"STARTTLS", PhaseStartTLS, needHelo | noTx | last, (*Session).checkStartTLS, (*Session).startTLS},
	{"AUTH", PhaseAuth, needHelo | noTx | last, (*Session).checkAuth, (*Session).authenticate},
	{"MAIL FROM", PhaseMailFrom, needHelo | noTx, (*Session).checkMail, (*Session).mail},
	{"RCPT TO", PhaseRcptTo, needTx, (*Session).checkRcpt, (*Session).rcpt},
	{"DATA", PhaseData, noArg | needTx | last, (*Session).checkData, (*Session).data},
	{"BDAT", NoPhase, 0, nil, (*Session).bdat},
	{"RSET", PhaseRset, noArg, nil, (*Session).rset},
	{"QUIT", PhaseQuit, noArg, nil, (*Session).quit},
	{"NOOP", PhaseNoop, 0, nil, (*Session).noop},
	{"VRFY", NoPhase, 0, (*Session).checkVrfy, (*Session).vrfy},
	{"EXPN", NoPhase, 0, nil, (*Session).expn},
	{"HELP", NoPhase, 0, nil, (*Session).help},
	{"WIZ", NoPhase, noArg, nil, (*Session).wiz},

	// HTTP (RFC 9110 section 9): browsers can be made to send it here.
	{"GET", NoPhase, hangUp, nil, (*Session).foreign},
	{"POST", NoPhase, hangUp, nil, (*Session).foreign},
	{"PUT", NoPhase, hangUp, nil, (*Session).foreign},
	{"HEAD", NoPhase, hangUp, nil, (*Session).foreign},
	{"DELETE", NoPhase, hangUp, nil, (*Session).foreign},
	{"OPTIONS", NoPhase, hangUp, nil, (*Session).foreign},
	{"CONNECT", NoPhase, hangUp, nil, (*Session).foreign},
}

// connected and endOfData are what a session answers though it is no command
// line: the connection, and the lone dot.
var (
	connected = row{"", PhaseConnect, 0, nil, (*Session).greeting}
	endOfData = row{".", PhaseCommit, needTx, nil, (*Session).commit}
)

// find returns the row of a verb, or nil.
func find(verb string) *row {
	for i := range commands {
		if smtp.EqualFold(verb, commands[i].name) {
			return &commands[i]
		}
	}
	return nil
}
