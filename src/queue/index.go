package queue

import (
	"unique"

	"opensmtpd/src/mail"
	"opensmtpd/src/queue/envelope"
	"opensmtpd/src/queue/journal"
)

// ref is where a record lies in the journal; without a segment, not there.
type ref struct {
	seg *journal.Segment
	off uint32
	n   uint32 // bytes of the payload
}

// message is what the index knows of a live message.
type message struct {
	id      mail.MessageID
	file    bool // the body was written as a file, incoming/MSGID
	spooled bool // queue/XX/MSGID is complete
	tried   bool // to make it so: there may be something
	old     bool // was there when the store was opened
	size    int64
	at      ref // the message record
	envs    []entry

	// While recent: the body, the envelopes, and neighbours in the cache.
	body       []byte
	recent     []envelope.Envelope
	prev, next *message
	weight     int64

	// From replay: the LSN of the message, of the first record that is
	// missing, and what counts as done when it turns out that the message was
	// acknowledged.
	lsn     uint64
	missing uint64
	done    []mail.EnvelopeID
}

// entry is a live envelope. One without a place in the journal is a file of the
// spool.
type entry struct {
	Summary
	at ref
}

func (m *message) find(id mail.EnvelopeID) *entry {
	for i := range m.envs {
		if m.envs[i].ID == id {
			return &m.envs[i]
		}
	}
	return nil
}

// remove takes an envelope out and tells whether it was there.
func (m *message) remove(id mail.EnvelopeID) bool {
	e := m.find(id)
	if e == nil {
		return false
	}
	last := len(m.envs) - 1
	*e = m.envs[last]
	m.envs[last] = entry{}
	m.envs = m.envs[:last]
	return true
}

// Summarize returns what the run queue needs of e. Strings that many envelopes
// share are kept once.
func Summarize(e *envelope.Envelope) Summary {
	return Summary{
		ID: e.ID, Type: e.Type, Flags: e.Flags, Retry: e.Retry,
		Action: intern(e.Action), Domain: intern(e.Dest.Domain), User: intern(e.MDAUser), LocalUID: e.LocalUID,
		Created: envelope.Unix(e.Created), TTL: int64(e.TTL.Seconds()),
		LastTry: envelope.Unix(e.LastTry), LastBounce: envelope.Unix(e.LastBounce),
	}
}

func intern(s string) string {
	if s == "" {
		return ""
	}
	return unique.Make(s).Value()
}

// index is all that lives. Its methods change memory alone, the same way while
// running and during replay; the caller holds the lock.
type index struct {
	messages map[mail.MessageID]*message
	states   map[string]map[string][]byte
	held     map[mail.MessageID]uint64   // complete, by the epoch that says so
	byEpoch  map[uint64][]mail.MessageID // the same, by epoch
	torn     map[mail.MessageID]*message // during replay
}

func newIndex() index {
	return index{
		messages: make(map[mail.MessageID]*message),
		states:   make(map[string]map[string][]byte),
		held:     make(map[mail.MessageID]uint64),
		byEpoch:  make(map[uint64][]mail.MessageID),
		torn:     make(map[mail.MessageID]*message),
	}
}

// update puts an envelope's new state in force; false when it does not live.
func (x *index) update(sum Summary, at ref) bool {
	m := x.messages[sum.ID.Message()]
	if m == nil {
		return false
	}
	e := m.find(sum.ID)
	if e == nil {
		return false
	}
	e.Summary, e.at = sum, at
	m.recent = nil
	return true
}

// complete ends an envelope and returns its message, which no longer lives when
// it has no envelopes left; nil when the envelope did not live.
func (x *index) complete(id mail.EnvelopeID, epoch uint64) *message {
	m := x.messages[id.Message()]
	if m == nil || !m.remove(id) {
		return nil
	}
	if len(m.envs) == 0 {
		delete(x.messages, m.id)
		delete(x.torn, m.id)
		x.hold(m.id, epoch)
	}
	return m
}

// hold keeps an identifier from being used again until the segment goes.
func (x *index) hold(id mail.MessageID, epoch uint64) {
	if _, ok := x.held[id]; !ok {
		x.held[id] = epoch
		x.byEpoch[epoch] = append(x.byEpoch[epoch], id)
	}
}

// release lets go of what the segment held.
func (x *index) release(epoch uint64) {
	for _, id := range x.byEpoch[epoch] {
		delete(x.held, id)
	}
	delete(x.byEpoch, epoch)
}

// spooled notes that a message and some of its envelopes have become files.
func (x *index) spooled(id mail.MessageID, envs []moved) *message {
	m := x.messages[id]
	if m == nil {
		return nil
	}
	m.spooled, m.at = true, ref{}
	for _, v := range envs {
		e := m.find(mail.EnvelopeID(id)<<32 | mail.EnvelopeID(v.low))
		if e != nil && e.at.seg != nil && e.at.seg.Epoch == v.epoch && e.at.off == v.off {
			e.at = ref{}
		}
	}
	return m
}

func (x *index) put(s state) {
	if s.value == nil {
		delete(x.states[s.kind], s.key)
		return
	}
	if x.states[s.kind] == nil {
		x.states[s.kind] = make(map[string][]byte)
	}
	x.states[s.kind][s.key] = s.value
}
