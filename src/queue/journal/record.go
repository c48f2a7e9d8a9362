// Package journal is the log that makes mail durable: segments of fixed size,
// written through and then recycled, one writer that groups what many have to
// say into one synced write, and a replay that finds after a crash exactly what
// was acknowledged.
//
// A segment is a file journal/seg.EPOCH.LSN, both as 16 hexadecimal digits: the
// epoch tells its records from those of the file's former life, the LSN is that
// of its first record. Records of a segment count only below the first LSN of
// the next segment, which is how a batch that had to be written again, or the
// torn end of the log before a crash, is made void. An epoch is a sequence
// number in the upper half and 32 random bits in the lower, so that no sender
// can put a record into the body of a message. Spare segments are named
// journal/free.EPOCH.
//
// A record, all little-endian, at a multiple of 8 bytes:
//
//	0  magic    u32
//	4  length   u32  of the payload
//	8  type     u8
//	9  version  u8
//	10 zero     u16
//	12 crc      u32  CRC-32C of payload, bytes 0-11, bytes 16-39
//	16 lsn      u64  log sequence number
//	24 epoch    u64  of the segment
//	32 durable  u64  every record below this LSN was synced when this was written
//	40 payload, zeros up to a multiple of 8
//
// A batch begins at a multiple of 4096 bytes, so that a write never touches a
// page that holds durable records.
package journal

import (
	"encoding/binary"
	"errors"
	"hash/crc32"
)

// Type tells what a record says.
type Type uint8

const (
	Message    Type = iota + 1 // a message begins; its envelopes follow
	Envelope                   // one recipient of the message before
	Update                     // an envelope in its new state
	Done                       // envelopes are complete
	Spooled                    // a message has become files
	Discard                    // a message torn by a crash is void
	State                      // small keyed data of other roles
	Checkpoint                 // a checkpoint was written, or the disk was tried
)

const (
	magic      = 0x4a515053
	headerSize = 40
	align      = 8
	page       = 4096

	// MaxPayload bounds a record, so that a damaged length is seen as such.
	MaxPayload = 4 << 20
)

// magicBytes is magic as it lies on the disk.
var magicBytes = []byte{0x53, 0x50, 0x51, 0x4a}

// ErrDamaged tells that a record is not what was written.
var ErrDamaged = errors.New("damaged journal record")

// castagnoli is CRC-32C, which processors compute themselves.
var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// Record is one read back.
type Record struct {
	Type    Type
	Version uint8
	LSN     uint64
	Durable uint64
	Payload []byte // valid during the visit only
	Seg     *Segment
	Off     int64 // of the header in the segment
}

// Len returns how many bytes the record takes in the segment.
func (r *Record) Len() int64 { return recordLen(len(r.Payload)) }

func recordLen(payload int) int64 {
	return int64(headerSize+payload+align-1) &^ (align - 1)
}

// Buffer gathers the records of a batch. Between Begin and End a unit appends
// the payload to B.
type Buffer struct {
	B     []byte
	unit  int // where the unit began
	begin int // where the record began
}

// Begin starts a record and returns its offset from the start of the unit.
func (b *Buffer) Begin(t Type, version uint8) int64 {
	b.begin = len(b.B)
	b.B = append(b.B, make([]byte, headerSize)...)
	h := b.B[b.begin:]
	binary.LittleEndian.PutUint32(h, magic)
	h[8], h[9] = byte(t), version
	return int64(b.begin - b.unit)
}

// End closes the record and returns the length of its payload.
func (b *Buffer) End() int {
	payload := b.B[b.begin+headerSize:]
	n := len(payload)
	h := b.B[b.begin:]
	binary.LittleEndian.PutUint32(h[4:], uint32(n))
	binary.LittleEndian.PutUint32(h[12:], crc32.Checksum(payload, castagnoli))
	for len(b.B)%align != 0 {
		b.B = append(b.B, 0)
	}
	return n
}

// seal fills in what is known only when the batch is written: LSNs from lsn on,
// epoch, durable, and the final CRC. It returns the next LSN. sealed batches can
// be sealed again for another segment, because the payload's CRC is kept in sums.
func (b *Buffer) seal(lsn, epoch, durable uint64, sums []uint32) uint64 {
	for at, i := 0, 0; at < len(b.B); i++ {
		h := b.B[at:]
		binary.LittleEndian.PutUint64(h[16:], lsn)
		binary.LittleEndian.PutUint64(h[24:], epoch)
		binary.LittleEndian.PutUint64(h[32:], durable)
		binary.LittleEndian.PutUint32(h[12:], headerSum(sums[i], h))
		at += int(recordLen(int(binary.LittleEndian.Uint32(h[4:]))))
		lsn++
	}
	return lsn
}

// sums collects the CRCs of the payloads before the first seal.
func (b *Buffer) sums(into []uint32) []uint32 {
	into = into[:0]
	for at := 0; at < len(b.B); {
		h := b.B[at:]
		into = append(into, binary.LittleEndian.Uint32(h[12:]))
		at += int(recordLen(int(binary.LittleEndian.Uint32(h[4:]))))
	}
	return into
}

func headerSum(payload uint32, h []byte) uint32 {
	sum := crc32.Update(payload, castagnoli, h[:12])
	return crc32.Update(sum, castagnoli, h[16:headerSize])
}

// decode reads the record at the start of b, which must carry epoch. The
// payload is part of b.
func decode(b []byte, epoch uint64) (Record, bool) {
	if len(b) < headerSize || binary.LittleEndian.Uint32(b) != magic ||
		binary.LittleEndian.Uint64(b[24:]) != epoch {
		return Record{}, false
	}
	n := int64(binary.LittleEndian.Uint32(b[4:]))
	if n > MaxPayload || int64(len(b)) < headerSize+n {
		return Record{}, false
	}
	payload := b[headerSize : headerSize+n : headerSize+n]
	if headerSum(crc32.Checksum(payload, castagnoli), b) != binary.LittleEndian.Uint32(b[12:]) {
		return Record{}, false
	}
	return Record{
		Type: Type(b[8]), Version: b[9],
		LSN: binary.LittleEndian.Uint64(b[16:]), Durable: binary.LittleEndian.Uint64(b[32:]),
		Payload: payload,
	}, true
}
