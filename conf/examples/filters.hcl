# Connections without a proper name in the DNS are sent away, the rest is shown
# to rspamd, and what leaves is signed. The socket has its filter too: that is
# the way of mail from sendmail(8), cron and the like.

table "aliases" { source = "file:/etc/mail/aliases" }

pki "mail.example.org" {
  cert = "/etc/ssl/mail.example.org.crt"
  key  = "/etc/ssl/private/mail.example.org.key"
}

filter "named" {
  phase      = "connect"
  fcrdns     = false
  disconnect = "550 5.7.25 no name for your address"
}

filter "helo" {
  phase  = "helo"
  helo   = regex("^localhost")
  reject = "550 5.7.1 that is me"
}

filter "rspamd" { proc-exec = "filter-rspamd" }

filter "dkim" {
  proc-exec = "filter-dkimsign -d example.org -s mail -k /etc/mail/dkim/private.key"
  user      = "_dkimsign"
  group     = "_dkimsign"
}

filter "incoming" { chain = [filter.named, filter.helo, filter.rspamd] }

socket { filter = filter.dkim }
listen "localhost" { filter = filter.dkim }

listen "egress" {
  tls    = "offer"
  pki    = pki["mail.example.org"]
  filter = filter.incoming
}

listen "egress" {
  tls    = "smtps"
  pki    = pki["mail.example.org"]
  auth   = "require"
  filter = [filter.rspamd, filter.dkim]
}

action "local" {
  maildir {
    junk  = true
    alias = table.aliases
  }
}

action "relay" {
  relay {}
}

match {
  from   = "any"
  for    = domain("example.org")
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
