package queue

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"slices"

	"opensmtpd/src/mail"
	"opensmtpd/src/queue/disk"
	"opensmtpd/src/queue/envelope"
	"opensmtpd/src/queue/journal"
	"opensmtpd/src/queue/spool"
)

// Open takes possession of the spool: it refuses one that another process holds
// (disk.ErrLocked) or that belongs to somebody else, makes the directories that
// are missing, reads the last checkpoint and what the journal says since, and
// starts the writer and the upkeep.
func Open(ctx context.Context, fsys disk.FS, opt Options) (*Store, error) {
	opt.defaults()
	s := newStore(fsys, opt)
	if err := s.prepare(); err != nil {
		return nil, err
	}
	lock, err := fsys.Lock(journal.Dir + "/lock")
	if err != nil {
		return nil, fmt.Errorf("spool: %w", err)
	}
	s.lock = lock
	if err := s.recover(ctx); err != nil {
		if s.log != nil {
			s.log.CloseFiles()
		}
		lock.Close()
		return nil, fmt.Errorf("spool: %w", err)
	}
	s.log.Start()
	if !opt.manual {
		go s.run()
	}
	return s, nil
}

func newStore(fsys disk.FS, opt Options) *Store {
	return &Store{
		fs: fsys, opt: opt, spool: spool.New(fsys),
		index: newIndex(), cache: cache{max: opt.Cache},
		reserved: make(map[mail.MessageID]struct{}), gone: make(map[mail.EnvelopeID]struct{}),
		unsynced: make(map[string]struct{}),
		wake:     make(chan struct{}, 1), stop: make(chan struct{}), done: make(chan struct{}),
	}
}

// Dirs are the directories below the root that Open needs; it makes those that
// are missing, where it may.
func Dirs() []string {
	return []string{journal.Dir, spool.IncomingDir, spool.QueueDir, spool.CorruptDir}
}

func (s *Store) prepare() error {
	made := false
	for _, dir := range Dirs() {
		info, err := s.fs.Stat(dir)
		if errors.Is(err, fs.ErrNotExist) {
			if err = s.fs.Mkdir(dir); err == nil {
				made = true
				info, err = s.fs.Stat(dir)
			}
		}
		switch {
		case err != nil:
			return fmt.Errorf("spool: %w", err)
		case !info.Mode.IsDir():
			return fmt.Errorf("spool: %s is not a directory", dir)
		case s.opt.CheckOwner && info.UID != s.opt.Owner:
			return fmt.Errorf("spool: directory %s belongs to uid %d, must belong to uid %d", dir, info.UID, s.opt.Owner)
		}
	}
	if made {
		return s.fs.SyncDir(".")
	}
	return nil
}

// recover builds the index.
func (s *Store) recover(ctx context.Context) error {
	var err error
	s.log, err = journal.Open(journal.Options{
		FS: s.fs, Clock: s.opt.Clock, Log: s.opt.Log, Rand: s.opt.Rand,
		SegmentSize: s.opt.SegmentSize, Spare: s.opt.Segments,
		Published: s.published, Rotated: s.hasRotated, Failed: s.failed,
	})
	if err != nil {
		return err
	}
	pos, err := s.load()
	if err != nil {
		return err
	}
	clean, err := s.takeClean(pos)
	if err != nil {
		return err
	}
	r := &replay{s: s}
	found, err := s.log.Replay(pos, clean, func(rec *journal.Record) error {
		r.visit(rec)
		return ctx.Err()
	})
	if err != nil {
		return err
	}
	r.finish()
	void := r.judge(found.Durable)
	void, err = s.tidy(void, found.Durable)
	if err != nil {
		return err
	}
	torn := s.setAside(found.Holes, r.gaps)
	if len(void) > 0 || len(torn) > 0 {
		// Before anything else, so that the next start sees it the same way.
		s.log.Submit(&discardUnit{torn, void}, true)
	}
	s.pos, s.saved = s.log.End(), pos
	s.dirty = s.dirty || s.pos != pos
	s.savedAt = s.opt.Clock.Mono()
	return nil
}

