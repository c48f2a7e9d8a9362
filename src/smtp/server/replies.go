package server

import "opensmtpd/src/smtp"

// Software is what greetings and Received lines call us.
const Software = "OpenSMTPD"

// The replies that never change, in OpenSMTPD's words where it has them.
var (
	notNow         = smtp.Fail(503, 5, 1, "Invalid command: Command not allowed at this point.")
	noArguments    = smtp.Fail(500, 5, 4, "Invalid command arguments: command does not accept arguments.")
	unrecognized   = smtp.Fail(500, 5, 1, "Invalid command: Command unrecognized")
	unsupported    = smtp.Fail(503, 5, 1, "Invalid command: Command not supported")
	notImplemented = smtp.Fail(502, 5, 1, "Invalid command: Command not implemented")
	heloNoDomain   = smtp.Fail(501, 5, 1, "Invalid command: HELO requires domain name")
	ehloNoDomain   = smtp.Fail(501, 5, 1, "Invalid command: EHLO requires domain name")
	badDomain      = smtp.Fail(501, 5, 4, "Invalid command arguments: Invalid domain name")
	alreadySecured = smtp.Fail(503, 5, 1, "Invalid command: Channel already secured")
	noParameters   = smtp.Fail(501, 5, 4, "Invalid command arguments: No parameters allowed")
	startTLSFirst  = smtp.Fail(530, 7, 0, "Must issue a STARTTLS command first")
	behindStartTLS = smtp.Fail(500, 5, 1, "Invalid command: Nothing may follow STARTTLS before TLS").Closing()
	vrfyNoArg      = smtp.Fail(501, 5, 4, "Invalid command arguments: VRFY requires an address")
	tooManyMails   = smtp.Fail(452, 5, 3, "Too many recipients: Too many messages sent")
	tooManyRcpts   = smtp.Fail(451, 5, 3, "Too many recipients: Too many recipients")
	noRecipient    = smtp.Fail(503, 5, 4, "Invalid command arguments: No recipient specified")
	badChunk       = smtp.Fail(501, 5, 4, "Invalid command arguments: BDAT requires a size and may have LAST").Closing()
	noWiz          = smtp.Fail(500, 5, 1, "Invalid command: this feature is not supported yet ;-)")

	// Of AUTH. That of a wrong password has no enhanced code: watchers of logs
	// look for OpenSMTPD's words.
	alreadyAuth     = smtp.Fail(503, 5, 1, "Invalid command: Already authenticated")
	noMechanism     = smtp.Fail(501, 5, 4, "Invalid command arguments: No parameters given")
	syntaxError     = smtp.Fail(501, 5, 2, "Syntax error: Syntax error")
	authCancelled   = smtp.Fail(501, 7, 0, "Authentication cancelled")
	authFailed      = smtp.Reply{Code: 535, Text: "Authentication failed"}
	authTrouble     = smtp.Fail(421, 3, 0, "Temporary failure").Closing()
	guessedTooOften = smtp.Fail(454, 7, 0, "Too many authentication failures, try again later")
	tooManyFailures = smtp.Fail(421, 7, 0, "Too many authentication failures").Closing()
	authSucceeded   = smtp.OK(235, 0, 0, "Authentication succeeded")
	authFirst       = smtp.Fail(530, 5, 1, "Invalid command: Must issue an AUTH command first")
	senderRejected  = smtp.Fail(550, 7, 1, "Sender rejected")

	ok           = smtp.OK(250, 0, 0, "Ok")
	resetState   = smtp.OK(250, 0, 0, "Reset state")
	recipientOK  = smtp.OK(250, 1, 5, "Destination address valid: Recipient ok")
	cannotVerify = smtp.OK(252, 5, 2, "Cannot verify the address, but will accept mail and attempt delivery")
	readyForTLS  = smtp.OK(220, 0, 0, "Ready to start TLS")
	enterMail    = smtp.Reply{Code: 354, Text: `Enter mail, end with "." on a line by itself`}
	bye          = smtp.OK(221, 0, 0, "Bye").Closing()
	helpText     = smtp.Reply{Code: 214, Enhanced: [3]uint16{2, 0, 0}, Before: []string{"This is " + Software,
		"HELO EHLO MAIL RCPT DATA BDAT RSET NOOP VRFY HELP QUIT"}, Text: "End of HELP info"}

	commandTooLong = smtp.Fail(500, 5, 2, "Syntax error: Command line too long")
	lineTooLong    = smtp.Fail(500, 0, 0, "Line too long").Closing()
	earlyTalker    = smtp.Fail(554, 5, 1, "Invalid command: Client must wait for the greeting").Closing()
	wrongProtocol  = smtp.Fail(500, 5, 1, "Invalid command: This is a mail server").Closing()
	tooManyErrors  = smtp.Fail(421, 7, 0, "Too many errors").Closing()
	timedOut       = smtp.Fail(421, 4, 2, "Timeout").Closing()
	shuttingDown   = smtp.Fail(421, 3, 0, "Service is shutting down").Closing()
	filterBroken   = smtp.Reply{Code: 421, Text: "Internal server error", Close: true}
)
