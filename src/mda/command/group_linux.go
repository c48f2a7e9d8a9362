package command

import "syscall"

// ownGroup gives a command a session and process group, and lets it die with
// the agent: whoever delivers the message again would run it twice. (The signal
// is for the end of the starting thread; Go keeps its threads.)
func ownGroup() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Setsid: true, Pdeathsig: syscall.SIGKILL}
}
