package mta

import (
	"container/heap"
	"time"
)

// alarms are functions to call at a time. None is ever taken back: each looks
// for itself whether there is still something to do.
type alarms struct{ list alarmHeap }

type alarm struct {
	at time.Duration
	do func()
}

// add tells whether the alarm is the next one.
func (a *alarms) add(at time.Duration, do func()) bool {
	heap.Push(&a.list, alarm{at, do})
	return a.list[0].at == at
}

// ring calls what is due.
func (a *alarms) ring(now time.Duration) {
	for len(a.list) > 0 && a.list[0].at <= now {
		heap.Pop(&a.list).(alarm).do()
	}
}

func (a *alarms) next() (time.Duration, bool) {
	if len(a.list) == 0 {
		return 0, false
	}
	return a.list[0].at, true
}

// alarmHeap implements heap.Interface.
type alarmHeap []alarm

func (h alarmHeap) Len() int           { return len(h) }
func (h alarmHeap) Less(i, j int) bool { return h[i].at < h[j].at }
func (h alarmHeap) Swap(i, j int)      { h[i], h[j] = h[j], h[i] }
func (h *alarmHeap) Push(x any)        { *h = append(*h, x.(alarm)) }

func (h *alarmHeap) Pop() any {
	old := *h
	last := old[len(old)-1]
	old[len(old)-1] = alarm{}
	*h = old[:len(old)-1]
	return last
}
