package sendmail

import (
	"bufio"
	"bytes"
	"errors"
	"io"
	"mime/quotedprintable"
	"os"
	"strings"
	"time"

	"opensmtpd/src/mail/rfc5322"
)

// longLine is from which length on a line must not go out as it is: SMTP allows
// 998 bytes (RFC 5321 section 4.5.3.1.6), and OpenSMTPD begins to encode here.
const longLine = 990

// message is what was read from stdin.
type message struct {
	header header
	body   *spool
	long   bool // a line of the body is too long
}

// read takes a whole message from r. Lines may end in LF or CRLF; what is kept
// has LF. A CR elsewhere becomes a space, for SMTP has no place for it.
func read(r io.Reader) (*message, error) {
	br := bufio.NewReaderSize(r, 64<<10)
	m := &message{body: new(spool)}
	first, err := m.readHeader(br)
	if err != nil {
		return nil, err
	}
	w := &bodyWriter{w: m.body}
	if !m.header.valid() {
		w.write(m.header.lines)
		m.header = header{}
	}
	w.write(first)
	if err := w.copy(br); err != nil {
		m.body.Close()
		return nil, err
	}
	m.long = w.long
	return m, nil
}

// readHeader stops behind the header, and returns the line that it could not
// take.
func (m *message) readHeader(br *bufio.Reader) (rest []byte, err error) {
	for {
		line, err := br.ReadSlice('\n')
		switch {
		case errors.Is(err, bufio.ErrBufferFull):
			return bytes.Clone(line), nil // no header has such a line
		case err != nil && !errors.Is(err, io.EOF):
			return nil, err
		case len(line) == 0:
			return nil, nil
		}
		clean := cleanLine(line)
		if !m.header.take(clean) {
			if m.header.ended {
				return nil, nil
			}
			return bytes.Clone(line), nil
		}
		if err != nil {
			return nil, nil
		}
	}
}

// cleanLine ends a line in LF alone and leaves no CR in it.
func cleanLine(line []byte) []byte {
	out := bytes.TrimRight(line, "\r\n")
	out = bytes.ReplaceAll(out, []byte{'\r'}, []byte{' '})
	return append(out[:len(out):len(out)], '\n')
}

// bodyWriter brings a body into the form that is kept, whatever the pieces that
// it comes in.
type bodyWriter struct {
	w    *spool
	cr   int // CRs whose meaning the next byte tells
	len  int // of the line
	long bool
	err  error
}

func (b *bodyWriter) copy(br *bufio.Reader) error {
	buf := make([]byte, 64<<10)
	for {
		n, err := br.Read(buf)
		b.write(buf[:n])
		if b.err != nil {
			return b.err
		}
		if errors.Is(err, io.EOF) {
			if b.len > 0 {
				b.emit([]byte{'\n'}, 0)
			}
			return b.err
		}
		if err != nil {
			return err
		}
	}
}

func (b *bodyWriter) write(p []byte) {
	for len(p) > 0 && b.err == nil {
		switch p[0] {
		case '\r':
			b.cr++
			p = p[1:]
		case '\n': // CRs before it belong to it
			b.cr = 0
			b.emit(p[:1], 0)
			p = p[1:]
		default:
			if b.cr > 0 {
				b.emit([]byte{' '}, b.len+1)
				b.cr = 0
			}
			n := bytes.IndexAny(p, "\r\n")
			if n < 0 {
				n = len(p)
			}
			b.emit(p[:n], b.len+n)
			p = p[n:]
		}
	}
}

// emit keeps p, after which the line is length bytes long.
func (b *bodyWriter) emit(p []byte, length int) {
	b.len = length
	b.long = b.long || length >= longLine
	if b.err == nil {
		_, b.err = b.w.Write(p)
	}
}

// identity is what fields are made of when the message lacks them.
type identity struct {
	from string // address, qualified
	name string // "" for none
	date time.Time
}

// writeTo sends the message, lines ended by CRLF, as it goes into DATA before
// dots are doubled.
func (m *message) writeTo(w io.Writer, id identity) error {
	encode := m.long && m.mayEncode()
	bw := bufio.NewWriterSize(w, 32<<10)
	bw.Write(m.missing(id, encode))
	for i := range m.header.fields {
		f := &m.header.fields[i]
		if f.is("Bcc") || f.is("Return-Path") {
			continue
		}
		bw.Write(bytes.ReplaceAll(f.text, []byte{'\n'}, []byte("\r\n")))
	}
	bw.WriteString("\r\n")
	m.body.Rewind()
	if err := m.writeBody(bw, encode); err != nil {
		return err
	}
	return bw.Flush()
}