// load reads the checkpoint. A damaged one is set aside: the journal, read as a
// whole, and the spool hold all that it would tell of mail, and the values of other
// roles are taken from what is left.
func (s *Store) load() (journal.Position, error) {
	segs := make(map[uint64]*journal.Segment)
	for _, seg := range s.log.Segments() {
		segs[seg.Epoch] = seg
	}
	pos, err := s.readCheckpoint(segs)
	if err == nil || !errors.Is(err, errCheckpoint) && !errors.Is(err, errPayload) {
		return pos, err
	}
	s.index = newIndex()
	if err := s.salvage(); err != nil {
		return journal.Position{}, err
	}
	if s.readOnly {
		s.opt.Log.CheckpointDamaged(err, "")
		return journal.Position{}, nil
	}
	to, aerr := s.spool.SetAside(checkpointName)
	if aerr != nil {
		return journal.Position{}, errors.Join(err, aerr)
	}
	s.opt.Log.CheckpointDamaged(err, to)
	return journal.Position{}, nil
}

// replay applies records in order.
type replay struct {
	s    *Store
	open *message // whose envelopes are coming
	want uint32   // envelopes it must have
	next uint64   // LSN of the next one
	end  uint64   // LSN after the last one
	gaps []gap    // that an earlier start found torn
}

func (r *replay) visit(rec *journal.Record) {
	if rec.Type != journal.Envelope {
		r.finish()
	}
	if err := r.apply(rec); err != nil {
		r.s.opt.Log.JournalRecord(rec.LSN, err)
	}
}

func (r *replay) apply(rec *journal.Record) error {
	if rec.Version != recordVersion {
		return fmt.Errorf("unknown version %d", rec.Version)
	}
	s := r.s
	switch rec.Type {
	case journal.Message:
		return r.message(rec)
	case journal.Envelope:
		return r.envelope(rec)
	case journal.Update:
		var e envelope.Envelope
		if err := e.Parse(rec.Payload); err != nil {
			return err
		}
		s.update(Summarize(&e), place(rec))
	case journal.Done:
		ids, err := parseIDs(rec.Payload)
		if err != nil {
			return err
		}
		for _, id := range ids {
			s.completed(id, rec.Seg.Epoch)
		}
	case journal.Spooled:
		id, envs, err := parseSpooled(rec.Payload)
		if err != nil {
			return err
		}
		s.becameFiles(id, envs)
	case journal.Discard:
		gaps, ids, err := parseDiscard(rec.Payload)
		if err != nil {
			return err
		}
		r.gaps = append(r.gaps, gaps...)
		for _, id := range ids {
			delete(s.messages, id)
			delete(s.torn, id)
		}
	case journal.State:
		v, err := parseState(rec.Payload)
		if err != nil {
			return err
		}
		s.put(v)
	case journal.Checkpoint:
	default:
		return fmt.Errorf("unknown type %d", rec.Type)
	}
	return nil
}

func place(rec *journal.Record) ref {
	return ref{rec.Seg, uint32(rec.Off), uint32(len(rec.Payload))}
}

func (r *replay) message(rec *journal.Record) error {
	h, err := parseHead(rec.Payload)
	if err != nil {
		return err
	}
	r.open = &message{
		id: h.id, file: h.file, old: true, size: int64(h.size), at: place(rec), lsn: rec.LSN, done: h.done,
	}
	r.want, r.next, r.end = h.envelopes, rec.LSN+1, rec.LSN+1+uint64(h.envelopes)
	return nil
}

func (r *replay) envelope(rec *journal.Record) error {
	var e envelope.Envelope
	if err := e.Parse(rec.Payload); err != nil {
		return err
	}
	m := r.open
	if m == nil || e.ID.Message() != m.id || rec.LSN >= r.end {
		// Its message is in a hole, of which setAside tells.
		r.finish()
		return nil
	}
	if rec.LSN != r.next && m.missing == 0 {
		m.missing = r.next
	}
	m.envs = append(m.envs, entry{Summarize(&e), place(rec)})
	r.next = rec.LSN + 1
	if r.next == r.end {
		r.finish()
	}
	return nil
}

