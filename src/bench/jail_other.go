//go:build !linux

package main

import (
	"context"
	"errors"
	"io"
)

const jailVerb = "in-jail"

var errLinux = errors.New("compare needs Linux: it runs the servers in namespaces")

func runJail(context.Context, []string) error { return errLinux }

func runCompare(context.Context, []string, io.Writer) error { return errLinux }

func runFilter(context.Context, []string, io.Writer) error { return errLinux }

func runRelay(context.Context, []string, io.Writer) error { return errLinux }

func runCrowd(context.Context, []string, io.Writer) error { return errLinux }
