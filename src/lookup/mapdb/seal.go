package mapdb

import (
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"io"
	"os"
)

// A map ends with a trailer behind the pages of bbolt, which does not look
// there. bbolt follows offsets in the file without checking them, so that no
// page of it is touched before the whole is known to be as it was written.
//
//	magic [16]byte, length of what is before u64, CRC-32C of that u32, zero u32
//
// little-endian. Reading a map of a million entries for it takes some 10 ms.
const (
	trailerMagic = "opensmtpd map 1\n"
	trailerSize  = len(trailerMagic) + 8 + 4 + 4
)

// sum returns the CRC-32C of the first n bytes of f.
func sum(f io.ReaderAt, n int64) (uint32, error) {
	h := crc32.New(crc32.MakeTable(crc32.Castagnoli))
	buf := make([]byte, 256<<10)
	// The wrapper hides a method by which io.Copy would choose a buffer itself.
	r := struct{ io.Reader }{io.NewSectionReader(f, 0, n)}
	got, err := io.CopyBuffer(h, r, buf)
	if err == nil && got < n {
		err = io.ErrUnexpectedEOF
	}
	return h.Sum32(), err
}

// seal adds the trailer to the file at path, gives it to its owner, and makes all
// of it durable.
func seal(path string, owner Owner) error {
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	defer f.Close()
	st, err := f.Stat()
	if err != nil {
		return err
	}
	crc, err := sum(f, st.Size())
	if err != nil {
		return err
	}
	b := make([]byte, 0, trailerSize)
	b = append(b, trailerMagic...)
	b = binary.LittleEndian.AppendUint64(b, uint64(st.Size()))
	b = binary.LittleEndian.AppendUint32(b, crc)
	b = binary.LittleEndian.AppendUint32(b, 0)
	if _, err := f.WriteAt(b, st.Size()); err != nil {
		return err
	}
	if err := setOwner(f, owner); err != nil {
		return err
	}
	return f.Sync()
}

// verify compares a file of the given size with its trailer.
func verify(f io.ReaderAt, size int64) error {
	pages := size - int64(trailerSize)
	if pages < 0 {
		return fmt.Errorf("%w (cut short)", ErrDamaged)
	}
	b := make([]byte, trailerSize)
	if _, err := f.ReadAt(b, pages); err != nil {
		return err
	}
	if string(b[:len(trailerMagic)]) != trailerMagic {
		return fmt.Errorf("%w (cut short, or not made by makemap(8))", ErrDamaged)
	}
	length := binary.LittleEndian.Uint64(b[len(trailerMagic):])
	crc, err := sum(f, pages)
	if err != nil {
		return err
	}
	if length != uint64(pages) || crc != binary.LittleEndian.Uint32(b[len(trailerMagic)+8:]) {
		return fmt.Errorf("%w (checksum)", ErrDamaged)
	}
	return nil
}