// finish ends the message that was open. When records of it are missing, whether
// it counts is known only at the end of the journal.
func (r *replay) finish() {
	m := r.open
	if m == nil {
		return
	}
	r.open = nil
	if m.missing == 0 && r.next != r.end {
		m.missing = r.next
	}
	s := r.s
	if len(m.envs) > 0 {
		s.messages[m.id] = m
		s.dirty = true
	}
	if m.missing != 0 {
		s.torn[m.id] = m
		return
	}
	delete(s.torn, m.id)
	for _, id := range m.done {
		s.completed(id, m.at.seg.Epoch)
	}
	m.done = nil
}

// judge decides about messages of which records are missing: one that was never
// acknowledged is void, another keeps the envelopes that are left. It returns the
// void ones.
func (r *replay) judge(durable uint64) []mail.MessageID {
	s := r.s
	var void []mail.MessageID
	for id, m := range s.torn {
		if m.missing >= durable {
			void = append(void, id)
			if s.messages[id] == m {
				delete(s.messages, id)
			}
			continue
		}
		s.opt.Log.MessageDamaged(id, fmt.Sprintf("envelopes are missing, %d left", len(m.envs)), "")
		for _, done := range m.done {
			s.completed(done, m.at.seg.Epoch)
		}
		m.done = nil
	}
	clear(s.torn)
	return void
}

// tidy removes from incoming/ what no message refers to, and finds messages
// whose large body is gone: void when they were not acknowledged.
func (s *Store) tidy(void []mail.MessageID, durable uint64) ([]mail.MessageID, error) {
	names, err := s.fs.ReadDir(spool.IncomingDir)
	if err != nil {
		return nil, err
	}
	there := make(map[mail.MessageID]bool)
	for _, name := range names {
		id, err := mail.ParseMessageID(name)
		if m := s.messages[id]; err == nil && len(name) == 8 && m != nil && m.file && !m.spooled {
			there[id] = true
			continue
		}
		if err := s.spool.RemoveTree(spool.IncomingDir + "/" + name); err != nil {
			s.opt.Log.StoreTrouble(err)
		}
	}
	for id, m := range s.messages {
		if !m.file || m.spooled || there[id] {
			continue
		}
		whole, err := s.spool.Complete(id)
		switch {
		case err != nil:
			return nil, err
		case whole: // moved, but not yet said so
		case m.lsn >= durable:
			void = append(void, id)
			delete(s.messages, id)
		default:
			s.opt.Log.MessageDamaged(id, "its body is gone", "")
		}
	}
	return void, nil
}

// maxHole bounds what is kept of a damaged stretch of the journal.
const maxHole = 4 << 20

// setAside keeps what is damaged for a look at it, and returns the holes that the
// last crash tore.
func (s *Store) setAside(holes []journal.Hole, known []gap) (torn []gap) {
	for _, h := range holes {
		g := gap{h.LSN, h.Next}
		switch {
		case slices.Contains(known, g):
			continue
		case !h.Damaged:
			torn = append(torn, g)
			continue
		}
		name := fmt.Sprintf("journal.%016x.%08x", h.Seg.Epoch, h.Off)
		s.opt.Log.JournalDamaged(h.Len, spool.CorruptDir+"/"+name)
		if err := s.spool.Keep(name, h.ReadHole(maxHole)); err != nil {
			s.opt.Log.StoreTrouble(err)
		}
	}
	return torn
}

// discardUnit makes torn messages void for every start to come.
type discardUnit struct {
	gaps []gap
	ids  []mail.MessageID
}

// Encode implements journal.Unit.
func (d *discardUnit) Encode(b *journal.Buffer) {
	b.Begin(journal.Discard, recordVersion)
	b.B = appendDiscard(b.B, d.gaps, d.ids)
	b.End()
}

// Written implements journal.Unit.
func (d *discardUnit) Written(*journal.Segment, int64, error) {}
