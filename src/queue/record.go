package queue

import (
	"encoding/binary"
	"errors"

	"opensmtpd/src/mail"
)

// Payloads of journal records, little-endian, version 0 of each type.
//
//	message   id u32, flags u8, 3 zeros, envelopes u32, size u64, done u32,
//	          done × u64, body when it is inline
//	envelope  the compact form (package envelope); so is update
//	done      u64 × n
//	spooled   id u32, then for each envelope whose file was written
//	          lower half of its id u32, where it was: epoch u64, offset u32
//	discard   holes u32, for each hole the LSNs of its first and of the next
//	          record u64 u64, then ids u32 × n
//	state     removed u8, kind and key: each length u8 and bytes, value

const (
	recordVersion = 0
	messageHead   = 24
	flagFile      = 1 // the body is a file of its own
)

var errPayload = errors.New("malformed journal payload")

// head is the front of a message record.
type head struct {
	id        mail.MessageID
	file      bool
	envelopes uint32
	size      uint64
	done      []mail.EnvelopeID
	body      []byte
}

func (h *head) append(b []byte) []byte {
	b = binary.LittleEndian.AppendUint32(b, uint32(h.id))
	var flags byte
	if h.file {
		flags |= flagFile
	}
	b = append(b, flags, 0, 0, 0)
	b = binary.LittleEndian.AppendUint32(b, h.envelopes)
	b = binary.LittleEndian.AppendUint64(b, h.size)
	b = binary.LittleEndian.AppendUint32(b, uint32(len(h.done)))
	b = appendIDs(b, h.done)
	return append(b, h.body...)
}

func parseHead(b []byte) (head, error) {
	if len(b) < messageHead {
		return head{}, errPayload
	}
	h := head{
		id:        mail.MessageID(binary.LittleEndian.Uint32(b)),
		file:      b[4]&flagFile != 0,
		envelopes: binary.LittleEndian.Uint32(b[8:]),
		size:      binary.LittleEndian.Uint64(b[12:]),
	}
	n := uint64(binary.LittleEndian.Uint32(b[20:]))
	b = b[messageHead:]
	if n*8 > uint64(len(b)) {
		return head{}, errPayload
	}
	var err error
	if h.done, err = parseIDs(b[:n*8]); err != nil {
		return head{}, err
	}
	h.body = b[n*8:]
	if !h.file && uint64(len(h.body)) != h.size {
		return head{}, errPayload
	}
	return h, nil
}

func appendIDs(b []byte, ids []mail.EnvelopeID) []byte {
	for _, id := range ids {
		b = binary.LittleEndian.AppendUint64(b, uint64(id))
	}
	return b
}

func parseIDs(b []byte) ([]mail.EnvelopeID, error) {
	if len(b)%8 != 0 {
		return nil, errPayload
	}
	if len(b) == 0 {
		return nil, nil
	}
	ids := make([]mail.EnvelopeID, 0, len(b)/8)
	for ; len(b) > 0; b = b[8:] {
		ids = append(ids, mail.EnvelopeID(binary.LittleEndian.Uint64(b)))
	}
	return ids, nil
}

// moved names an envelope that became a file, and where its state was until
// then: an update written since lies elsewhere and stays in force.
type moved struct {
	low   uint32
	epoch uint64
	off   uint32
}

const movedSize = 16

func appendSpooled(b []byte, id mail.MessageID, envs []moved) []byte {
	b = binary.LittleEndian.AppendUint32(b, uint32(id))
	for _, m := range envs {
		b = binary.LittleEndian.AppendUint32(b, m.low)
		b = binary.LittleEndian.AppendUint64(b, m.epoch)
		b = binary.LittleEndian.AppendUint32(b, m.off)
	}
	return b
}

func parseSpooled(b []byte) (mail.MessageID, []moved, error) {
	if len(b) < 4 || (len(b)-4)%movedSize != 0 {
		return 0, nil, errPayload
	}
	id := mail.MessageID(binary.LittleEndian.Uint32(b))
	envs := make([]moved, 0, len(b)/movedSize)
	for b = b[4:]; len(b) > 0; b = b[movedSize:] {
		envs = append(envs, moved{
			binary.LittleEndian.Uint32(b), binary.LittleEndian.Uint64(b[4:]), binary.LittleEndian.Uint32(b[12:]),
		})
	}
	return id, envs, nil
}

// gap is a range of LSNs, from first to before next, that a crash left without
// records before they were acknowledged.
type gap struct{ first, next uint64 }

func appendDiscard(b []byte, gaps []gap, ids []mail.MessageID) []byte {
	b = binary.LittleEndian.AppendUint32(b, uint32(len(gaps)))
	for _, g := range gaps {
		b = binary.LittleEndian.AppendUint64(b, g.first)
		b = binary.LittleEndian.AppendUint64(b, g.next)
	}
	return appendMessageIDs(b, ids)
}

func parseDiscard(b []byte) ([]gap, []mail.MessageID, error) {
	if len(b) < 4 {
		return nil, nil, errPayload
	}
	n, b := uint64(binary.LittleEndian.Uint32(b)), b[4:]
	if n*16 > uint64(len(b)) {
		return nil, nil, errPayload
	}
	gaps := make([]gap, n)
	for i := range gaps {
		gaps[i] = gap{binary.LittleEndian.Uint64(b), binary.LittleEndian.Uint64(b[8:])}
		b = b[16:]
	}
	ids, err := parseMessageIDs(b)
	return gaps, ids, err
}

func appendMessageIDs(b []byte, ids []mail.MessageID) []byte {
	for _, id := range ids {
		b = binary.LittleEndian.AppendUint32(b, uint32(id))
	}
	return b
}

func parseMessageIDs(b []byte) ([]mail.MessageID, error) {
	if len(b)%4 != 0 {
		return nil, errPayload
	}
	ids := make([]mail.MessageID, 0, len(b)/4)
	for ; len(b) > 0; b = b[4:] {
		ids = append(ids, mail.MessageID(binary.LittleEndian.Uint32(b)))
	}
	return ids, nil
}

// state is one keyed value; removed when value is nil.
type state struct {
	kind, key string
	value     []byte
}

func (s *state) append(b []byte) []byte {
	removed := byte(0)
	if s.value == nil {
		removed = 1
	}
	b = append(b, removed, byte(len(s.kind)))
	b = append(b, s.kind...)
	b = append(b, byte(len(s.key)))
	b = append(b, s.key...)
	return append(b, s.value...)
}

func parseState(b []byte) (state, error) {
	if len(b) < 2 {
		return state{}, errPayload
	}
	removed, b := b[0] != 0, b[1:]
	kind, b, ok := cut8(b)
	if !ok {
		return state{}, errPayload
	}
	key, b, ok := cut8(b)
	if !ok {
		return state{}, errPayload
	}
	s := state{kind: kind, key: key}
	if !removed {
		s.value = append([]byte{}, b...)
	}
	return s, nil
}

// cut8 takes a string with its length in one byte off b.
func cut8(b []byte) (string, []byte, bool) {
	if len(b) == 0 || int(b[0]) > len(b)-1 {
		return "", nil, false
	}
	n := 1 + int(b[0])
	return string(b[1:n]), b[n:], true
}
