package bounce

import (
	"bytes"
	"errors"
	"io"
	"strings"
)

// maxHeaders bounds what of an original's headers goes into a report, in bytes.
const maxHeaders = 64 << 10

// source is what a report needs to know of the original message.
type source struct {
	part      int64  // how much of it the report carries
	messageID string // "<…>", or ""
	eightBit  bool   // whether that part has bytes above 127
}

// examine reads the headers of a message, and the rest when full.
func examine(r io.ReaderAt, size int64, full bool) (source, error) {
	head := make([]byte, min(size, maxHeaders))
	if n, err := r.ReadAt(head, 0); err != nil && !(errors.Is(err, io.EOF) && n == len(head)) {
		return source{}, err
	}
	end := headersEnd(head)
	o := source{part: int64(end), messageID: messageID(head[:end]), eightBit: !ascii(head[:end])}
	if !full {
		return o, nil
	}
	o.part, o.eightBit = size, !ascii(head)
	buf := make([]byte, 64<<10)
	for at := int64(len(head)); at < size && !o.eightBit; {
		n, err := r.ReadAt(buf[:min(int64(len(buf)), size-at)], at)
		if err != nil && !(errors.Is(err, io.EOF) && n > 0) {
			return source{}, err
		}
		o.eightBit = !ascii(buf[:n])
		at += int64(n)
	}
	return o, nil
}

// headersEnd is where the headers end: before the empty line, or at the last
// whole line of what was read.
func headersEnd(head []byte) int {
	if len(head) > 0 && head[0] == '\n' {
		return 0
	}
	if i := bytes.Index(head, []byte("\n\n")); i >= 0 {
		return i + 1
	}
	if i := bytes.Index(head, []byte("\n\r\n")); i >= 0 {
		return i + 1
	}
	return bytes.LastIndexByte(head, '\n') + 1
}

// messageID returns the value of the first Message-ID field when it is a
// well-formed one, fit to stand in a field of ours.
func messageID(head []byte) string {
	const name = "message-id:"
	for len(head) > 0 {
		end := bytes.IndexByte(head, '\n')
		if end < 0 {
			end = len(head) - 1
		}
		for end+1 < len(head) && (head[end+1] == ' ' || head[end+1] == '\t') {
			next := bytes.IndexByte(head[end+1:], '\n')
			if next < 0 {
				end = len(head) - 1
				break
			}
			end += 1 + next
		}
		if len(head) > len(name) && strings.EqualFold(string(head[:len(name)]), name) {
			return checkID(strings.TrimSpace(string(head[len(name) : end+1])))
		}
		head = head[end+1:]
	}
	return ""
}

func checkID(id string) string {
	if len(id) < 3 || len(id) > 250 || id[0] != '<' || id[len(id)-1] != '>' {
		return ""
	}
	for _, c := range []byte(id[1 : len(id)-1]) {
		if c <= ' ' || c >= 0x7f || c == '<' || c == '>' {
			return ""
		}
	}
	return id
}
