package queue

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"io/fs"
	"strconv"

	"opensmtpd/src/mail"
	"opensmtpd/src/queue/disk"
	"opensmtpd/src/queue/envelope"
	"opensmtpd/src/queue/journal"
)

// The checkpoint is a file of frames, each length u32, CRC-32C u32, payload; the
// first byte of a payload tells what it is. It is written while the index
// changes: what it shows of a message may be newer than its position, and
// applying the records from there on leads to the same end.
const (
	checkpointName = journal.Dir + "/checkpoint"
	checkpointTemp = journal.Dir + "/checkpoint.new"
	cleanName      = journal.Dir + "/clean"

	checkpointVersion = 1

	frameHead    = 'H' // version u8, epoch u64, off u64, lsn u64
	frameHeld    = 'I' // epoch u64, ids u32 × n
	frameState   = 'S' // as in the journal
	frameMessage = 'M'
	frameEnd     = 'E' // number of frames u32

	maxFrame = 16 << 20
	ioSize   = 64 << 10
)

func castagnoli() *crc32.Table { return crc32.MakeTable(crc32.Castagnoli) }

// frames writes frames to a file.
type frames struct {
	f    disk.File
	buf  []byte
	at   int64
	n    uint32
	from int
	err  error
}

// begin starts a frame; the payload is appended to buf.
func (w *frames) begin(kind byte) {
	if len(w.buf) > ioSize {
		w.flush()
	}
	w.from = len(w.buf)
	w.buf = append(w.buf, 0, 0, 0, 0, 0, 0, 0, 0, kind)
}

func (w *frames) end() {
	payload := w.buf[w.from+8:]
	binary.LittleEndian.PutUint32(w.buf[w.from:], uint32(len(payload)))
	binary.LittleEndian.PutUint32(w.buf[w.from+4:], crc32.Checksum(payload, castagnoli()))
	w.n++
}

func (w *frames) flush() {
	if w.err == nil {
		_, w.err = w.f.WriteAt(w.buf, w.at)
	}
	w.at += int64(len(w.buf))
	w.buf = w.buf[:0]
}

// writeCheckpoint saves the index and returns what it covers. The caller has
// removed the litter of what completed before.
func (s *Store) writeCheckpoint(pos journal.Position) error {
	if err := s.fs.Remove(checkpointTemp); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	f, err := s.fs.Create(checkpointTemp)
	if err != nil {
		return err
	}
	w := &frames{f: f}
	s.encodeIndex(w, pos)
	w.flush()
	if w.err == nil {
		w.err = f.Sync()
	}
	if cerr := f.Close(); w.err == nil {
		w.err = cerr
	}
	if w.err != nil {
		return w.err
	}
	if err := s.fs.Rename(checkpointTemp, checkpointName); err != nil {
		return err
	}
	return s.fs.SyncDir(journal.Dir)
}

func (s *Store) encodeIndex(w *frames, pos journal.Position) {
	w.begin(frameHead)
	w.buf = append(w.buf, checkpointVersion)
	w.buf = appendPosition(w.buf, pos)
	w.end()
	s.mu.Lock()
	defer s.mu.Unlock()
	for epoch, ids := range s.byEpoch {
		w.begin(frameHeld)
		w.buf = binary.LittleEndian.AppendUint64(w.buf, epoch)
		w.buf = appendMessageIDs(w.buf, ids)
		w.end()
		s.pause(w)
	}
	for kind, values := range s.states {
		for key, value := range values {
			w.begin(frameState)
			w.buf = (&state{kind, key, value}).append(w.buf)
			w.end()
			s.pause(w)
		}
	}
	for _, m := range s.messages {
		w.begin(frameMessage)
		w.buf = m.append(w.buf)
		w.end()
		s.pause(w)
	}
	w.begin(frameEnd)
	w.buf = binary.LittleEndian.AppendUint32(w.buf, w.n)
	w.end()
}

// pause writes what has gathered without the lock, so that mail goes on.
func (s *Store) pause(w *frames) {
	if len(w.buf) > ioSize {
		s.mu.Unlock()
		w.flush()
		s.mu.Lock()
	}
}

func appendPosition(b []byte, p journal.Position) []byte {
	b = binary.LittleEndian.AppendUint64(b, p.Epoch)
	b = binary.LittleEndian.AppendUint64(b, uint64(p.Off))
	return binary.LittleEndian.AppendUint64(b, p.LSN)
}

func (r ref) append(b []byte) []byte {
	var epoch uint64
	if r.seg != nil {
		epoch = r.seg.Epoch
	}
	b = binary.LittleEndian.AppendUint64(b, epoch)
	b = binary.LittleEndian.AppendUint32(b, r.off)
	return binary.LittleEndian.AppendUint32(b, r.n)
}

