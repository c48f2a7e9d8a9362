# A machine that hands everything for the outside to its provider.
#
# /etc/mail/secrets holds one line, "provider user:password"; nobody but root
# and _smtpd may read it.

table "aliases" { source = "file:/etc/mail/aliases" }
table "secrets" { source = "file:/etc/mail/secrets" }

listen "localhost" {}

action "local" {
  maildir {
    alias = table.aliases
  }
}

action "provider" {
  relay {
    host = "smtp+tls://provider@smtp.example.com:587"
    auth = table.secrets
  }
}

match {
  from   = "local"
  for    = "local"
  action = action.local
}

match {
  from   = "local"
  for    = "any"
  action = action.provider
}
