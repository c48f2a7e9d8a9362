package mlog

// Paused and Resumed tell that the administrator stopped, or let go on, one of
// "mda", "mta" and "smtp".
func (l *Logger) Paused(what string)  { l.Infof("info: %s paused", what) }
func (l *Logger) Resumed(what string) { l.Infof("info: %s resumed", what) }

// ControlLimit tells that a user has too many connections to the control socket.
func (l *Logger) ControlLimit(uid uint32) {
	l.Warnf("warn: too many connections to control socket from user with uid %d", uid)
}

// ControlPeer tells why a connection to the control socket was ended early.
func (l *Logger) ControlPeer(uid uint32, err error) {
	l.Debugf("debug: control: closing connection of uid %d: %v", uid, err)
}

// ControlAccept tells that the control socket cannot accept for now.
func (l *Logger) ControlAccept(err error) {
	l.Warnf("warn: control: accept: %v", err)
}
