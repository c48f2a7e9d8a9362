package conf

import "slices"

// The limits that can be set and their defaults, in the order of the manual.
// These tables are never written.
var (
	mdaLimits = []Limit{
		{Key: "max-session", Value: 50}, {Key: "max-session-per-user", Value: 7},
		{Key: "task-hiwat", Value: 50}, {Key: "task-lowat", Value: 30}, {Key: "task-release", Value: 10},
	}
	schedulerLimits = []Limit{
		{Key: "max-inflight", Value: 5000}, {Key: "max-evp-batch-size", Value: 256},
		{Key: "max-msg-batch-size", Value: 1024}, {Key: "max-schedule", Value: 10},
	}
	// Of these the last two are ours alone; zero is as many as there can be.
	smtpLimits = []Limit{
		{Key: "max-mails", Value: 100}, {Key: "max-rcpt", Value: 1000},
		{Key: "max-session"}, {Key: "max-session-per-address", Value: 1000},
	}
	mtaLimits = []Limit{
		{Key: "max-conn-per-host", Value: 10}, {Key: "max-conn-per-route", Value: 5},
		{Key: "max-conn-per-source", Value: 100}, {Key: "max-conn-per-connector", Value: 20},
		{Key: "max-conn-per-relay", Value: 100}, {Key: "max-conn-per-domain", Value: 100},
		{Key: "conn-delay-host"}, {Key: "conn-delay-route", Value: 5}, {Key: "conn-delay-source"},
		{Key: "conn-delay-connector"}, {Key: "conn-delay-relay", Value: 2}, {Key: "conn-delay-domain"},
		{Key: "reconn-delay-route", Value: 3},
		{Key: "session-mail-max", Value: 100}, {Key: "session-transaction-delay"},
		{Key: "session-keepalive", Value: 10}, {Key: "max-failures-per-session", Value: 25},
		{Key: "task-hiwat", Value: 50}, {Key: "task-lowat", Value: 30}, {Key: "task-release", Value: 10},
	}
)

// MDALimits, SchedulerLimits, SMTPLimits and MTALimits return the known limits
// with their defaults; delays are in seconds.
func MDALimits() []Limit       { return slices.Clone(mdaLimits) }
func SchedulerLimits() []Limit { return slices.Clone(schedulerLimits) }
func SMTPLimits() []Limit      { return slices.Clone(smtpLimits) }
func MTALimits() []Limit       { return slices.Clone(mtaLimits) }

// Keys returns the names of limits.
func Keys(limits []Limit) []string {
	out := make([]string, len(limits))
	for i, l := range limits {
		out[i] = l.Key
	}
	return out
}
