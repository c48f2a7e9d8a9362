# Mail to some addresses starts programs; a wrapper limits what they may use.

table "aliases" { source = "file:/etc/mail/aliases" }
table "lists" { map = { "@lists.example.org" = "mlm" } }

mda {
  limit {
    max-session = 20
  }
}

wrapper "careful" { command = "/usr/bin/nice -n 10 %%{mda}" }

listen "localhost" {}
listen "egress" {}

action "local" {
  maildir {
    alias = table.aliases
  }
}

action "lists" {
  mda {
    command = "/usr/local/bin/mlm-receive"
    virtual = table.lists
    user    = "mlm"
    wrapper = wrapper.careful
  }
}

action "relay" {
  relay {}
}

match {
  from   = "any"
  for    = domain("lists.example.org")
  action = action.lists
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
