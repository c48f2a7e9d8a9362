package mail

import "testing"

func TestEnvelopeAt(t *testing.T) {
	const m = MessageID(0xdeadbeef)
	seen := make(map[EnvelopeID]bool)
	for n := uint32(0); n < 100000; n++ {
		id := EnvelopeAt(m, n)
		if id.Message() != m {
			t.Fatalf("EnvelopeAt(%v, %d) = %v belongs to %v", m, n, id, id.Message())
		}
		if uint32(id) == 0 || seen[id] {
			t.Fatalf("EnvelopeAt(%v, %d) = %v: zero or given before", m, n, id)
		}
		seen[id] = true
	}
}

func TestParseIDs(t *testing.T) {
	for _, s := range []string{"", "0", "00000000", "123456789", "xyz", "-1", "1 "} {
		if id, err := ParseMessageID(s); err == nil {
			t.Errorf("ParseMessageID(%q) = %v, want an error", s, id)
		}
	}
	if id, err := ParseMessageID("0badcafe"); err != nil || id.String() != "0badcafe" {
		t.Errorf("ParseMessageID(0badcafe) = %v, %v", id, err)
	}
	for _, s := range []string{"", "0", "00000001", "00000000ffffffff", "10000000000000000", "g000000000000000"} {
		if id, err := ParseEnvelopeID(s); err == nil {
			t.Errorf("ParseEnvelopeID(%q) = %v, want an error", s, id)
		}
	}
	if id, err := ParseEnvelopeID("0badcafe00000001"); err != nil || id.String() != "0badcafe00000001" {
		t.Errorf("ParseEnvelopeID = %v, %v", id, err)
	}
}
