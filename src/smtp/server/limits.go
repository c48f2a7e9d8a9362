package server

import "time"

// Limits of the protocol. Each is here with its reason; those that an
// administrator sets are in Settings.
const (
	// MaxCommand is the longest command line, line end included. RFC 5321
	// section 4.5.3.1.4 asks for 512 and extensions add to it (DSN 500, long
	// addresses); OpenSMTPD takes 2,048. A longer one is answered 500 and
	// skipped.
	MaxCommand = 4096
	// MaxAuth is the same for AUTH and what follows it (RFC 4954 section 4.3).
	MaxAuth = 12288
	// MaxLine is the longest line of a message, without its end, and how much
	// of a command line is skipped in the hope of a newline. RFC 5321 section
	// 4.5.3.1.6 asks for 1,000; real mail has far longer ones.
	MaxLine = 65535
	// idleTime is how long a client may take for a command, and for each step
	// of a body (RFC 5321 section 4.5.3.2.7: at least 5 minutes).
	idleTime = 300 * time.Second
	// handshakeTime is how long a client may take for a TLS handshake, all in
	// all: two answers of a machine, not of a man.
	handshakeTime = 60 * time.Second
	// proxyTime is how long a proxy may take for its header, which it sends as
	// soon as it has connected.
	proxyTime = 10 * time.Second
	// progress is how many bytes of a body renew its time: a client that drips
	// does not hold a session for ever.
	progress = 1024
	// lingerTime and lingerSize bound how long we listen to a client that we
	// have hung up on, so that it reads why instead of a reset connection.
	lingerTime = 5 * time.Second
	lingerSize = 256 << 20
	// drainSize bounds what is read, without waiting for more, before a
	// connection is closed after a last reply.
	drainSize = 1 << 20
	// After slowAfter errors every further one is answered errorPause later,
	// after maxErrors the session ends. A message that is accepted forgives
	// them. Recipients that do not exist count apart, for lists have many.
	slowAfter  = 10
	maxErrors  = 20
	maxUnknown = 200
	errorPause = 500 * time.Millisecond
	// sweepEvery is how exact the above times are kept.
	sweepEvery = time.Second
	// After quietSweeps in which no session did anything, and much had been
	// done before, the memory that it took is given back: the stacks that
	// commands grew, and what sessions that are gone have left.
	quietSweeps = 3
	much        = 256 // sessions at work, summed over the sweeps, or ended
	// smallBody is what the buffer of a body begins with: most messages fit.
	// largeBody is the most that travels with the commit; what is larger is
	// handed on in pieces of that size.
	smallBody = 16 << 10
	largeBody = 64 << 10
	// largeBuffer holds such a piece and the longest line besides.
	largeBuffer = largeBody + inSize
	// gain is how much longer than max-message-size a message may become by
	// what we add to its header.
	gain = 256 << 10
)

// Settings are what smtpd.conf(5) limits, of one generation.
type Settings struct {
	MaxMails int   // messages of a session
	MaxRcpt  int   // recipients of a message
	MaxSize  int64 // bytes of a message, lines ended by one byte
}
