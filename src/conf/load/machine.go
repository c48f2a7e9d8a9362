package load

import (
	"context"
	"errors"
	"io/fs"
	"net"
	"net/netip"
	"os"
	"os/user"
	"runtime"
	"strings"
	"time"

	"opensmtpd/src/conf/check"
	"opensmtpd/src/paths"
	"opensmtpd/src/safefile"
)

// Machine is what a configuration asks of the machine that it is loaded on. All
// functions must be set but those that say otherwise.
type Machine struct {
	// ReadFile returns a whole file: the configuration, what it includes, the
	// mailname file.
	ReadFile func(name string) ([]byte, error)
	// Open opens a table file to look at its first lines; what is no file is refused.
	Open func(name string) (fs.File, error)
	Stat func(name string) (fs.FileInfo, error)
	// Owner returns who owns a file, false when the system does not tell.
	Owner func(fs.FileInfo) (uid uint32, ok bool)
	UID   uint32 // we run as

	Hostname func() (string, error)
	// Canonical returns the canonical name of a host.
	Canonical func(ctx context.Context, name string) (string, error)
	LookupIP  func(ctx context.Context, name string) ([]netip.Addr, error)
	// LookupPort returns the port of a TCP service.
	LookupPort func(ctx context.Context, service string) (int, error)
	Interfaces func() ([]Interface, error)
	// Egress returns the names of the interfaces that default routes point to.
	Egress func() ([]string, error)
	// DriverGroups tells that interfaces are in the group of their driver, as
	// on BSD.
	DriverGroups bool
	// CheckMap tells what is wrong with the file of a db table; nil: not asked.
	CheckMap func(name string) error
	// CheckCert tells what is wrong with a file of certificates, and what there is
	// to know of them besides; nil: not asked.
	CheckCert func(name string) (warning string, err error)
	// CheckPair tells what is wrong with a certificate and its key, by their
	// files; nil: not asked.
	CheckPair func(cert, key string) error
	// UserExists tells whether the system knows the user; nil: not asked.
	UserExists func(name string) (bool, error)

	MailName string   // path of the file with the server name
	LibExecs []string // directories of table programs
	Values   check.Values
}

// Interface is a network interface with its addresses; those of IPv6 link-local
// scope have the zone.
type Interface struct {
	Name     string
	Loopback bool
	Addrs    []netip.Addr
}

// System returns the machine that we run on.
func System() Machine {
	return Machine{
		ReadFile:     os.ReadFile,
		Open:         func(name string) (fs.File, error) { return safefile.Open(name) },
		Stat:         os.Stat,
		Owner:        owner,
		UID:          uint32(os.Geteuid()),
		Hostname:     os.Hostname,
		Canonical:    canonical,
		LookupIP:     lookupIP,
		LookupPort:   func(ctx context.Context, s string) (int, error) { return net.DefaultResolver.LookupPort(ctx, "tcp", s) },
		Interfaces:   interfaces,
		Egress:       egress,
		DriverGroups: runtime.GOOS != "linux",
		UserExists:   userExists,
		MailName:     "/etc/mail/mailname",
		LibExecs:     libExecs(),
	}
}

func libExecs() []string {
	exe, err := os.Executable()
	if err != nil {
		exe = "/usr/sbin/smtpd"
	}
	return paths.LibExecs(exe)
}

// canonicalWait bounds the look for the host's own name: a machine whose name
// servers are silent must start all the same.
const canonicalWait = 2 * time.Second

func canonical(ctx context.Context, name string) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, canonicalWait)
	defer cancel()
	cname, err := net.DefaultResolver.LookupCNAME(ctx, name)
	return strings.TrimSuffix(cname, "."), err
}

func lookupIP(ctx context.Context, name string) ([]netip.Addr, error) {
	list, err := net.DefaultResolver.LookupNetIP(ctx, "ip", name)
	for i := range list {
		list[i] = list[i].Unmap()
	}
	return list, err
}

func userExists(name string) (bool, error) {
	_, err := user.Lookup(name)
	var unknown user.UnknownUserError
	if errors.As(err, &unknown) {
		return false, nil
	}
	return err == nil, err
}

func interfaces() ([]Interface, error) {
	list, err := net.Interfaces()
	if err != nil {
		return nil, err
	}
	var out []Interface
	for _, n := range list {
		addrs, err := n.Addrs()
		if err != nil {
			return nil, err
		}
		i := Interface{Name: n.Name, Loopback: n.Flags&net.FlagLoopback != 0}
		for _, a := range addrs {
			p, ok := a.(*net.IPNet)
			if !ok {
				continue
			}
			if ip, ok := netip.AddrFromSlice(p.IP); ok {
				ip = ip.Unmap()
				if ip.Is6() && ip.IsLinkLocalUnicast() {
					ip = ip.WithZone(n.Name)
				}
				i.Addrs = append(i.Addrs, ip)
			}
		}
		out = append(out, i)
	}
	return out, nil
}