func (m *message) writeBody(bw *bufio.Writer, encode bool) error {
	if !encode {
		_, err := io.Copy(crlfWriter{bw}, m.body)
		return err
	}
	// It writes CRLF itself, and takes LF as the end of a line.
	qp := quotedprintable.NewWriter(bw)
	if _, err := io.Copy(qp, m.body); err != nil {
		return err
	}
	return qp.Close()
}

// mayEncode tells whether a body with long lines may be sent in
// quoted-printable: not when it says how it is encoded, nor when it consists of
// parts (RFC 2045 section 6.4).
func (m *message) mayEncode() bool {
	if m.header.find("Content-Transfer-Encoding") != nil {
		return false
	}
	ct := m.header.find("Content-Type")
	if ct == nil {
		return true
	}
	v := strings.ToLower(strings.TrimSpace(ct.value()))
	return !strings.HasPrefix(v, "multipart/") && !strings.HasPrefix(v, "message/")
}

// missing returns the fields that the message should have and has not.
func (m *message) missing(id identity, encode bool) []byte {
	var b []byte
	if m.header.find("From") == nil {
		b = append(b, "From: "...)
		if id.name != "" {
			b = append(append(b, displayName(id.name)...), ' ')
		}
		b = append(append(append(b, '<'), id.from...), ">\r\n"...)
	}
	if m.header.find("Date") == nil {
		b = append(b, "Date: "...)
		b = append(rfc5322.AppendDate(b, id.date), "\r\n"...)
	}
	if !encode {
		return b
	}
	for _, f := range []struct{ name, value string }{
		{"MIME-Version", "1.0"},
		{"Content-Type", "text/plain; charset=unknown-8bit"},
		{"Content-Disposition", "inline"},
		{"Content-Transfer-Encoding", "quoted-printable"},
	} {
		if m.header.find(f.name) == nil {
			b = append(b, f.name+": "+f.value+"\r\n"...)
		}
	}
	return b
}

// crlfWriter ends lines with CRLF that end in LF.
type crlfWriter struct{ w *bufio.Writer }

func (c crlfWriter) Write(p []byte) (int, error) {
	n := len(p)
	for len(p) > 0 {
		i := bytes.IndexByte(p, '\n')
		if i < 0 {
			_, err := c.w.Write(p)
			return n, err
		}
		c.w.Write(p[:i])
		if _, err := c.w.WriteString("\r\n"); err != nil {
			return 0, err
		}
		p = p[i+1:]
	}
	return n, nil
}

// inMemory is how much of a body is kept in memory; the rest goes to a file that
// has no name.
const inMemory = 1 << 20

// spool keeps a body until it is sent, once or again.
type spool struct {
	mem  []byte
	file *os.File
	size int64 // of file
	pos  int64
}

func (s *spool) Write(p []byte) (int, error) {
	if s.file == nil && len(s.mem)+len(p) <= inMemory {
		s.mem = append(s.mem, p...)
		return len(p), nil
	}
	if s.file == nil {
		// Not where the environment says: sendmail may run set-id.
		f, err := os.CreateTemp("/tmp", "sendmail.*")
		if err != nil {
			return 0, err
		}
		s.file = f
		if err := os.Remove(f.Name()); err != nil {
			return 0, err
		}
	}
	n, err := s.file.WriteAt(p, s.size)
	s.size += int64(n)
	return n, err
}

// Rewind makes Read begin again.
func (s *spool) Rewind() { s.pos = 0 }

func (s *spool) Read(p []byte) (int, error) {
	var n int
	if s.pos < int64(len(s.mem)) {
		n = copy(p, s.mem[s.pos:])
	} else if s.file != nil {
		var err error
		n, err = s.file.ReadAt(p, s.pos-int64(len(s.mem)))
		if n == 0 && err != nil {
			return 0, err
		}
	} else {
		return 0, io.EOF
	}
	s.pos += int64(n)
	return n, nil
}

// Close gives the file back.
func (s *spool) Close() {
	if s.file != nil {
		s.file.Close()
	}
}
