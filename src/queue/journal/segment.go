package journal

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"slices"
	"strconv"
	"strings"
	"syscall"

	"opensmtpd/src/queue/disk"
)

// Dir is the directory of the segments.
const Dir = "journal"

// Segment is one file of the log.
type Segment struct {
	Epoch uint64
	First uint64 // LSN of its first record
	f     disk.File
	size  int64 // as far as the file is initialised
	bad   bool  // a write or sync failed: never synced again
}

// Position is a place in the log: everything below LSN has been seen.
type Position struct {
	Epoch uint64
	Off   int64
	LSN   uint64
}

// Name is that of the file.
func (s *Segment) Name() string { return fmt.Sprintf("%s/seg.%016x.%016x", Dir, s.Epoch, s.First) }

func freeName(epoch uint64) string { return fmt.Sprintf("%s/free.%016x", Dir, epoch) }

// parseName reads the name of a segment in use or spare.
func parseName(name string) (epoch, first uint64, spare, ok bool) {
	parts := strings.Split(name, ".")
	switch {
	case len(parts) == 3 && parts[0] == "seg" && len(parts[1]) == 16 && len(parts[2]) == 16:
	case len(parts) == 2 && parts[0] == "free" && len(parts[1]) == 16:
		spare = true
	default:
		return 0, 0, false, false
	}
	epoch, err := strconv.ParseUint(parts[1], 16, 64)
	if err == nil && !spare {
		first, err = strconv.ParseUint(parts[2], 16, 64)
	}
	return epoch, first, spare, err == nil
}

// Read returns the payload of the record at off, whose payload has n bytes. It
// uses buf when that is large enough. A segment that was recycled meanwhile
// gives ErrDamaged, or another error when it was closed.
func (s *Segment) Read(off int64, n int, buf []byte) ([]byte, error) {
	if cap(buf) < headerSize+n {
		buf = make([]byte, headerSize+n)
	}
	buf = buf[:headerSize+n]
	epoch := s.Epoch
	if _, err := s.f.ReadAt(buf, off); err != nil && !errors.Is(err, io.EOF) {
		return nil, err
	}
	rec, ok := decode(buf, epoch)
	if !ok || len(rec.Payload) != n {
		return nil, ErrDamaged
	}
	return rec.Payload, nil
}

// list finds the segments on the disk, those in use oldest first.
func list(fs disk.FS, write bool) (used, spare []*Segment, err error) {
	names, err := fs.ReadDir(Dir)
	if err != nil {
		return nil, nil, err
	}
	for _, name := range names {
		epoch, first, free, ok := parseName(name)
		if !ok {
			continue
		}
		s := &Segment{Epoch: epoch, First: first}
		path := s.Name()
		if free {
			path = freeName(epoch)
		}
		if s.f, err = fs.Open(path, write); err == nil {
			s.size, err = s.f.Size()
		}
		if err != nil {
			return nil, nil, err
		}
		if free {
			spare = append(spare, s)
		} else {
			used = append(used, s)
		}
	}
	slices.SortFunc(used, func(a, b *Segment) int { return compare(a.Epoch, b.Epoch) })
	return used, spare, nil
}

func compare(a, b uint64) int {
	switch {
	case a < b:
		return -1
	case a > b:
		return 1
	}
	return 0
}

// newEpoch returns an epoch above all that were used.
func (l *Log) newEpoch() (uint64, error) {
	var r [4]byte
	if _, err := io.ReadFull(l.opt.Rand, r[:]); err != nil {
		return 0, err
	}
	l.seq++
	return l.seq<<32 | uint64(binary.LittleEndian.Uint32(r[:])), nil
}

