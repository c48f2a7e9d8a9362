package mlog

import (
	"slices"
	"strings"
	"sync"
)

// Memory is a Sink that keeps its lines, for tests.
type Memory struct {
	mu    sync.Mutex
	lines []string
	more  chan struct{} // closed at the next line, nil while nobody waits
}

// Line implements Sink.
func (m *Memory) Line(_ Priority, line string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.lines = append(m.lines, line)
	if m.more != nil {
		close(m.more)
		m.more = nil
	}
}

// String is all lines, one below the other.
func (m *Memory) String() string {
	m.mu.Lock()
	defer m.mu.Unlock()
	return strings.Join(m.lines, "\n")
}

// With returns the lines that hold part.
func (m *Memory) With(part string) []string {
	m.mu.Lock()
	defer m.mu.Unlock()
	return slices.DeleteFunc(slices.Clone(m.lines), func(l string) bool { return !strings.Contains(l, part) })
}

// Has tells whether a line holds part.
func (m *Memory) Has(part string) bool { return len(m.With(part)) > 0 }

// Take returns all lines, and forgets them.
func (m *Memory) Take() []string {
	m.mu.Lock()
	defer m.mu.Unlock()
	lines := m.lines
	m.lines = nil
	return lines
}

// Await returns the first line that holds part, as soon as there is one.
func (m *Memory) Await(part string) string {
	line, _ := m.await(part)
	return line
}

// TakeUntil is Await that forgets the line, and those before it.
func (m *Memory) TakeUntil(part string) {
	_, n := m.await(part)
	m.mu.Lock()
	defer m.mu.Unlock()
	m.lines = m.lines[n+1:]
}

// await returns a line and its place.
func (m *Memory) await(part string) (string, int) {
	for {
		m.mu.Lock()
		i := slices.IndexFunc(m.lines, func(l string) bool { return strings.Contains(l, part) })
		if i >= 0 {
			defer m.mu.Unlock()
			return m.lines[i], i
		}
		if m.more == nil {
			m.more = make(chan struct{})
		}
		more := m.more
		m.mu.Unlock()
		<-more
	}
}
