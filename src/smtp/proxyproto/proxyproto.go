// Package proxyproto reads the header that a proxy puts before a connection to
// say whose it is: version 2 of the PROXY protocol, as HAProxy documents it.
//
//	header  = signature version+command family length addresses *tlv
//	command = LOCAL | PROXY
//	family  = TCP4 | TCP6          (with LOCAL any: what follows is skipped)
//
// Whoever sends a header can claim to be anybody, so that a listener must want
// it or not look at it; version 1, which is text, is refused.
package proxyproto

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"net"
	"net/netip"

	"github.com/pires/go-proxyproto"
)

const (
	// prefix is the part whose length is always the same.
	prefix = 16
	// MaxSize is the longest header, in bytes. The protocol allows 65,551; what
	// makes one long is a client's certificate, and 4 KiB hold that.
	MaxSize = prefix + 4096
)

// Why there is no header yet, or none that is any good.
var (
	ErrShort  = errors.New("the header has not come whole")
	ErrNone   = errors.New("no PROXY header of version 2")
	ErrLong   = errors.New("PROXY header too long")
	ErrFamily = errors.New("PROXY header for something that is not TCP")
)

// Header is what a proxy says of a connection.
type Header struct {
	// Local tells that the connection is the proxy's own, made to see whether
	// we live; there are no addresses then.
	Local bool
	// Client and Server are the ends of the connection that the proxy took.
	Client, Server netip.AddrPort
}

// Parse reads the header at the head of b and returns how many bytes it takes;
// what follows them is the client's. With ErrShort more bytes are needed. The
// first byte that no header has in its place is an error at once.
func Parse(b []byte) (Header, int, error) {
	n := min(len(b), len(proxyproto.SIGV2))
	switch {
	case !bytes.Equal(b[:n], proxyproto.SIGV2[:n]):
		return Header{}, 0, ErrNone
	case len(b) < prefix:
		return Header{}, 0, ErrShort
	}
	size := prefix + int(b[prefix-2])<<8 + int(b[prefix-1])
	switch {
	case size > MaxSize:
		return Header{}, 0, ErrLong
	case len(b) < size:
		return Header{}, 0, ErrShort
	}
	h, err := parse(b[:size])
	return h, size, err
}

// parse reads a header that has come whole.
func parse(b []byte) (Header, error) {
	got, err := proxyproto.Read(bufio.NewReader(bytes.NewReader(b)))
	if err != nil {
		return Header{}, fmt.Errorf("PROXY header: %w", err)
	}
	if got.Command == proxyproto.LOCAL {
		return Header{Local: true}, nil
	}
	client, server, ok := got.TCPAddrs()
	if !ok {
		return Header{}, ErrFamily
	}
	return Header{Client: addrPort(client), Server: addrPort(server)}, nil
}

// addrPort is a as the rest of the program has addresses: IPv4 in IPv6 is IPv4.
func addrPort(a *net.TCPAddr) netip.AddrPort {
	p := a.AddrPort()
	return netip.AddrPortFrom(p.Addr().Unmap(), p.Port())
}
