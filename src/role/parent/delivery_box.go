package parent

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"opensmtpd/src/mailerr"
	"opensmtpd/src/privsep/msg"
)

const (
	// A lock file is tried this often; mail readers hold it for moments.
	boxTries = 60
	boxPause = 500 * time.Millisecond
	// staleLock is the age at which a lock file is taken for one left behind, as
	// other programs that lock mailboxes do.
	staleLock = 5 * time.Minute
)

// boxLock is the right to write a system mailbox: against our own agents by its
// place in Deliveries.boxes, against other programs by a file user.lock.
type boxLock struct {
	d     *Deliveries
	path  string // of the mailbox
	file  bool   // the lock file is ours
	freed chan struct{}
}

// lockBox waits for the right to write the mailbox of a user.
func (d *Deliveries) lockBox(ctx context.Context, name string) (*boxLock, error) {
	dir := d.o.MailDir
	st, err := os.Stat(dir)
	if err != nil {
		return nil, err
	}
	if st.Mode().Perm()&0o002 != 0 {
		return nil, fmt.Errorf("%s: will not deliver where everybody may write", dir)
	}
	b := &boxLock{d: d, path: filepath.Join(dir, name), freed: make(chan struct{})}
	for {
		d.mu.Lock()
		other := d.boxes[b.path]
		if other == nil {
			d.boxes[b.path] = b
		}
		d.mu.Unlock()
		if other == nil {
			break
		}
		select {
		case <-other.freed:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
	if err := b.makeFile(ctx); err != nil {
		b.unlock()
		return nil, err
	}
	return b, nil
}

// makeFile makes the lock file.
func (b *boxLock) makeFile(ctx context.Context) error {
	path := b.path + ".lock"
	for range boxTries {
		f, err := os.OpenFile(path, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
		switch {
		case err == nil:
			b.file = true
			_, err = f.WriteString(strconv.Itoa(os.Getpid()) + "\n")
			return errors.Join(err, f.Close())
		case errors.Is(err, fs.ErrPermission) && b.d.o.Unprivileged:
			return nil // an ordinary user's lock is that of fcntl, which the agent takes
		case !errors.Is(err, fs.ErrExist):
			return err
		}
		if st, err := os.Lstat(path); err == nil && b.d.o.Clock.Now().Sub(st.ModTime()) > staleLock {
			os.Remove(path)
			continue
		}
		wait, stop := b.d.o.Clock.After(boxPause)
		select {
		case <-wait:
		case <-ctx.Done():
			stop()
			return ctx.Err()
		}
	}
	return fmt.Errorf("%s: held by another program", path)
}

// unlock gives the right back. A nil lock is none.
func (b *boxLock) unlock() {
	if b == nil {
		return
	}
	if b.file {
		os.Remove(b.path + ".lock")
	}
	b.d.mu.Lock()
	delete(b.d.boxes, b.path)
	b.d.mu.Unlock()
	close(b.freed)
}

// plainName tells whether a name is one component of a path and no other file of
// the directory.
func plainName(name string) bool {
	return name != "" && name[0] != '.' && !strings.ContainsAny(name, "/\x00") && !strings.HasSuffix(name, ".lock")
}

func mailboxReply(err error) *msg.MailboxReply {
	if err == nil {
		return &msg.MailboxReply{}
	}
	return &msg.MailboxReply{Err: mailerr.Temporary(451, 2, 0, "Mailbox is not available", err)}
}
