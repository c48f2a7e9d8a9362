# Two accounts at two providers: who the mail is from decides the way it takes.

table "secrets" { source = "file:/etc/mail/secrets" }

listen "localhost" {}

action "local" {
  maildir {}
}

action "work" {
  relay {
    host = "smtps://work@smtp.example.com"
    auth = table.secrets
  }
}

action "home" {
  relay {
    host      = "smtp+tls://home@mail.example.net:587"
    auth      = table.secrets
    mail-from = "me@example.net"
  }
}

match {
  from   = "local"
  for    = "local"
  action = action.local
}

match {
  from      = "local"
  for       = "any"
  mail-from = "@example.com"
  action    = action.work
}

match {
  from   = "local"
  for    = "any"
  action = action.home
}
