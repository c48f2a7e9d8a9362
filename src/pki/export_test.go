package pki

import "runtime"

// AwaitWaiting returns once n handshakes wait for their turn.
func (t *Turns) AwaitWaiting(n int) {
	for {
		t.mu.Lock()
		have := 0
		for _, list := range t.waiting {
			have += len(list)
		}
		t.mu.Unlock()
		if have >= n {
			return
		}
		runtime.Gosched()
	}
}
