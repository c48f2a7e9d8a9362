//go:build !openbsd

package mda

// defaultPath is _PATH_DEFPATH.
const defaultPath = "/usr/bin:/bin"
