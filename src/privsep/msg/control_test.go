package msg

// controlSamples holds the messages of control, full and empty.
func controlSamples() []Parser {
	return []Parser{
		&Control{},
		&Control{Verb: VerbRemove, UID: 1000, Operator: true, Args: []string{"all", ""}, Cursor: "17"},
		&ControlRows{},
		&ControlRows{Rows: [][]byte{[]byte(`{"a":1}`), []byte("{}")}, Raw: []byte("From: x\n"), Count: 9, Next: "8"},
		&LocalSession{UID: 1000, GID: 1001},
		&Stats{},
		&StatsReply{},
		&StatsReply{Counters: []Counter{{"mda.user", 3, 1}, {"smtp.session", 1 << 40, -1}}},
	}
}
