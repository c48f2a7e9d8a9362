package parent

import "opensmtpd/src/privsep/proc"

// stages is how many steps the stop has; see role.stage.
const stages = 3

// role is a row of the topology.
type role struct {
	role proc.Role
	// stage tells when the role is asked to end: those that take mail in
	// first, then the one that keeps it, then those that only answer.
	stage int
	// resources are those of package msg that the role cannot do without.
	dns, certs, users bool
}

// topology lists the processes below parent.
func topology() []role {
	return []role{
		{role: proc.Crypto, stage: 2},
		{role: proc.Control, stage: 0, users: true},
		{role: proc.Lookup, stage: 2, dns: true},
		{role: proc.Dispatcher, stage: 0, dns: true, certs: true, users: true},
		{role: proc.Queue, stage: 1},
	}
}

// links lists who talks to whom; parent talks to all.
func links() [][2]proc.Role {
	return [][2]proc.Role{
		{proc.Control, proc.Crypto},
		{proc.Control, proc.Lookup},
		{proc.Control, proc.Dispatcher},
		{proc.Control, proc.Queue},
		{proc.Dispatcher, proc.Crypto},
		{proc.Dispatcher, proc.Lookup},
		{proc.Dispatcher, proc.Queue},
		{proc.Lookup, proc.Queue},
	}
}
