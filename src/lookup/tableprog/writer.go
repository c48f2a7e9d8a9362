package tableprog

import (
	"io"
	"sync"
)

// writer sends answers as they come; those that gather while one is on its way
// go together.
type writer struct {
	mu   sync.Mutex
	buf  []byte
	wake chan struct{}
	done chan struct{}
}

func newWriter(out io.Writer) *writer {
	w := &writer{wake: make(chan struct{}, 1), done: make(chan struct{})}
	go w.run(out)
	return w
}

func (w *writer) put(b []byte) {
	w.mu.Lock()
	w.buf = append(w.buf, b...)
	w.mu.Unlock()
	select {
	case w.wake <- struct{}{}:
	default:
	}
}

// run drops what cannot be written: smtpd is gone then, and in ends as well.
func (w *writer) run(out io.Writer) {
	defer close(w.done)
	for range w.wake {
		w.mu.Lock()
		b := w.buf
		w.buf = nil
		w.mu.Unlock()
		if len(b) > 0 {
			_, _ = out.Write(b)
		}
	}
}

// close waits until all is written. Nothing may be put any more.
func (w *writer) close() {
	close(w.wake)
	<-w.done
}
