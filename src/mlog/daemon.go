package mlog

import (
	"fmt"
	"time"
)

// The lines of parent and of what every process has in common.

// Starting tells that the daemon begins.
func (l *Logger) Starting(name, version string) { l.Infof("info: %s %s starting", name, version) }

// Exiting tells that the daemon ends because it was asked to.
func (l *Logger) Exiting() { l.Infof("Exiting") }

// ProcessExiting tells that one process ends, with the process's title.
func (l *Logger) ProcessExiting(role string) { l.Debugf("debug: %s: exiting", role) }

// LostProcess tells that a role died, and how; the daemon stops.
func (l *Logger) LostProcess(role, how string) {
	l.Fatalf("fatal: smtpd: lost child: %s %s", role, how)
}

// ProcessSaid passes on what a process wrote to stderr: a crash, as a rule.
func (l *Logger) ProcessSaid(role, line string) { l.Warnf("warn: %s: %s", role, line) }

// ProgramSaid passes on what a filter or table program writes to stderr.
func (l *Logger) ProgramSaid(name, line string) { l.Warnf("%s: %s", name, line) }

// ProgramDied tells that such a program has ended, though it must not.
func (l *Logger) ProgramDied(name, how string, again time.Duration) {
	l.Warnf("warn: %s: program ended: %s; started again in %v", name, how, again)
}

// ProgramFailed tells that such a program could not be started again.
func (l *Logger) ProgramFailed(name string, err error, again time.Duration) {
	l.Warnf("warn: %s: program not started: %v; tried again in %v", name, err, again)
}

// ProgramStarted tells that such a program runs again.
func (l *Logger) ProgramStarted(name string) { l.Infof("info: %s: program started again", name) }

// Confined tells which layers confine a process, and which the system lacks.
func (l *Logger) Confined(role string, layers, missing []string) {
	line := fmt.Sprintf("debug: %s: confined by %v", role, layers)
	if len(missing) > 0 {
		line += fmt.Sprintf(", missing %v", missing)
	}
	l.Debugf("%s", line)
}

// NotConfined tells that the system confines a process by nothing but its user.
func (l *Logger) NotConfined(role string) {
	l.Warnf("warn: %s: this system confines the process neither by Landlock nor by seccomp nor otherwise", role)
}

// NothingDropped tells that the daemon runs as root and stays so.
func (l *Logger) NothingDropped(dir string) {
	l.Warnf("warn: %s belongs to root: no privileges are dropped, and only loopback is served", dir)
}

// Reloaded tells that a new configuration is in force.
func (l *Logger) Reloaded(gen uint32) { l.Infof("info: configuration reloaded, generation %d", gen) }

// ReloadFailed tells why a new configuration was not taken.
func (l *Logger) ReloadFailed(err error) {
	l.Warnf("warn: configuration not reloaded, nothing has changed: %v", err)
}

// CertsRenewed tells that changed files of certificates are in use, and
// CertsNotRenewed why they are not.
func (l *Logger) CertsRenewed() { l.Infof("info: certificates renewed") }

func (l *Logger) CertsNotRenewed(err error) {
	l.Warnf("warn: certificates not renewed, the old ones stay: %v", err)
}

// OtherBuild tells that the program's file was replaced while it runs.
func (l *Logger) OtherBuild(title string) {
	l.Warnf("warn: %s: the installed smtpd is not the one that runs: a restart is needed", title)
}

// PeerBroken tells why a connection between two processes ended.
func (l *Logger) PeerBroken(self, other string, err error) {
	l.Warnf("warn: %s: connection to %s: %v", self, other, err)
}

// NotForUs tells that a process sent what it has no business to send.
func (l *Logger) NotForUs(self, other string, message uint16) {
	l.Warnf("warn: %s: message %d from %s is not for us", self, message, other)
}

// RequestFailed tells why a one-way message of another process was dropped.
func (l *Logger) RequestFailed(self, other string, message uint16, err error) {
	l.Warnf("warn: %s: message %d from %s: %v", self, message, other, err)
}
