// Package smtp is the grammar of SMTP (RFC 5321) as both ends need it: command
// lines, the parameters of MAIL and RCPT, and replies as values. It reads bytes
// from strangers and does no input or output.
//
//	line      = verb [ SP argument ]
//	mail      = "MAIL FROM:" [SP] path *( SP parameter )
//	rcpt      = "RCPT TO:" [SP] path *( SP parameter )
//	parameter = keyword [ "=" value ]          ; RFC 5321 section 4.1.2
package smtp
