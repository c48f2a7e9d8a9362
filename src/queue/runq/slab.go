package runq

import "time"

// slab keeps entries in chunks, so that growing never copies them, and hands
// out places instead of pointers.
type slab struct {
	chunks [][]entry
	used   int32
	free   int32 // first of the free ones, plus 1
}

const chunkBits = 10

func (s *slab) at(i int32) *entry {
	return &s.chunks[i>>chunkBits][i&(1<<chunkBits-1)]
}

func (s *slab) alloc() int32 {
	if s.free > 0 {
		i := s.free - 1
		s.free = s.at(i).next
		return i
	}
	if int(s.used>>chunkBits) == len(s.chunks) {
		s.chunks = append(s.chunks, make([]entry, 1<<chunkBits))
	}
	s.used++
	return s.used - 1
}

func (s *slab) release(i int32) {
	*s.at(i) = entry{next: s.free}
	s.free = i + 1
}

// line is a list of entries, first in first out.
type line struct{ head, tail int32 }

var emptyLine = line{-1, -1}

func (l *line) push(s *slab, i int32) {
	e := s.at(i)
	e.prev, e.next = l.tail, -1
	if l.tail >= 0 {
		s.at(l.tail).next = i
	} else {
		l.head = i
	}
	l.tail = i
}

func (l *line) pushFront(s *slab, i int32) {
	e := s.at(i)
	e.prev, e.next = -1, l.head
	if l.head >= 0 {
		s.at(l.head).prev = i
	} else {
		l.tail = i
	}
	l.head = i
}

func (l *line) remove(s *slab, i int32) {
	e := s.at(i)
	if e.prev >= 0 {
		s.at(e.prev).next = e.next
	} else {
		l.head = e.next
	}
	if e.next >= 0 {
		s.at(e.next).prev = e.prev
	} else {
		l.tail = e.prev
	}
	e.prev, e.next = -1, -1
}

// heap orders entries by Queue.key, four children to a node. The keys lie
// beside the places, so that sifting does not visit the entries.
type heap struct {
	q     *Queue
	order []int32
	keys  []time.Duration
}

func (h *heap) push(i int32, key time.Duration) {
	h.order = append(h.order, i)
	h.keys = append(h.keys, key)
	h.up(len(h.order) - 1)
}

// fix gives i, which is in the heap, a new key; one that is not is pushed.
func (h *heap) fix(i int32, key time.Duration) {
	n := int(h.q.slab.at(i).heap)
	if n < 0 {
		h.push(i, key)
		return
	}
	h.keys[n] = key
	h.up(n)
	h.down(int(h.q.slab.at(i).heap))
}

// remove takes i out, if it is in.
func (h *heap) remove(i int32) {
	e := h.q.slab.at(i)
	n := int(e.heap)
	if n < 0 {
		return
	}
	e.heap = -1
	last := len(h.order) - 1
	moved, key := h.order[last], h.keys[last]
	h.order, h.keys = h.order[:last], h.keys[:last]
	if n == last {
		return
	}
	h.put(n, moved, key)
	h.up(n)
	h.down(int(h.q.slab.at(moved).heap))
}

func (h *heap) put(n int, i int32, key time.Duration) {
	h.order[n], h.keys[n] = i, key
	h.q.slab.at(i).heap = int32(n)
}

func (h *heap) up(n int) {
	i, key := h.order[n], h.keys[n]
	for n > 0 {
		parent := (n - 1) / 4
		if h.keys[parent] <= key {
			break
		}
		h.put(n, h.order[parent], h.keys[parent])
		n = parent
	}
	h.put(n, i, key)
}

func (h *heap) down(n int) {
	i, key := h.order[n], h.keys[n]
	for {
		least, lk := -1, key
		for c := 4*n + 1; c < min(4*n+5, len(h.order)); c++ {
			if h.keys[c] < lk {
				least, lk = c, h.keys[c]
			}
		}
		if least < 0 {
			break
		}
		h.put(n, h.order[least], lk)
		n = least
	}
	h.put(n, i, key)
}
