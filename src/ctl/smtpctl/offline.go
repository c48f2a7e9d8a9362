package smtpctl

import (
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"time"

	"opensmtpd/src/ctl"
	"opensmtpd/src/mail"
	"opensmtpd/src/mlog"
	"opensmtpd/src/queue"
	"opensmtpd/src/queue/disk"
)

// While no smtpd runs, root, and the owner of a state directory, can look at the
// queue as it lies on the disk.

// offlineTTL is the default of "queue ttl", for envelopes that do not say.
const offlineTTL = 4 * 24 * time.Hour

// onDisk is that queue.
type onDisk struct {
	*queue.View
	fsys *disk.Real
}

// Close lets a daemon start.
func (d *onDisk) Close() error { return errors.Join(d.View.Close(), d.fsys.Close()) }

// onDisk opens the queue when why tells that no smtpd runs; otherwise, or when it
// is not for who asks, why is the error.
func (s *session) onDisk(why error) (*onDisk, error) {
	if !errors.Is(why, ctl.ErrNotRunning) || s.places.State == "" && os.Geteuid() != 0 {
		return nil, why
	}
	fsys, err := disk.NewReal(s.places.Spool)
	if errors.Is(err, os.ErrNotExist) {
		return nil, why
	}
	if err != nil {
		return nil, err
	}
	view, err := queue.OpenView(s.ctx, fsys, mlog.New(complaints{s}, false))
	if errors.Is(err, disk.ErrLocked) {
		err = errors.New("smtpd does not answer, but its queue is in use")
	}
	if err != nil {
		return nil, errors.Join(err, fsys.Close())
	}
	return &onDisk{view, fsys}, nil
}

// complaints shows what is wrong with the queue.
type complaints struct{ s *session }

// Line implements mlog.Sink.
func (c complaints) Line(_ mlog.Priority, line string) { c.s.call.Errorf("%s", line) }

// list lists envelopes, those of one message if params name it.
func (d *onDisk) list(s *session, params []string, print func(*ctl.QueueRow) error) error {
	var ids []mail.EnvelopeID
	d.Each(func(e queue.Summary) bool {
		if len(params) == 0 || e.ID.Message().String() == params[0] {
			ids = append(ids, e.ID)
		}
		return true
	})
	slices.Sort(ids)
	for _, id := range ids {
		e, err := d.Envelope(id)
		if err != nil {
			s.call.Errorf("envelope %v: %v", id, err)
			continue
		}
		row := ctl.RowOf(&e, offlineTTL)
		row.State = "offline"
		if s.json {
			err = s.jsonValue(row)
		} else {
			err = print(&row)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

func (d *onDisk) showEnvelope(s *session, name string) error {
	id, err := mail.ParseEnvelopeID(name)
	if err != nil {
		return err
	}
	e, err := d.Envelope(id)
	if err != nil {
		return fmt.Errorf("no envelope %v", id)
	}
	text, err := e.AppendText(nil)
	if err == nil {
		_, err = s.out.Write(text)
	}
	return err
}

func (d *onDisk) showMessage(s *session, name string) error {
	id, err := mail.ParseMessageID(name)
	if err != nil {
		return err
	}
	body, err := d.OpenBody(id)
	if err != nil {
		return fmt.Errorf("no message %v", id)
	}
	defer body.Close()
	_, err = io.Copy(s.out, io.NewSectionReader(body, 0, body.Size()))
	return err
}
