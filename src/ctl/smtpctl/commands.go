package smtpctl

import (
	"net/netip"
	"strings"

	"opensmtpd/src/ctl"
	"opensmtpd/src/privsep/msg"
)

// command is a row of the table of what smtpctl(8) can do.
type command struct {
	words []string
	// verb is what control is asked, with the arguments in fixed or else those
	// of the command line. A command without one runs here alone.
	verb  msg.Verb
	fixed []string
	run   func(*session, *command, []string) error
}

func cmd(pattern string, verb msg.Verb, run func(*session, *command, []string) error, fixed ...string) command {
	return command{strings.Fields(pattern), verb, fixed, run}
}

// commands is in the order in which possibilities are listed. The commands about
// relaying join it with relaying.
func commands() []command {
	return []command{
		cmd("discover <evpid>", msg.VerbDiscover, discover),
		cmd("discover <msgid>", msg.VerbDiscover, discover),
		cmd("explain <words>", msg.VerbExplain, explain),
		cmd("log brief", msg.VerbVerbose, result, "0"),
		cmd("log verbose", msg.VerbVerbose, result, "1"),
		cmd("monitor", ctl.VerbDigest, monitor),
		cmd("pause envelope <evpid>", msg.VerbPauseEnvelope, counted("paused")),
		cmd("pause envelope <msgid>", msg.VerbPauseEnvelope, counted("paused")),
		cmd("pause envelope all", msg.VerbPauseEnvelope, counted("paused"), "all"),
		cmd("pause mda", msg.VerbPauseMDA, result),
		cmd("pause mta", msg.VerbPauseMTA, result),
		cmd("pause smtp", msg.VerbPauseSMTP, result),
		cmd("profile <str>", msg.VerbProfile, keyword("profile", ctl.Profiles())),
		cmd("reload", msg.VerbReload, result),
		cmd("remove <evpid>", msg.VerbRemove, counted("removed")),
		cmd("remove <msgid>", msg.VerbRemove, counted("removed")),
		cmd("remove all", msg.VerbRemove, counted("removed"), "all"),
		cmd("resume envelope <evpid>", msg.VerbResumeEnvelope, counted("resumed")),
		cmd("resume envelope <msgid>", msg.VerbResumeEnvelope, counted("resumed")),
		cmd("resume envelope all", msg.VerbResumeEnvelope, counted("resumed"), "all"),
		cmd("resume mda", msg.VerbResumeMDA, result),
		cmd("resume mta", msg.VerbResumeMTA, result),
		cmd("resume route <routeid>", msg.VerbResumeRoute, result),
		cmd("resume route all", msg.VerbResumeRoute, result, "all"),
		cmd("resume smtp", msg.VerbResumeSMTP, result),
		cmd("schedule <msgid>", msg.VerbSchedule, counted("scheduled")),
		cmd("schedule <evpid>", msg.VerbSchedule, counted("scheduled")),
		cmd("schedule all", msg.VerbSchedule, counted("scheduled"), "all"),
		cmd("show envelope <evpid>", msg.VerbEnvelope, showRaw),
		cmd("show greylist", msg.VerbShowGreylist, lines(greyLine)),
		cmd("show hosts", msg.VerbShowHosts, lines(hostLine)),
		cmd("show hoststats", msg.VerbShowHoststats, lines(hoststatLine)),
		cmd("show message <msgid>", msg.VerbMessage, showRaw),
		cmd("show message <evpid>", msg.VerbMessage, showMessageOf),
		cmd("show queue", msg.VerbList, showQueue),
		cmd("show queue <msgid>", msg.VerbList, showQueue),
		cmd("show relays", msg.VerbShowRelays, lines(relayLine)),
		cmd("show routes", msg.VerbShowRoutes, lines(routeLine)),
		cmd("show stats", ctl.VerbStats, showStats),
		cmd("show status", ctl.VerbStatus, showStatus),
		cmd("spf walk", "", spfWalk(nil)),
		cmd("spf walk -4", "", spfWalk(netip.Addr.Is4)),
		cmd("spf walk -6", "", spfWalk(netip.Addr.Is6)),
		cmd("trace <str>", msg.VerbTrace, keyword("trace", ctl.Traces())),
		cmd("unprofile <str>", msg.VerbUnprofile, keyword("profile", ctl.Profiles())),
		cmd("untrace <str>", msg.VerbUntrace, keyword("trace", ctl.Traces())),
		cmd("unwhitelist <str>", msg.VerbUnwhitelist, lines(passLine)),
		cmd("update table <str>", msg.VerbUpdateTable, result),
		cmd("whitelist <str>", msg.VerbWhitelist, lines(passLine)),
		cmd("encrypt", "", encrypt),
		cmd("encrypt -s <str>", "", encryptAs),
		cmd("encrypt -s <str> <str>", "", encryptAs),
		cmd("encrypt <str>", "", encrypt),
	}
}
