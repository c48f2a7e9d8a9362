package msg

// stateSamples holds what queue keeps for others, full and empty.
func stateSamples() []Parser {
	values := []KeptValue{{Key: "a", Data: []byte("value")}, {Key: "b", Remove: true}}
	return []Parser{
		&Keep{Kind: "greylist", Values: values},
		&Keep{Kind: "greylist", Sync: true, Values: []KeptValue{}},
		&Kept{Kind: "greylist", After: "a"},
		&KeptReply{Values: values},
	}
}
