package project

import (
	"time"

	"opensmtpd/src/conf"
)

// QueueConf is what the process that keeps and schedules mail must know.
type QueueConf struct {
	ServerName  string
	TTL         time.Duration   // default life of an envelope
	BounceWarn  []time.Duration // ages at which the sender is told of a delay
	Compression bool
	Encryption  bool
	// EncryptionKey is only here. It is "stdin" when parent reads it, or asks
	// for it, and gives it beside the projection.
	EncryptionKey  string
	MaxMessageSize int64 // bytes

	MDA       MDALimits
	Scheduler SchedulerLimits
	MTA       []MTALimits // holds per destination; the first has Domain ""
	// MTAMaxDeferred is how many envelopes of a destination out of reach are
	// tried at once when it is back.
	MTAMaxDeferred int

	Actions []QueueAction
}

// MDALimits bound local delivery.
type MDALimits struct {
	MaxSession        int
	MaxSessionPerUser int
	TaskHiwat         int
	TaskLowat         int
	TaskRelease       int
}

// SchedulerLimits bound what is in flight.
type SchedulerLimits struct {
	MaxInflight     int
	MaxEvpBatchSize int
	MaxMsgBatchSize int
	MaxSchedule     int
}

// QueueAction is an action as queue needs it. The command of an mda is not
// here: parent takes it from its own configuration.
type QueueAction struct {
	Name     string
	Method   conf.Method
	TTL      time.Duration // never zero
	User     string
	UserBase string // table, or "": system users
	Path     string // of maildir, with format specifiers; "" is ~/Maildir
	Junk     bool
	LMTPDest string
	RcptTo   bool
	Wrapper  string
	// RelayHost is the host to which all mail of a relay action goes, and
	// RelayTable tells that a table names it, the same for all domains: mail of
	// such an action is one destination.
	RelayHost  string `json:",omitempty"`
	RelayTable bool   `json:",omitempty"`
}

// ControlConf is what the process behind the control socket must know.
type ControlConf struct {
	ServerName string
	// Tables are those that `smtpctl update table` may name.
	Tables []string
}

// CryptoConf tells crypto which keys it has. The key files themselves come as
// descriptors.
type CryptoConf struct {
	Keys []Key
}

// Key is one private key.
type Key struct {
	PKI      string
	Identity string
	Cert     string // identity of the certificate's file, to hold the key against
	Place    string // of the key in the configuration file
}
