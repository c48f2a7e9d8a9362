# Mail goes to an IMAP server over LMTP, which also files and filters it.
# rcpt-to sends the address that is left after expansion, not the user's name.

table "aliases" { source = "file:/etc/mail/aliases" }

listen "localhost" {}
listen "egress" {}

action "imap" {
  lmtp {
    destination = "/var/run/dovecot/lmtp"
    rcpt-to     = true
    alias       = table.aliases
  }
}

action "relay" {
  relay {}
}

match {
  from   = "any"
  for    = domain("example.org")
  action = action.imap
}

match {
  from   = "local"
  for    = "local"
  action = action.imap
}

match {
  from   = "local"
  for    = "any"
  action = action.relay
}