// rotate makes a spare or new segment the current one, with its name durable.
func (l *Log) rotate() error {
	epoch, err := l.newEpoch()
	if err != nil {
		return err
	}
	s := &Segment{Epoch: epoch, First: l.lsn}
	if err := l.recycle(s); err != nil {
		if s.f, err = l.opt.FS.Create(s.Name()); err != nil {
			if !traceless(err) {
				l.cur = nil
			}
			return err
		}
	}
	if err := l.opt.FS.SyncDir(Dir); err != nil {
		l.drop(s)
		// Its file may stay, or come back at a crash, and would say that what
		// lies before it is void from this LSN on: nothing more goes there.
		l.cur = nil
		return err
	}
	l.mu.Lock()
	l.segs = append(l.segs, s)
	l.mu.Unlock()
	l.cur, l.pos = s, 0
	if l.opt.Rotated != nil {
		l.opt.Rotated()
	}
	return nil
}

// traceless tells whether a file that could not be made is surely not there.
func traceless(err error) bool {
	for _, e := range []error{syscall.ENOSPC, syscall.EDQUOT, syscall.EMFILE, syscall.ENFILE, syscall.EROFS} {
		if errors.Is(err, e) {
			return true
		}
	}
	return false
}

// errNoSpare tells recycle's caller to make a file.
var errNoSpare = errors.New("no spare segment")

func (l *Log) recycle(s *Segment) error {
	for {
		l.mu.Lock()
		if len(l.spare) == 0 {
			l.mu.Unlock()
			return errNoSpare
		}
		old := l.spare[len(l.spare)-1]
		l.spare = l.spare[:len(l.spare)-1]
		l.mu.Unlock()
		if err := l.opt.FS.Rename(freeName(old.Epoch), s.Name()); err == nil {
			s.f, s.size = old.f, old.size
			return nil
		}
		old.f.Close()
	}
}

// drop forgets a segment that holds nothing durable.
func (l *Log) drop(s *Segment) {
	l.mu.Lock()
	l.segs = slices.DeleteFunc(l.segs, func(o *Segment) bool { return o == s })
	l.mu.Unlock()
	s.f.Close()
	// If the file stays, its records are void: the next segment begins at
	// the same LSN.
	if err := l.opt.FS.Remove(s.Name()); err != nil {
		l.opt.Log.StoreTrouble(err)
	}
}

// Segments returns those in use, oldest first; the last is being written.
func (l *Log) Segments() []*Segment {
	l.mu.Lock()
	defer l.mu.Unlock()
	return slices.Clone(l.segs)
}

// Gone tells that the segment being written has lost its name: somebody has
// removed it, and what is written is there only as long as this process.
func (l *Log) Gone() error {
	segs := l.Segments()
	if len(segs) == 0 {
		return nil
	}
	cur := segs[len(segs)-1]
	_, err := l.opt.FS.Stat(cur.Name())
	if !errors.Is(err, fs.ErrNotExist) {
		return nil // whatever else is wrong, a write finds out
	}
	if segs = l.Segments(); segs[len(segs)-1] != cur {
		return nil // meanwhile it was freed
	}
	return fmt.Errorf("%s was removed: what is in the queue is lost when this daemon ends", cur.Name())
}

// Free gives the oldest segment back. The caller has seen to it that nothing in
// it is needed and that a checkpoint beyond its end is durable. Free returns
// when it is durable that the segment is gone, because the next one may only
// follow then.
func (l *Log) Free(s *Segment) error {
	l.mu.Lock()
	if len(l.segs) < 2 || l.segs[0] != s {
		l.mu.Unlock()
		return fmt.Errorf("segment %016x is not the oldest", s.Epoch)
	}
	keep := !s.bad && len(l.spare) < l.opt.Spare
	again := l.unsynced
	l.mu.Unlock()
	var err error
	if again { // the free before this one must be durable first
		if err = l.opt.FS.SyncDir(Dir); err != nil {
			return err
		}
	}
	if keep {
		err = l.opt.FS.Rename(s.Name(), freeName(s.Epoch))
	} else {
		err = l.opt.FS.Remove(s.Name())
	}
	if err != nil {
		return err
	}
	err = l.opt.FS.SyncDir(Dir)
	l.mu.Lock()
	l.segs = l.segs[1:]
	l.unsynced = err != nil
	switch {
	case !keep || err != nil:
		s.f.Close()
	default:
		l.spare = append(l.spare, s)
	}
	l.mu.Unlock()
	return err
}
