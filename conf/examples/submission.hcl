# A mail server for one domain: mail from everywhere comes in on port 25, users
# send theirs on ports 465 and 587 after giving their password.

table "aliases" { source = "file:/etc/mail/aliases" }

pki "mail.example.com" {
  cert = "/etc/ssl/mail.example.com.crt"
  key  = "/etc/ssl/private/mail.example.com.key"
}

listen "localhost" {}

listen "egress" {
  tls = "offer"
  pki = pki["mail.example.com"]
}

listen "egress" {
  tls      = "smtps"
  pki      = pki["mail.example.com"]
  auth     = "require"
  mask-src = true
}

listen "egress" {
  port     = "submission"
  tls      = "require"
  pki      = pki["mail.example.com"]
  auth     = "require"
  mask-src = true
}

action "local" {
  maildir {
    alias = table.aliases
  }
}

action "relay" {
  relay {}
}

match {
  from   = "any"
  for    = domain("example.com")
  action = action.local
}

match {
  from   = "local"
  for    = "local"
  action = action.local
}

match {
  from   = "local"
  for    = "any"
  action = action.relay
}

match {
  from   = auth()
  for    = "any"
  action = action.relay
}