const flagSpooled = 2

func (m *message) append(b []byte) []byte {
	b = binary.LittleEndian.AppendUint32(b, uint32(m.id))
	var flags byte
	if m.file {
		flags |= flagFile
	}
	if m.spooled {
		flags |= flagSpooled
	}
	b = append(b, flags)
	b = binary.LittleEndian.AppendUint64(b, uint64(m.size))
	b = m.at.append(b)
	b = binary.LittleEndian.AppendUint32(b, uint32(len(m.envs)))
	for i := range m.envs {
		b = m.envs[i].append(b)
	}
	return b
}

func (e *entry) append(b []byte) []byte {
	b = binary.LittleEndian.AppendUint32(b, uint32(e.ID))
	b = append(b, byte(e.Type))
	b = binary.LittleEndian.AppendUint16(b, uint16(e.Flags))
	b = binary.LittleEndian.AppendUint16(b, e.Retry)
	b = binary.LittleEndian.AppendUint32(b, e.LocalUID)
	for _, v := range []int64{e.Created, e.TTL, e.LastTry, e.LastBounce} {
		b = binary.LittleEndian.AppendUint64(b, uint64(v))
	}
	for _, s := range []string{e.Action, e.Domain, e.User} {
		b = binary.LittleEndian.AppendUint16(b, uint16(len(s)))
		b = append(b, s[:uint16(len(s))]...)
	}
	return e.at.append(b)
}

// decoder takes fixed fields off b; bad is set when there are not enough.
type decoder struct {
	b    []byte
	bad  bool
	segs map[uint64]*journal.Segment
}

func (d *decoder) take(n int) []byte {
	if len(d.b) < n {
		d.bad = true
		return make([]byte, n)
	}
	v := d.b[:n]
	d.b = d.b[n:]
	return v
}

func (d *decoder) u8() byte    { return d.take(1)[0] }
func (d *decoder) u16() uint16 { return binary.LittleEndian.Uint16(d.take(2)) }
func (d *decoder) u32() uint32 { return binary.LittleEndian.Uint32(d.take(4)) }
func (d *decoder) u64() uint64 { return binary.LittleEndian.Uint64(d.take(8)) }

func (d *decoder) position() journal.Position {
	return journal.Position{Epoch: d.u64(), Off: int64(d.u64()), LSN: d.u64()}
}

// ref reads a place; ok is false when its segment is not there.
func (d *decoder) ref() (r ref, ok bool) {
	epoch := d.u64()
	r = ref{seg: d.segs[epoch], off: d.u32(), n: d.u32()}
	return r, epoch == 0 || r.seg != nil
}

func (d *decoder) message() (m *message, lost bool) {
	m = &message{id: mail.MessageID(d.u32()), old: true}
	flags := d.u8()
	m.file, m.spooled = flags&flagFile != 0, flags&flagSpooled != 0
	m.size = int64(d.u64())
	var ok bool
	m.at, ok = d.ref()
	lost = !ok && !m.file
	n := d.u32()
	for ; n > 0 && !d.bad; n-- {
		e, ok := d.entry(m.id)
		if ok {
			m.envs = append(m.envs, e)
		} else {
			lost = true
		}
	}
	return m, lost
}

func (d *decoder) entry(id mail.MessageID) (e entry, ok bool) {
	e.ID = mail.EnvelopeID(id)<<32 | mail.EnvelopeID(d.u32())
	e.Type, e.Flags, e.Retry = envelope.Type(d.u8()), envelope.Flags(d.u16()), d.u16()
	e.LocalUID = d.u32()
	for _, v := range []*int64{&e.Created, &e.TTL, &e.LastTry, &e.LastBounce} {
		*v = int64(d.u64())
	}
	for _, s := range []*string{&e.Action, &e.Domain, &e.User} {
		*s = intern(string(d.take(int(d.u16()))))
	}
	e.at, ok = d.ref()
	return e, ok
}

var errCheckpoint = errors.New("damaged checkpoint")

