package ctl

// RouteRow is one line of "smtpctl show routes" (msg.VerbShowRoutes): a way from
// one of our addresses to a server.
type RouteRow struct {
	ID       uint64 `json:"id"` // what "resume route" takes
	Source   string `json:"source"`
	Host     string `json:"host"`
	New      bool   `json:"new"` // no session has been ready yet
	Disabled bool   `json:"disabled"`
	Conns    int    `json:"nconn"`
	Window   int    `json:"window"` // connections that the server seems to bear
	Penalty  int    `json:"penalty"`
	Timeout  int64  `json:"timeout"` // seconds until it is used again, 0: it is in use
}

// HostRow is one line of "smtpctl show hosts" (msg.VerbShowHosts).
type HostRow struct {
	Address  string `json:"address"`
	Name     string `json:"name"` // by DNS, "" when it is not known
	Refs     int    `json:"refcount"`
	Conns    int    `json:"nconn"`
	LastConn int64  `json:"lastconn"` // seconds ago, -1: never
}

// RelayRow is one line of "smtpctl show relays" (msg.VerbShowRelays), a
// destination under an action, or, with Connector, one of the addresses from
// which it is served.
type RelayRow struct {
	Relay     string `json:"relay"`
	Connector string `json:"connector,omitempty"`
	Tasks     int    `json:"ntask"`
	Conns     int    `json:"nconn"`
	LastConn  int64  `json:"lastconn"`       // seconds ago, -1: never
	Timeout   int64  `json:"timeout"`        // seconds until connections are tried again, 0: nothing is waited for
	Wait      string `json:"wait,omitempty"` // what it waits for, or what is wrong with a connector
	Refs      int    `json:"refcount"`
}

// GreyRow is one line of "smtpctl show greylist" (msg.VerbShowGreylist).
type GreyRow struct {
	State  string `json:"state"` // "white": it passes; "grey": it is to come again
	Net    string `json:"net"`
	Name   string `json:"name,omitempty"` // of the client, by DNS
	Sender string `json:"sender"`         // grey
	Rcpt   string `json:"rcpt,omitempty"` // grey
	First  int64  `json:"first"`          // Unix seconds, as the following
	Ready  int64  `json:"ready,omitempty"`
	Until  int64  `json:"until"` // 0: for ever
}

// What was done about a network of a PassRow.
const (
	PassAdded   = "added"
	PassCovered = "covered" // nothing: it passes already
	PassRemoved = "removed"
)

// PassRow tells what "smtpctl whitelist" (msg.VerbWhitelist) or "unwhitelist" has
// done about a network.
type PassRow struct {
	Net     string `json:"net"`
	Done    string `json:"done"`
	By      string `json:"by,omitempty"`      // covered: the network by which it passes
	Entered bool   `json:"entered,omitempty"` // removed: an operator had entered it
}

// HoststatRow is one line of "smtpctl show hoststats" (msg.VerbShowHoststats).
type HoststatRow struct {
	Domain string `json:"domain"`
	When   int64  `json:"when"` // Unix seconds
	Status string `json:"status"`
}
