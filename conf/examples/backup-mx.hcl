# A second MX: it takes the mail of a domain while the first is away, knows
# which recipients exist there, and keeps what it took for up to ten days.

table "recipients" { source = "file:/etc/mail/recipients" }

bounce {
  warn-interval = ["1d", "4d"]
}

listen "egress" {}

action "hold" {
  relay {
    backup = true
    mx     = "mx2.example.org"
    ttl    = "10d"
  }
}

action "local" {
  maildir {}
}

action "relay" {
  relay {}
}

match {
  from    = "any"
  for     = domain("example.org")
  rcpt-to = table.recipients
  action  = action.hold
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
