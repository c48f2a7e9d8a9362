package mailerr

import (
	"errors"
	"fmt"
	"testing"
)

func TestReply(t *testing.T) {
	for _, tc := range []struct {
		err  *Error
		want string
	}{
		{Permanent(550, 1, 1, "Invalid recipient", nil), "550 5.1.1 Invalid recipient"},
		{Temporary(452, 3, 1, "Insufficient system storage", errors.New("disk full")), "452 4.3.1 Insufficient system storage"},
		{&Error{Class: Drop, Code: 421, Text: "bye"}, "421 bye"},
	} {
		if got := tc.err.Reply(); got != tc.want {
			t.Errorf("Reply() = %q, want %q", got, tc.want)
		}
	}
}

func TestFrom(t *testing.T) {
	if From(nil) != nil {
		t.Error("From(nil) is not nil")
	}
	own := Permanent(550, 1, 1, "no", nil)
	if got := From(fmt.Errorf("while testing: %w", own)); got != own {
		t.Errorf("From lost the error inside: %v", got)
	}
	cause := errors.New("EIO")
	got := From(cause)
	if got.Class != Temp || got.Code != 451 || !errors.Is(got, cause) {
		t.Errorf("From(EIO) = %+v", got)
	}
	if got.Reply() != "451 4.3.0 Temporary failure" {
		t.Errorf("the cause shows in the reply: %q", got.Reply())
	}
}
