package mda

// defaultPath is _PATH_DEFPATH.
const defaultPath = "/usr/bin:/bin:/usr/sbin:/sbin:/usr/X11R6/bin:/usr/local/bin:/usr/local/sbin"
