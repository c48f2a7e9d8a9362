package proc

import (
	"errors"
	"fmt"
	"net"
	"os"
	"os/signal"
	"strconv"
	"syscall"
	"time"

	"opensmtpd/src/privsep/imsg"
	"opensmtpd/src/privsep/msg"
	"opensmtpd/src/version"
)

// Exit statuses of a process, sysexits(3).
const (
	ExitOK       = 0
	ExitFailure  = 1
	ExitTempFail = 75 // of another build than its parent
)

// ErrOtherBuild tells that parent and child are not of one build: the program
// was replaced while the daemon runs, and the daemon must be restarted.
var ErrOtherBuild = errors.New("smtpd was replaced by another build: a restart is needed")

// Birth is a re-executed process that knows who it is to be, and nothing else
// yet.
type Birth struct {
	Hello msg.Hello
	conn  *imsg.Conn
	call  uint64 // of the Hello; 0 when no answer is wanted
}

// Born reads the Hello. The error is ErrOtherBuild for a parent of another
// build, who is told so.
func Born() (*Birth, error) {
	nameProcess()
	fd := helloFD
	if n, err := strconv.Atoi(os.Getenv(helloEnv)); err == nil {
		fd = n
		os.Unsetenv(helloEnv)
	}
	f, err := imsg.Inherited(fd)
	if err != nil {
		return nil, fmt.Errorf("this name is for processes that smtpd starts itself: %w", err)
	}
	conn, err := imsg.NewConn(f)
	if err != nil {
		return nil, err
	}
	b, err := born(conn)
	if err != nil {
		conn.Close()
	}
	return b, err
}

func born(conn *imsg.Conn) (*Birth, error) {
	f, err := conn.Next()
	if err != nil {
		return nil, fmt.Errorf("hello: %w", err)
	}
	closeFile(f.File)
	b := &Birth{conn: conn, call: f.Call}
	if f.Type != uint16(msg.TypeHello) {
		return nil, fmt.Errorf("hello: message %d came instead", f.Type)
	}
	if err := b.Hello.Parse(f.Body); err != nil {
		// The layout of Hello may be what differs.
		err = errors.Join(ErrOtherBuild, err)
		b.answer()
		return nil, err
	}
	b.answer()
	if b.Hello.Build != version.ID() {
		return nil, ErrOtherBuild
	}
	return b, nil
}

func (b *Birth) answer() {
	if b.call == 0 {
		return
	}
	h := imsg.Header{Type: uint16(msg.TypeHello), Flags: imsg.FlagReply, Call: b.call}
	b.conn.Put(h, &msg.Hello{Build: version.ID()}, nil)
	b.conn.WaitBelow(0)
}

// Role is who the process is to be.
func (b *Birth) Role() Role { return Role(b.Hello.Role) }

// Close ends the connection of a process that needs no more than its Hello.
func (b *Birth) Close() { b.conn.Close() }

// Passed returns the n-th descriptor, from 0, that came along behind the Hello:
// a socket.
func Passed(n int) (*os.File, error) { return imsg.Inherited(helloFD + 1 + n) }

// PassedFile is Passed for a descriptor of any kind.
func PassedFile(n int) *os.File {
	fd := helloFD + 1 + n
	syscall.CloseOnExec(fd)
	return os.NewFile(uintptr(fd), "passed")
}

// whileFree does what cannot be done any more in a chroot without system calls
// for it.
func whileFree() {
	// The zone is read at its first use; in a chroot that silently gives UTC.
	_, _ = time.Now().Zone()
	// So does package net find out, by trying, which families there are.
	if c, err := net.ListenPacket("udp", ":0"); err == nil {
		c.Close()
	}
	// Signals are parent's business: a service manager sends them to all.
	signal.Ignore(syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP, syscall.SIGPIPE)
}
