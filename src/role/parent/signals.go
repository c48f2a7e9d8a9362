package parent

import (
	"os"
	"os/signal"
	"syscall"
)

// signals are those that parent acts on.
type signals struct {
	hangup, terminate chan os.Signal
}

// watch begins to catch signals, before anything could be lost by one. Writing
// to a closed stderr must not kill the daemon.
func watch() signals {
	s := signals{make(chan os.Signal, 1), make(chan os.Signal, 2)}
	signal.Notify(s.hangup, syscall.SIGHUP)
	signal.Notify(s.terminate, syscall.SIGTERM, syscall.SIGINT)
	signal.Ignore(syscall.SIGPIPE)
	return s
}

func (s signals) stop() {
	signal.Stop(s.hangup)
	signal.Stop(s.terminate)
}
