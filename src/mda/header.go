package mda

import (
	"bytes"
	"strings"

	"opensmtpd/src/privsep/msg"
)

// head returns the lines that delivery adds before the message: Return-Path,
// which RFC 5321 section 4.4 wants for the null sender too, and Delivered-To with
// the address that the client gave.
func head(d *msg.Deliver) []byte {
	b := make([]byte, 0, 64+len(d.Sender.Local)+len(d.Sender.Domain)+len(d.Rcpt.Local)+len(d.Rcpt.Domain))
	b = append(b, "Return-Path: <"...)
	b = append(b, d.Sender.SMTP()...)
	b = append(b, ">\nDelivered-To: "...)
	b = append(b, d.Rcpt.SMTP()...)
	return append(b, '\n')
}

// loops tells whether the header at the start of a message says that it was
// already delivered to dest.
func loops(body []byte, dest string) bool {
	const name = "delivered-to:"
	for len(body) > 0 {
		line, rest, _ := bytes.Cut(body, []byte{'\n'})
		if len(line) == 0 || line[0] != ' ' && line[0] != '\t' && bytes.IndexByte(line, ':') < 0 {
			return false
		}
		if len(line) > len(name) && strings.EqualFold(string(line[:len(name)]), name) &&
			strings.EqualFold(strings.TrimSpace(string(line[len(name):])), dest) {
			return true
		}
		body = rest
	}
	return false
}
