package table

import (
	"bytes"

	"opensmtpd/src/conf"
)

// Lines reads the text form of a table whose kind is known, and calls fn for
// every entry, those with the same key too. It changes text; key and value are
// parts of it. What is wrong with a line is a *LineError; an error of fn ends
// the reading.
func Lines(text []byte, kind conf.Kind, fn func(line int, key, value []byte) error) error {
	if len(text) >= maxText {
		return errSize
	}
	text = bytes.TrimPrefix(text, mark)
	p := parser{set: &set{kind: kind, text: text}, decided: true}
	for p.pos < len(text) {
		if err := p.next(); err != nil {
			return err
		}
		for _, e := range p.set.ents {
			if err := fn(int(e.line), text[e.key:][:e.keyLen:e.keyLen], text[e.val:][:e.valLen:e.valLen]); err != nil {
				return err
			}
		}
		p.set.ents = p.set.ents[:0]
	}
	return nil
}
