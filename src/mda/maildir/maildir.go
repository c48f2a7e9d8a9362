// Package maildir stores messages in maildirs: written and synced in tmp, then
// renamed into new, so that whoever reads new sees whole messages only, whatever
// happens to us or to the machine.
//
// Messages are stored in batches: every file is synced, and then each directory
// once.
package maildir

import (
	"errors"
	"fmt"
	"io/fs"
	"path"
	"strings"
	"sync"
	"sync/atomic"
)

// FS is what a Store needs of a file system. Paths are absolute.
type FS interface {
	// Create makes a new file for writing, mode 0600; it follows no link.
	Create(path string) (File, error)
	// Mkdir makes a directory, mode 0700.
	Mkdir(path string) error
	// IsDir tells whether path is a directory, links followed.
	IsDir(path string) (bool, error)
	Rename(from, to string) error
	Remove(path string) error
	SyncDir(path string) error
}

// File is a file being written. Sync is called once, before Close, and at the
// same time as that of other files.
type File interface {
	Write(p []byte) (int, error)
	// Flush starts writing to the disk without waiting.
	Flush()
	Sync() error
	Close() error
}

// ErrPath tells that a path cannot be a maildir, now or later.
var ErrPath = errors.New("not an absolute path")

// maxKnown bounds what a Store remembers; an agent that serves one user knows
// three directories, one that serves all virtual users starts again here.
const maxKnown = 1000

// Store stores messages. It belongs to one goroutine.
type Store struct {
	fs    FS
	names *Namer
	known map[string]bool // directories that we have made or seen whole
}

// NewStore returns a Store whose files are named by names.
func NewStore(fs FS, names *Namer) *Store {
	return &Store{fs: fs, names: names, known: make(map[string]bool)}
}

// Target says where a message goes.
type Target struct {
	Dir string
	// Junk moves messages that a filter marked as spam to .Junk, which is
	// created.
	Junk bool
	// Extension is the sub-address: where Dir has a folder of that name, the
	// message goes there (Maildir++).
	Extension string
}

// Message is a message being stored.
type Message struct {
	Err     error // the first failure; then the message is not stored
	file    File
	dir     string // maildir
	junkDir string // where Junk moves it to, or ""
	name    string
	spam    spamScan
	inTmp   bool
	empty   bool
	last    byte
}

// Begin creates a message in tmp. What fails is in Err, so that a batch can go
// on with the others.
func (s *Store) Begin(t Target) *Message {
	m := &Message{name: s.names.Next(), empty: true}
	if !strings.HasPrefix(t.Dir, "/") {
		m.Err = fmt.Errorf("%q: %w", t.Dir, ErrPath)
		return m
	}
	m.dir = path.Clean(t.Dir)
	if t.Junk {
		m.junkDir = m.dir + "/.Junk"
		if m.Err = s.make(m.dir); m.Err == nil {
			m.Err = s.make(m.junkDir)
		}
	}
	if m.Err == nil {
		m.Err = s.extension(m, t.Extension)
	}
	if m.Err == nil {
		m.Err = s.create(m)
	}
	return m
}

func (s *Store) extension(m *Message, ext string) error {
	folder := Folder(ext)
	if folder == "" {
		return nil
	}
	dir := m.dir + "/." + folder
	is, err := s.fs.IsDir(dir)
	if is {
		m.dir = dir
	}
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}

// Folder returns the name of the folder for a sub-address, without the leading
// dot, or "" when there can be none.
func Folder(ext string) string {
	if strings.HasPrefix(ext, ".") || strings.IndexByte(ext, 0) >= 0 {
		return "" // "/..", or hidden below the hidden
	}
	return strings.Map(func(r rune) rune {
		if strings.ContainsRune("!#$%&'*/?^`{|}~", r) {
			return ':'
		}
		return r
	}, ext)
}

// create opens the file in tmp; a maildir that is not there is made.
func (s *Store) create(m *Message) error {
	f, err := s.fs.Create(m.tmp())
	if errors.Is(err, fs.ErrNotExist) {
		delete(s.known, m.dir)
		if err = s.make(m.dir); err == nil {
			f, err = s.fs.Create(m.tmp())
		}
	}
	if err != nil {
		return err
	}
	m.file, m.inTmp = f, true
	return nil
}

