package main

import (
	"context"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"io"
	"math/big"
	"os"
	"slices"
	"time"

	"opensmtpd/src/bench/load"
)

// runCrowd measures our server among idle connections, in clear and in TLS: what
// one costs, how soon another client is served, and what is given back when they
// have gone.
func runCrowd(ctx context.Context, args []string, out io.Writer) error {
	var c compare
	fs := c.flags("crowd")
	fs.IntVar(&c.idle, "idle", 10000, "idle connections")
	if ok, err := c.begin(fs, args, out); !ok {
		return err
	}
	defer os.RemoveAll(c.dir)
	fmt.Fprintf(out, "bench: ours among %d idle connections that have said EHLO; a new client's greeting, TLS\n"+
		"  included, and its message of %d bytes, are of the slowest of %d\n", c.idle, c.size, newcomers)
	for round := range c.rounds {
		for _, secure := range []bool{false, true} {
			f, err := c.crowd(ctx, secure)
			if err != nil {
				return err
			}
			fmt.Fprintf(out, "round %d %s\n", round+1, f)
		}
	}
	fmt.Fprintln(out, "wanted: 9 KiB each in clear, 40 in TLS; 100 ms")
	return nil
}

const (
	// newcomers is how many clients come, one after the other.
	newcomers = 50
	// calm is after how long the server has noticed that all is quiet.
	calm = 8 * time.Second
)

// crowded are what one round measures.
type crowded struct {
	how           string
	atOnce, quiet float64 // KiB for each connection
	greeted       time.Duration
	taken         time.Duration
	back          float64 // MiB more than before, when all have gone
}

func (f crowded) String() string {
	return fmt.Sprintf("%-5s %5.1f KiB each, %5.1f once it is quiet  greeting %5.1f ms  message %5.1f ms  %+5.1f MiB after they have gone",
		f.how, f.atOnce, f.quiet, f.greeted.Seconds()*1000, f.taken.Seconds()*1000, f.back)
}

func (c *compare) crowd(ctx context.Context, secure bool) (f crowded, err error) {
	port, err := freePort()
	if err != nil {
		return f, err
	}
	r, err := c.start("ours", func(dir string, clear int) (*jail, error) { return crowdJail(c.bin, dir, clear, port) })
	if err != nil {
		return f, err
	}
	dial, addr := dialer(load.Dial), r.addr
	if f.how = "clear"; secure {
		f.how, dial, addr = "TLS", load.DialTLS, fmt.Sprintf("127.0.0.1:%d", port)
	}
	if err = awaitGreeting(ctx, r.addr); err == nil {
		err = c.among(ctx, &f, dial, addr, r.cmd.Process.Pid)
	}
	if _, stopErr := r.stop(); err == nil {
		err = stopErr
	}
	if err != nil {
		err = r.failed(err)
	}
	return f, err
}

// among fills f, of the server below a process.
func (c *compare) among(ctx context.Context, f *crowded, dial dialer, addr string, root int) error {
	pause(ctx, time.Second)
	before := pss(root)
	each := func() float64 { return (pss(root) - before) * 1024 / float64(c.idle) }
	conns, err := holdIdle(ctx, dial, addr, c.idle)
	defer func() { closeAll(conns) }()
	if err != nil {
		return err
	}
	f.atOnce = each()
	pause(ctx, calm)
	f.quiet = each()
	for i := range newcomers {
		greeted, taken, err := c.newcomer(ctx, dial, addr, i)
		if err != nil {
			return err
		}
		f.greeted, f.taken = max(f.greeted, greeted), max(f.taken, taken)
	}
	closeAll(conns)
	conns = nil
	pause(ctx, calm)
	f.back = pss(root) - before
	return nil
}

// newcomer returns how long a client waits for the greeting and, from then on, for
// the end of a message.
func (c *compare) newcomer(ctx context.Context, dial dialer, addr string, i int) (greeted, taken time.Duration, err error) {
	began := time.Now()
	conn, err := dial(ctx, addr, 30*time.Second)
	if err != nil {
		return 0, 0, err
	}
	defer conn.Close()
	greeted = time.Since(began)
	if err := conn.Hello("newcomer.localhost"); err != nil {
		return 0, 0, err
	}
	text := "Subject: new here\r\n\r\n" + string(slices.Repeat([]byte("x\r\n"), c.size/3))
	rcpts := recipients()
	err = conn.Send("bench@localhost", rcpts[i%len(rcpts):][:1], text, true)
	return greeted, time.Since(began) - greeted, err
}

// crowdJail is our server with a listener in clear and one of SMTPS, whose
// certificate is of the kind that most have.
func crowdJail(bin, dir string, port, smtps int) (*jail, error) {
	cert, key, err := certificate()
	if err != nil {
		return nil, err
	}
	const files = "/etc/mail/certs/bench"
	j, err := ours(bin, dir, port, localConf+fmt.Sprintf("pki bench.localhost cert %q key %q\nlisten on 127.0.0.1 port %d smtps pki bench.localhost\n",
		files+".crt", files+".key", smtps))
	if err != nil {
		return nil, err
	}
	j.Files[files+".crt"], j.Files[files+".key"] = cert, key
	j.Prepare = append(j.Prepare, "chmod 600 "+files+".key")
	return j, nil
}

func certificate() (cert, key string, err error) {
	k, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		return "", "", err
	}
	tmpl := &x509.Certificate{SerialNumber: big.NewInt(1), DNSNames: []string{"bench.localhost"}, NotAfter: time.Now().Add(24 * time.Hour)}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, tmpl, k.Public(), k)
	if err != nil {
		return "", "", err
	}
	block := func(kind string, b []byte) string {
		return string(pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: b}))
	}
	return block("CERTIFICATE", der), block("RSA PRIVATE KEY", x509.MarshalPKCS1PrivateKey(k)), nil
}
