package mda

import (
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"sync"

	"opensmtpd/src/clock"
	"opensmtpd/src/mailerr"
	"opensmtpd/src/mda/format"
	"opensmtpd/src/mda/maildir"
	"opensmtpd/src/privsep/imsg"
	"opensmtpd/src/privsep/msg"
)

// maxBatch is how many deliveries share their syncs: more gains nothing and
// keeps the first one waiting.
const maxBatch = 64

// worker delivers, one batch after the other; commands run beside it.
type worker struct {
	ctx   context.Context
	clock clock.Clock
	conf  msg.AgentConf
	link  *imsg.Conn // to parent; only the worker calls Next
	out   *imsg.Conn // to queue
	store *maildir.Store
	last  uint64 // call on link

	batch    []*delivery
	large    *delivery // whose body is coming in pieces
	commands sync.WaitGroup
}

// delivery is one that is being worked on.
type delivery struct {
	call uint64
	d    *msg.Deliver
	kind kind
	path string        // of maildir, or of the file
	cmd  format.Script // of command

	head  []byte
	left  uint64           // of a large body, bytes to come
	begun bool             // the sink of a large body is open
	file  *os.File         // where a large body is gathered, if not in:
	store *maildir.Message // the file in tmp
	over  bool             // the result is told already
}

// kind is how a delivery is done.
type kind uint8

const (
	kindMaildir kind = iota
	kindMbox         // the system mailbox, by way of parent
	kindFile         // the user's own mbox
	kindNull         // /dev/null
	kindCommand
	kindLMTP
)

// run ends when jobs is closed and everything was finished or given up. What is
// not on its way to the disk when ctx ends is dropped: queue will not learn of it
// and lets it be delivered again.
func (w *worker) run(jobs <-chan *job) {
	defer w.commands.Wait()
	defer w.dropLarge()
	for {
		j, ok := <-jobs
		if !ok {
			return
		}
		w.take(j)
		for ok && len(w.batch) < maxBatch {
			select {
			case j, ok = <-jobs:
				if ok {
					w.take(j)
				}
				continue
			default:
			}
			break
		}
		w.commit()
	}
}

// take starts a delivery or goes on with the large one.
func (w *worker) take(j *job) {
	if w.ctx.Err() != nil {
		return
	}
	if j.chunk {
		w.more(&j.DeliverChunk)
		return
	}
	w.dropLarge() // a peer that breaks off
	d := &delivery{call: j.call, d: &j.Deliver, left: j.Size}
	if r := w.plan(d); r.Err != nil {
		w.result(d, r)
	}
	d.head = head(d.d)
	if !j.Inline {
		w.large = d
		if d.left == 0 {
			w.more(&msg.DeliverChunk{})
		}
		return
	}
	if !d.over && loops(j.Body, j.Dest.SMTP()) {
		w.result(d, looped)
	}
	if !d.over {
		w.add(d)
	}
}

// add puts a delivery whose body is whole into the batch, or does it beside the
// worker when it waits for a command or a server.
func (w *worker) add(d *delivery) {
	switch d.kind {
	case kindNull:
		w.result(d, delivered)
		return
	case kindCommand:
		w.command(d)
		return
	case kindLMTP:
		w.handOver(d)
		return
	case kindMaildir:
		if d.store == nil {
			w.begin(d)
			d.store.Write(d.d.Body)
		}
	}
	w.batch = append(w.batch, d)
}

// begin opens the file in tmp.
func (w *worker) begin(d *delivery) {
	d.store = w.store.Begin(maildir.Target{Dir: d.path, Junk: w.conf.Junk, Extension: d.d.Subaddress})
	d.store.Write(d.head)
}

// more takes a piece of a large body.
func (w *worker) more(c *msg.DeliverChunk) {
	d := w.large
	if d == nil {
		return
	}
	if c.Abort || uint64(len(c.Data)) > d.left {
		w.dropLarge()
		return
	}
	if !d.begun {
		d.begun = true
		w.openLarge(d, c.Data)
	}
	d.left -= uint64(len(c.Data))
	if !d.over {
		w.writeLarge(d, c.Data)
	}
	if d.left > 0 {
		return
	}
	w.large = nil
	if d.over {
		d.close()
	} else {
		w.add(d)
	}
}

// openLarge looks at the header and opens what the body goes into.
func (w *worker) openLarge(d *delivery, first []byte) {
	if d.over {
		return
	}
	if loops(first, d.d.Dest.SMTP()) {
		w.result(d, looped)
		return
	}
	switch d.kind {
	case kindMaildir:
		w.begin(d)
	case kindNull:
	default:
		f, err := os.CreateTemp("", "smtpd")
		if err == nil {
			d.file = f
			err = os.Remove(f.Name())
		}
		if err != nil {
			w.result(d, Failure(mailerr.Temp, ExOSErr, "cannot gather the message", err))
		}
	}
}

func (w *worker) writeLarge(d *delivery, p []byte) {
	if d.store != nil {
		d.store.Write(p) // keeps its error until Commit
		return
	}
	if d.file == nil {
		return
	}
	if _, err := d.file.Write(p); err != nil {
		w.result(d, Failure(mailerr.Temp, ExOSErr, "cannot gather the message", err))
	}
}

var errAborted = errors.New("the message did not come whole")

// dropLarge forgets a large delivery whose body will not be whole; whoever sent
// it knows.
func (w *worker) dropLarge() {
	d := w.large
	if d == nil {
		return
	}
	w.large = nil
	if d.store != nil {
		d.store.Err = errAborted
		w.store.Commit([]*maildir.Message{d.store})
	}
	d.close()
}

func (d *delivery) close() {
	if d.file != nil {
		d.file.Close()
		d.file = nil
	}
}

// body returns the whole body from its start.
func (d *delivery) body() (io.Reader, error) {
	if d.file == nil {
		return bytes.NewReader(d.d.Body), nil
	}
	_, err := d.file.Seek(0, io.SeekStart)
	return d.file, err
}

// commit finishes the batch.
func (w *worker) commit() {
	if len(w.batch) == 0 {
		return
	}
	dropped := w.ctx.Err() != nil
	var messages []*maildir.Message
	boxes := make(map[string][]*delivery)
	for _, d := range w.batch {
		if d.kind == kindMaildir {
			if dropped {
				d.store.Err = errAborted
			}
			messages = append(messages, d.store)
		} else if !dropped {
			key := d.path + "\x00" + d.d.Name
			boxes[key] = append(boxes[key], d)
		}
	}
	w.store.Commit(messages)
	for _, d := range w.batch {
		if d.kind == kindMaildir {
			if err := d.store.Err; err != nil {
				w.result(d, storeFailed("mail.maildir", err))
			} else {
				w.result(d, delivered)
			}
		}
	}
	for _, box := range boxes {
		w.append(box)
	}
	for _, d := range w.batch {
		d.close()
	}
	clear(w.batch)
	w.batch = w.batch[:0]
}

// result tells queue, once.
func (w *worker) result(d *delivery, r Result) {
	if d.over {
		return
	}
	d.over = true
	// A link that is gone takes its peer's interest with it.
	w.out.Put(imsg.Header{Type: uint16(msg.TypeDeliverResult), Flags: imsg.FlagReply, Call: d.call}, &msg.DeliverResult{Err: r.Err, Stat: r.Stat}, nil)
}