func (m *Message) tmp() string { return m.dir + "/tmp/" + m.name }

// newDir is where the message ends up.
func (m *Message) newDir() string {
	if m.junkDir != "" && m.spam.found {
		return m.junkDir + "/new"
	}
	return m.dir + "/new"
}

// Write adds to the message. After a failure it does nothing.
func (m *Message) Write(p []byte) (int, error) {
	if m.Err != nil || len(p) == 0 {
		return len(p), m.Err
	}
	if m.junkDir != "" {
		m.spam.write(p)
	}
	m.empty, m.last = false, p[len(p)-1]
	_, m.Err = m.file.Write(p)
	return len(p), m.Err
}

// make creates a maildir and what is missing above it.
func (s *Store) make(dir string) error {
	if s.known[dir] {
		return nil
	}
	if err := s.mkdirs(dir); err != nil {
		return err
	}
	for _, sub := range []string{"cur", "tmp", "new"} {
		if err := s.mkdirs(dir + "/" + sub); err != nil {
			return err
		}
	}
	if len(s.known) >= maxKnown {
		clear(s.known)
	}
	s.known[dir] = true
	return nil
}

// mkdirs makes sure that dir is a directory; what it makes is on disk when it
// returns.
func (s *Store) mkdirs(dir string) error {
	is, err := s.fs.IsDir(dir)
	if is || err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if err == nil {
		return fmt.Errorf("%s: not a directory", dir)
	}
	if parent := path.Dir(dir); parent != dir {
		if err := s.mkdirs(parent); err != nil {
			return err
		}
	}
	if err := s.fs.Mkdir(dir); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	return s.fs.SyncDir(path.Dir(dir))
}

// Commit finishes a batch: when it returns, every message without Err is in its
// maildir and on stable storage, and of the others nothing is left.
func (s *Store) Commit(batch []*Message) {
	for _, m := range batch {
		if m.Err == nil && !m.empty && m.last != '\n' {
			_, m.Err = m.file.Write([]byte{'\n'})
		}
		if m.Err == nil && len(batch) > 1 {
			m.file.Flush()
		}
	}
	syncAll(batch)
	dirs := make(map[string]error)
	for _, m := range batch {
		if s.publish(m); m.Err == nil {
			dirs[m.newDir()] = nil
		}
	}
	for dir := range dirs {
		dirs[dir] = s.fs.SyncDir(dir)
	}
	for _, m := range batch {
		if m.Err == nil {
			// The message may be there in spite of the error: it will be
			// delivered twice rather than not at all.
			m.Err = dirs[m.newDir()]
		}
		if m.Err != nil && m.inTmp {
			s.fs.Remove(m.tmp())
		}
	}
}

// A file system commits what waits together, so files are synced at the same
// time: one goroutine for each few of a batch, since the first commit serves
// nearly all of a small one and the others would only wake each other; and no
// more than a few.
const (
	perSyncer = 8
	syncers   = 4
)

// syncAll syncs the files of a batch.
func syncAll(batch []*Message) {
	var next atomic.Int64
	work := func() {
		for i := next.Add(1) - 1; i < int64(len(batch)); i = next.Add(1) - 1 {
			if m := batch[i]; m.Err == nil {
				m.Err = m.file.Sync()
			}
		}
	}
	var others sync.WaitGroup
	for range min(syncers, (len(batch)+perSyncer-1)/perSyncer) - 1 {
		others.Go(work)
	}
	work()
	others.Wait()
}

// publish moves the file to new.
func (s *Store) publish(m *Message) {
	if m.file == nil {
		return
	}
	if err := m.file.Close(); m.Err == nil {
		m.Err = err
	}
	m.file = nil
	if m.Err != nil {
		return
	}
	to := m.newDir() + "/" + m.name
	err := s.fs.Rename(m.tmp(), to)
	if errors.Is(err, fs.ErrNotExist) {
		// Somebody removed new, or .Junk.
		dir := path.Dir(m.newDir())
		delete(s.known, dir)
		if err = s.make(dir); err == nil {
			err = s.fs.Rename(m.tmp(), to)
		}
	}
	m.Err, m.inTmp = err, err != nil
}
