package ca

import (
	"context"
	"os"
	"testing"

	"opensmtpd/src/conf/project"
	"opensmtpd/src/privsep/proc"
)

func TestConfiguration(t *testing.T) {
	good, err := project.Encode(&project.CryptoConf{})
	if err != nil {
		t.Fatal(err)
	}
	other, err := project.Encode(&project.ControlConf{})
	if err != nil {
		t.Fatal(err)
	}
	r, err := New(proc.Env{Conf: proc.Conf{Gen: 1, Projection: good}})
	if err != nil {
		t.Fatal(err)
	}
	f, err := os.Open(os.DevNull)
	if err != nil {
		t.Fatal(err)
	}
	c := proc.Conf{Gen: 2, Projection: other, Files: []proc.File{{Identity: "key", File: f}}}
	if err := r.Prepare(t.Context(), c); err == nil {
		t.Error("the configuration of another role was taken")
	}
	if _, err := f.Stat(); err == nil {
		t.Error("a key that is not used was kept open")
	}
	if _, err := New(proc.Env{Conf: c}); err == nil {
		t.Error("a bad first configuration was taken")
	}
}

func TestRunEndsWithItsContext(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := (&Role{}).Run(ctx); err != nil {
		t.Error(err)
	}
}