// readCheckpoint loads the index; without a checkpoint it stays empty.
func (s *Store) readCheckpoint(segs map[uint64]*journal.Segment) (journal.Position, error) {
	f, err := s.fs.Open(checkpointName, false)
	if errors.Is(err, fs.ErrNotExist) {
		return journal.Position{}, nil
	}
	if err != nil {
		return journal.Position{}, err
	}
	defer f.Close()
	size, err := f.Size()
	if err != nil {
		return journal.Position{}, err
	}
	r := &frameReader{f: f, size: size}
	var pos journal.Position
	for n := uint32(0); ; n++ {
		payload, err := r.next()
		if err != nil {
			return journal.Position{}, err
		}
		d := decoder{b: payload[1:], segs: segs}
		switch kind := payload[0]; {
		case n == 0 && kind == frameHead && d.u8() == checkpointVersion:
			pos = d.position()
		case n == 0:
			return journal.Position{}, fmt.Errorf("%w: unknown version", errCheckpoint)
		case kind == frameHeld:
			epoch := d.u64()
			ids, err := parseMessageIDs(d.b)
			if err != nil {
				return journal.Position{}, err
			}
			for _, id := range ids {
				s.hold(id, epoch)
			}
		case kind == frameState:
			v, err := parseState(d.b)
			if err != nil {
				return journal.Position{}, err
			}
			s.put(v)
		case kind == frameMessage:
			m, lost := d.message()
			if lost {
				s.opt.Log.MessageDamaged(m.id, "its journal segment is gone", "")
			}
			if len(m.envs) > 0 && !d.bad {
				s.messages[m.id] = m
			}
		case kind == frameEnd && d.u32() == n:
			return pos, nil
		default:
			d.bad = true
		}
		if d.bad {
			return journal.Position{}, errCheckpoint
		}
	}
}

// maxStateFrame is the longest payload of a value: kind, value and the lengths of
// the names are before and between.
const maxStateFrame = 1 + 3 + 2*255 + maxState

// salvage takes the values of other roles out of a damaged checkpoint. Unlike mail
// they need not be in the journal any more; what is there since goes before them.
func (s *Store) salvage() error {
	f, err := s.fs.Open(checkpointName, false)
	if err != nil {
		return err
	}
	defer f.Close()
	size, err := f.Size()
	if err != nil {
		return err
	}
	r := &frameReader{f: f, size: size}
	for at := int64(0); at+9 < size; {
		r.at = at
		head, err := r.bytes(9)
		if err != nil {
			return err
		}
		at++ // where the next frame begins is known only behind one that is whole
		if n := binary.LittleEndian.Uint32(head); head[8] != frameState || n > maxStateFrame {
			continue
		}
		r.at = at - 1
		payload, err := r.next()
		switch {
		case errors.Is(err, errCheckpoint):
			continue
		case err != nil:
			return err
		}
		if v, err := parseState(payload[1:]); err == nil {
			s.put(v)
			at = r.at
		}
	}
	return nil
}

// frameReader reads frames through a buffer.
type frameReader struct {
	f     disk.File
	at    int64
	size  int64
	buf   []byte
	start int64
}

func (r *frameReader) next() ([]byte, error) {
	head, err := r.bytes(8)
	if err != nil {
		return nil, err
	}
	n, sum := binary.LittleEndian.Uint32(head), binary.LittleEndian.Uint32(head[4:])
	if n == 0 || n > maxFrame {
		return nil, errCheckpoint
	}
	payload, err := r.bytes(int64(n))
	if err != nil {
		return nil, err
	}
	if crc32.Checksum(payload, castagnoli()) != sum {
		return nil, errCheckpoint
	}
	return payload, nil
}

func (r *frameReader) bytes(n int64) ([]byte, error) {
	if r.at+n > r.size {
		return nil, errCheckpoint
	}
	if r.at < r.start || r.at+n > r.start+int64(len(r.buf)) {
		r.start = r.at
		r.buf = append(r.buf[:0], make([]byte, min(max(n, ioSize), r.size-r.at))...)
		if _, err := r.f.ReadAt(r.buf, r.start); err != nil && !errors.Is(err, io.EOF) {
			return nil, err
		}
	}
	b := r.buf[r.at-r.start:][:n]
	r.at += n
	return b, nil
}

// markClean says that the journal ends at pos.
func (s *Store) markClean(pos journal.Position) error {
	f, err := s.fs.Create(cleanName)
	if err != nil {
		return err
	}
	_, err = f.WriteAt(strconv.AppendUint(nil, pos.LSN, 10), 0)
	if err == nil {
		err = f.Sync()
	}
	if cerr := f.Close(); err == nil {
		err = cerr
	}
	if err == nil {
		err = s.fs.SyncDir(journal.Dir)
	}
	return err
}

// takeClean tells whether the mark for pos is there, and removes it durably: from
// now on it would lie.
func (s *Store) takeClean(pos journal.Position) (bool, error) {
	f, err := s.fs.Open(cleanName, false)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	b := make([]byte, 32)
	n, _ := f.ReadAt(b, 0)
	f.Close()
	if err := s.fs.Remove(cleanName); err != nil {
		return false, err
	}
	if err := s.fs.SyncDir(journal.Dir); err != nil {
		return false, err
	}
	return string(b[:n]) == strconv.FormatUint(pos.LSN, 10), nil
}
