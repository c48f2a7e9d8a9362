# Several domains whose users are not users of this machine. One system user,
# vmail, owns all their mail.
#
# /etc/mail/virtual maps addresses to the names of mailboxes:
#
#	alice@example.org	alice
#	info@example.net	alice, bob
#	@example.net		bob

table "domains" { list = ["example.org", "example.net"] }
table "virtuals" { source = "file:/etc/mail/virtual" }

pki "mail.example.org" {
  cert = "/etc/ssl/mail.example.org.crt"
  key  = "/etc/ssl/private/mail.example.org.key"
}

listen "localhost" {}

listen "egress" {
  tls = "offer"
  pki = pki["mail.example.org"]
}

action "boxes" {
  maildir {
    path    = "/var/vmail/%%{dest.user:lowercase}"
    junk    = true
    virtual = table.virtuals
    user    = "vmail"
  }
}

action "relay" {
  relay {}
}

match {
  from   = "any"
  for    = domain(table.domains)
  action = action.boxes
}

match {
  from   = "local"
  for    = "any"
  action = action.relay
}
